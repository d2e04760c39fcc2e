"""What is asked: the items of a mode, each a prompt with the candidates to show.

An item of "rank" is a prompt with up to `candidates` different answers, of "ab" one answer of each of two models, of
"rate" a single answer, of "review" the answers of a verdict that people or a scorer contradict. Answers of equal text
are one card; an item whose answers are all equal is left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs.annotate.ranking import pair_orders
from hafs.config import AnnotateSettings
from hafs.data import load
from hafs.errors import DataError, UsageError
from hafs.store import Store
from hafs.types import Candidate, Prompt, Queued, Ranking, Verdict, content_id, same_text

GOLD_EVERY = 10
"""At most one item in so many is a gold one, while there are others."""


@dataclass(frozen=True)
class Entry:
    """One item before it is given to anybody: the prompt, the candidates' ids, and what it is for."""

    prompt_id: str
    cards: tuple[str, ...]
    verdict: str = ""
    queued: Queued | None = None
    gold: bool = False

    def about(self) -> dict[str, Any]:
        """What an answer to it records: the verdict, whether it is gold, why and how probably it was chosen."""
        found: dict[str, Any] = {"verdict": self.verdict, "gold": self.gold}
        if self.queued is not None:
            found |= {"reason": self.queued.reason, "inclusion_probability": self.queued.probability}
        return {key: value for key, value in found.items() if value not in ("", False, None)}

    def same_as(self, shown: Sequence[str]) -> bool:
        """Whether somebody who was shown these has answered this one: they share two cards (or the only one)."""
        return len(set(shown) & set(self.cards)) >= min(2, len(self.cards))


def read_queue(store: Store, run: str) -> list[Queued]:
    """The queue that a run of kind "annotation-queue" chose; raises UsageError when there is no such run."""
    found = store.get_run(run)
    if found is None or found.kind != "annotation-queue":
        known = ", ".join(r.id for r in store.runs(kind="annotation-queue"))
        raise UsageError(f"there is no annotation queue {run}", f"use one of: {known}" if known else "make one first")
    return [Queued(**row) for row in found.outputs["prompts"]]


def read_gold(path: str | Path) -> dict[str, Ranking]:
    """Rankings known to be right, by prompt; raises what `hafs.data.load` raises."""
    return {ranking.prompt_id: ranking for ranking in load(path, Ranking.from_dict).rows}


