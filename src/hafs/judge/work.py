"""What is left to ask: the questions about a selection of prompts, less what was decided or answered before.

Prompts are read a page at a time, so the memory that a run takes does not grow with the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from hafs.judge.answers import Unreadable, read
from hafs.judge.protocols import Ask, Protocol, Reading
from hafs.judge.run.ledger import Call, Ledger
from hafs.store import Store
from hafs.store.query import Matching
from hafs.types import Candidate, Prompt, Verdict

PAGE = 64
"""Prompts read at once."""
REFUSED = "refused"

Choose = Callable[[Prompt, Sequence[Candidate]], Sequence[Sequence[Candidate]]]
"""Of a prompt's candidates the sets to ask about, each by itself."""


Chosen = tuple[Prompt, Sequence[Sequence[Candidate]]]


@dataclass(frozen=True)
class Selection:
    """Which candidates are judged: those of `prompt_ids`, of a model's hash where given, each text once.

    At most `most` of a prompt (the first by seed and index), or the sets that `choose` makes of them.
    """

    prompt_ids: Sequence[str]
    model: Matching = None
    most: int = 8
    choose: Choose | None = None

    def pages(self, store: Store) -> Iterator[list[Chosen]]:
        """The prompts with the sets of their candidates, `PAGE` prompts at a time, in the order of the ids."""
        ids = sorted(self.prompt_ids)
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            prompts = list(store.prompts(ids=page))
            of = store.candidates(prompt_ids=page, model=self.model)
            found = {id: list(mine) for id, mine in groupby(of, key=lambda c: c.prompt_id)}
            yield [(p, self._sets(p, found.get(p.id, []))) for p in prompts]

    def _sets(self, prompt: Prompt, candidates: Sequence[Candidate]) -> Sequence[Sequence[Candidate]]:
        unique = list({c.text.strip(): c for c in reversed(candidates)}.values())[::-1]
        return self.choose(prompt, unique) if self.choose else [unique[: self.most]]


@dataclass
class Page:
    """The questions about a page of prompts: `asks` are to be sent, `verdicts` come from the ledger's answers.

    `decided` have their verdict already, `prompts` is how many prompts the page has, `skipped` how many of them have
    nothing to judge (too few candidates, or no reference).
    """

    asks: list[Ask] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    decided: int = 0
    prompts: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Work:
    """The questions to one judge by one protocol about a selection."""

    store: Store
    ledger: Ledger
    judge: str
    protocol: Protocol
    selection: Selection

    def pages(self) -> Iterator[Page]:
        """What is left, page by page."""
        for prompts in self.selection.pages(self.store):
            yield self._page(prompts)

    def verdicts(self) -> Iterator[list[Verdict]]:
        """The verdicts there are of the selection, a page of prompts at a time."""
        for prompts in self.selection.pages(self.store):
            shown = {c.id for _, sets in prompts for candidates in sets for c in candidates}
            yield [v for v in self._stored([p.id for p, _ in prompts]) if shown.issuperset(v.shown)]

    def _stored(self, prompt_ids: Sequence[str]) -> Iterator[Verdict]:
        return self.store.verdicts(prompt_ids=prompt_ids, judge=self.judge, protocol=self.protocol.id)

    def _page(self, prompts: Sequence[Chosen]) -> Page:
        page = Page(prompts=len(prompts))
        done = {v.id for v in self._stored([p.id for p, _ in prompts]) if v.outcome != "malformed"}
        left: list[Ask] = []
        for prompt, sets in prompts:
            asks = [ask for candidates in sets for ask in self.protocol.asks(prompt, candidates)]
            page.skipped += not asks
            new = [a for a in asks if a.verdict(self.judge, Reading("abstain")).id not in done]
            page.decided += len(asks) - len(new)
            left += new
        known = self.ledger.answers([a.key(self.judge) for a in left])
        for ask in left:
            verdict = from_ledger(ask, self.judge, known.get(ask.key(self.judge)))
            if verdict is None:
                page.asks.append(ask)
            else:
                page.verdicts.append(verdict)
        return page


def from_ledger(ask: Ask, judge: str, call: Call | None) -> Verdict | None:
    """The verdict that an answered call makes; None without one, or when it can no longer be read."""
    if call is None:
        return None
    if call.reason == REFUSED:
        return ask.verdict(judge, Reading("abstain", reason=f"the judge {REFUSED}"))
    try:
        return ask.verdict(judge, read(ask, call.raw))
    except Unreadable:
        return None
