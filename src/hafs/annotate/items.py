"""What the faces show: an item with its cards, and how far somebody is. Nothing in them says who wrote what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from hafs.annotate.ranking import LABELS
from hafs.store import Lease
from hafs.types import Annotation, Candidate, Prompt

BREAK_SECONDS = 600
"""A pause longer than this ends a sitting."""


@dataclass(frozen=True)
class Card:
    """One answer under a letter, with the thought that came before it; `edited` marks one that a person wrote."""

    candidate_id: str
    label: str
    text: str
    edited: bool = False
    thought: str = ""


@dataclass(frozen=True)
class Item:
    """A prompt and the cards to judge, in the order of this annotator.

    `lease` is the secret that the answer comes back with. `position` counts from 1 to `total`. `draft` is what the
    face kept with `AnnotationService.draft`, `previous` the answer that was just taken back (keys answer, tiers as
    labels, confidence, value, note), each empty without one.
    """

    prompt: Prompt
    cards: tuple[Card, ...]
    lease: str
    mode: str
    serial: int
    position: int
    total: int
    draft: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters of the cards."""
        return tuple(card.label for card in self.cards)


@dataclass(frozen=True)
class Progress:
    """How far an annotator is. `streak` counts the answers since the last pause of ten minutes.

    `seconds_left` is the median time of an answer times what is left; None before the first answer.
    """

    done: int
    total: int
    median_seconds: float | None
    seconds_left: float | None
    streak: int

    @property
    def left(self) -> int:
        return self.total - self.done


def make_cards(lease: Lease, candidates: Mapping[str, Candidate]) -> tuple[Card, ...]:
    """The cards of a lease in its order."""
    return tuple(
        Card(id, LABELS[i], candidates[id].text, candidates[id].source.startswith("edited:"), candidates[id].thought)
        for i, id in enumerate(lease.shown)
    )


def make_progress(mine: Sequence[Annotation], left: int) -> Progress:
    """Progress from an annotator's answers, oldest first, and the number of items that are left."""
    seconds = [a.seconds for a in mine if a.seconds is not None]
    middle = median(seconds) if seconds else None
    streak = 0
    for later, earlier in zip([None, *reversed(mine)], reversed(mine), strict=False):
        if later is not None and later.submitted - earlier.submitted > BREAK_SECONDS:
            break
        streak += 1
    return Progress(len(mine), len(mine) + left, middle, None if middle is None else middle * left, streak)