class Queue:
    """The items in their order, from the store's candidates as they are now.

    Without `queued` it is every prompt that has candidates, in an order drawn by the seed. With `making`, prompts that
    lack candidates belong to it too (`waits`). Prompts of the test split are asked about only when they are `queued`,
    with `tests`, for A/B, or as gold. `prompts` are those asked about, `equal` is how many are not because their
    answers are all equal (or one model's is missing), `held_out` how many because they are of the test split. Raises
    UsageError for "ab" without two different models.
    """

    def __init__(
        self,
        store: Store,
        settings: AnnotateSettings,
        queued: Iterable[Queued] | None = None,
        making: bool = False,
        tests: bool = False,
    ) -> None:
        if settings.mode == "ab" and (len(settings.models) != 2 or len(set(settings.models)) != 2):
            raise UsageError("A/B needs two models that differ", "name them: --model A --model B")
        self._store, self._settings, self._making = store, settings, making
        self.gold = read_gold(settings.gold) if settings.gold else {}
        self._given = list(queued) if queued is not None else None
        self.equal = self.held_out = 0
        told = tests or queued is not None or settings.mode == "ab"
        self._tests = frozenset() if told else frozenset(p.id for p in store.prompts(split="test"))
        self._verdicts = self._contradicted() if settings.mode == "review" else {}
        self._candidates: dict[str, list[Candidate]] = {}
        self._entries: dict[str, list[Entry]] = {}
        self.prompts: list[Queued] = []
        self.refresh()

    def refresh(self, prompt_ids: Sequence[str] | None = None) -> None:
        """Look for candidates again: of these prompts, or of all."""
        if prompt_ids is not None and not prompt_ids:
            return
        wanted = prompt_ids if prompt_ids is not None else self._wanted()
        found: dict[str, list[Candidate]] = defaultdict(list)
        for candidate in self._store.candidates(prompt_ids=wanted):
            if self._shown(candidate):
                found[candidate.prompt_id].append(candidate)
        if prompt_ids is None:
            self._candidates, self._entries = {}, {}
        for id in found if wanted is None else wanted:
            self._candidates[id] = found.get(id, [])
            self._entries.pop(id, None)
        self._order()

    def entries(self, prompt_id: str) -> list[Entry]:
        """The items of a prompt; none when its candidates are missing, to be made, or all equal."""
        if prompt_id not in self._entries:
            self._entries[prompt_id] = self._made(prompt_id)
        return self._entries[prompt_id]

    def waits(self, prompt_id: str) -> bool:
        """Whether candidates of the prompt are still to be made."""
        found = self._candidates.get(prompt_id, [])
        if not self._making or prompt_id in self.gold:
            return False
        if self._settings.mode == "ab":
            return not all(any(m in (c.model, c.model_name) for c in found) for m in self._settings.models)
        return self._settings.mode != "review" and len(found) < self._settings.candidates

    def plan(self) -> list[str]:
        """The prompts in the order they are asked: gold ones spread among the others."""
        gold = [q.id for q in self.prompts if q.id in self.gold]
        plan = [q.id for q in self.prompts if q.id not in self.gold]
        step = max(1, min(GOLD_EVERY, (len(plan) + len(gold)) // max(1, len(gold))))
        for i, id in enumerate(gold):
            plan.insert(min(len(plan), i * step + step // 2), id)
        return plan

    # ---- inside

    def _made(self, prompt_id: str) -> list[Entry]:
        queued, settings = self._about.get(prompt_id), self._settings
        if self.waits(prompt_id):
            return []
        unique = {same_text(c.text): c for c in reversed(self._candidates.get(prompt_id, []))}
        cards = [c.id for c in reversed(unique.values())]
        gold = prompt_id in self.gold
        if settings.mode == "review":
            of = self._verdicts.get(prompt_id, [])
            return [Entry(prompt_id, v.shown, v.id, queued, gold) for v in of]
        if settings.mode == "rate":
            return [Entry(prompt_id, (card,), queued=queued, gold=gold) for card in cards[: settings.candidates]]
        if settings.mode == "ab":
            cards = self._one_of_each(self._candidates.get(prompt_id, []))
        elif gold:
            known = {id for tier in self.gold[prompt_id].tiers for id in tier}
            cards.sort(key=lambda id: id not in known)
        cards = cards[: settings.candidates]
        return [Entry(prompt_id, tuple(cards), queued=queued, gold=gold)] if len(cards) > 1 else []

    def _wanted(self) -> list[str] | None:
        if self._given is not None:
            return [q.id for q in self._given] + list(self.gold)
        return list(self._verdicts) if self._settings.mode == "review" else None

    def _order(self) -> None:
        """`prompts` and `_about` from the given queue, or from what has candidates, cut to the target."""
        seed, target = self._settings.seed, self._settings.target
        listed = self._given
        if listed is None:
            ids = sorted(self._candidates, key=lambda id: content_id("queue", seed, id))
            listed = [Queued(id) for id in ids]
        gold = [Queued(id, None, "gold") for id in self.gold if self._candidates.get(id)]
        self._about = {q.id: q for q in [*reversed(listed), *gold]}
        others = [id for id in dict.fromkeys(q.id for q in listed) if id not in self.gold]
        self.held_out = sum(id in self._tests for id in others)
        others = [id for id in others if id not in self._tests]
        asked = [id for id in others if self.waits(id) or self.entries(id)]
        self.equal = len(others) - len(asked)
        self.prompts = [*(self._about[id] for id in asked[: target or None]), *gold]

    def _shown(self, candidate: Candidate) -> bool:
        """Whether a candidate is for showing: people's own edits are not, nor those of other models."""
        if candidate.source.startswith("edited:"):
            return False
        models = self._settings.models
        return not models or candidate.model in models or candidate.model_name in models

    def _one_of_each(self, candidates: Sequence[Candidate]) -> list[str]:
        """The first answer of each of the two models; nothing when one is missing or both are equal."""
        first: dict[str, Candidate] = {}
        for c in candidates:
            for model in self._settings.models:
                if model in (c.model, c.model_name):
                    first.setdefault(model, c)
        if len(first) < 2:
            return []
        a, b = first.values()
        if same_text(a.text) == same_text(b.text):
            return []
        return [a.id, b.id]

    def _contradicted(self) -> dict[str, list[Verdict]]:
        """The ranked verdicts that a person's or a scorer's order contradicts, one for each set of candidates."""
        known = _known_orders(self._store)
        found: dict[str, dict[frozenset[str], Verdict]] = defaultdict(dict)
        for verdict in self._store.verdicts():
            if verdict.outcome != "ranked" or len(verdict.shown) < 2:
                continue
            orders = pair_orders(verdict.tiers)
            if any(order * known.get((verdict.prompt_id, *pair), 0) < 0 for pair, order in orders.items()):
                found[verdict.prompt_id].setdefault(frozenset(verdict.shown), verdict)
        return {id: list(verdicts.values()) for id, verdicts in found.items()}


def _known_orders(store: Store) -> Mapping[tuple[str, str, str], int]:
    """(prompt, a, b) -> the order that scores give, replaced by people's where they ranked."""
    scores: dict[str, dict[str, tuple[float, ...]]] = defaultdict(dict)
    prompt_of = {c.id: c.prompt_id for c in store.candidates()}
    for score in store.scores(scored=True):
        scores[prompt_of[score.candidate_id]][score.candidate_id] = score.key or (score.value or 0.0,)
    orders: dict[tuple[str, str, str], int] = {}
    for prompt_id, keys in scores.items():
        tiers = [[id for id, k in keys.items() if k == key] for key in sorted(set(keys.values()), reverse=True)]
        orders |= {(prompt_id, *pair): order for pair, order in pair_orders(tiers).items()}
    for annotation in store.annotations(mode="rank"):
        if (ranking := annotation.ranking()) is not None:
            orders |= {(ranking.prompt_id, *p): order for p, order in pair_orders(ranking.tiers).items()}
    return orders


def check_prompts(store: Store, queued: Sequence[Queued]) -> None:
    """Raise DataError when a queue names a prompt that is not in the store."""
    known = {p.id for p in store.prompts(ids=[q.id for q in queued])}
    if missing := [q.id for q in queued if q.id not in known]:
        raise DataError(
            f"{len(missing)} prompts of the queue are not in the workspace ({missing[0]})",
            "`hafs data import prompts FILE` adds them",
        )


def queue_of(prompts: Iterable[Prompt]) -> list[Queued]:
    """A queue of these prompts in their order."""
    return [Queued(p.id) for p in prompts]
