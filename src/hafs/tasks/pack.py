"""A task pack: families with shares, from which prompts are generated the same way on every machine."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from hafs.errors import UsageError
from hafs.tasks import SPLITS, split_of
from hafs.types import Prompt

TRIES = 2000  # draws in a row without a new prompt after which a family counts as exhausted


class Family(Protocol):
    """A named kind of task, as a pack needs it; `draft` draws the parameters of one instance from a label."""

    @property
    def name(self) -> str: ...

    @property
    def category(self) -> str: ...

    @property
    def tags(self) -> tuple[str, ...]: ...

    def draft(self, label: str) -> Any: ...

    def text(self, draft: Any, pick: random.Random, held_out: bool) -> tuple[str, str]: ...

    def prompt(self, draft: Any, text: str, split: str, phrasing: str) -> Prompt: ...


@dataclass(frozen=True)
class FamilyPack:
    """Families by name, and the share of each category in per cent."""

    name: str
    families: Mapping[str, Family]
    shares: Mapping[str, int]

    def generate(
        self,
        split: str,
        n: int,
        seed: int = 0,
        families: Collection[str] | None = None,
        tags: Collection[str] | None = None,
    ) -> list[Prompt]:
        """`n` different prompts of a split, balanced over categories by share and evenly over their families.

        `families` and `tags` narrow the choice (a family must have all the tags). The first prompts of a
        longer call are those of a shorter one. Raises UsageError for an unknown split, family or tag, and
        when the families cannot give that many prompts.
        """
        if split not in SPLITS:
            raise UsageError(f"there is no split {split!r}", f"use one of: {', '.join(SPLITS)}")
        streams: dict[str, deque[Iterator[Prompt]]] = {}
        for family in self._select(families, tags):
            streams.setdefault(family.category, deque()).append(self._stream(family, split, seed))
        out = list(islice(self._take_turns(streams), n))
        if len(out) < n:
            raise UsageError(f"{self.name} has only {len(out)} different prompts of that kind", "ask for fewer")
        return out

    def _take_turns(self, streams: dict[str, deque[Iterator[Prompt]]]) -> Iterator[Prompt]:
        """Prompts from the streams of each category: categories by smooth weighted round robin, families in turn.

        At every moment a category has had its share, within one prompt. Streams that end drop out.
        """
        credit = dict.fromkeys(streams, 0)
        while streams:
            for category in streams:
                credit[category] += self.shares[category]
            best = max(streams, key=lambda category: credit[category])
            credit[best] -= sum(self.shares[category] for category in streams)
            prompt = next(streams[best][0], None)
            if prompt is None:
                streams[best].popleft()
            else:
                streams[best].rotate(-1)
                yield prompt
            if not streams[best]:
                del streams[best]

    def _select(self, families: Collection[str] | None, tags: Collection[str] | None) -> list[Family]:
        unknown = sorted(set(families or ()) - set(self.families))
        if unknown:
            known = ", ".join(sorted(self.families))
            raise UsageError(f"the pack {self.name} has no family {unknown[0]!r}", f"use some of: {known}")
        wanted = set(tags or ())
        chosen = [f for f in self.families.values() if (not families or f.name in families) and wanted <= set(f.tags)]
        if not chosen:
            raise UsageError(f"no such family of {self.name} has the tags {', '.join(sorted(wanted))}", "drop a tag")
        return chosen

    def _stream(self, family: Family, split: str, seed: int) -> Iterator[Prompt]:
        """The family's different prompts of a split, in an order that depends on the seed alone."""
        seen: set[str] = set()
        index = misses = 0
        while misses < TRIES:
            label = f"{self.name}/{family.name}/{split}/{seed}/{index}"
            index += 1
            draft = family.draft(label)
            text, phrasing = family.text(draft, random.Random(f"{label}/phrasing"), held_out=split == "test")
            if text in seen or split_of(text) != split:
                misses += 1
                continue
            misses = 0
            seen.add(text)
            yield family.prompt(draft, text, split, phrasing)
