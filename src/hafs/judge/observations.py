"""A verdict taken apart: what one asking says of each two candidates, and which of them was shown first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from hafs.types import Verdict


@dataclass(frozen=True)
class Observation:
    """`vote` is above 0 when the candidate shown first is better, below 0 when the second is, 0 for a tie; its size is
    the verdict's strength."""

    first: str
    second: str
    vote: float


def observations(verdict: Verdict) -> Iterator[Observation]:
    """Every two candidates that the verdict ranks, in the order shown; none of an abstention or a malformed answer."""
    if verdict.outcome == "tie":
        place = dict.fromkeys(verdict.shown, 0)
    elif verdict.outcome == "ranked":
        place = {id: i for i, tier in enumerate(verdict.tiers) for id in tier}
    else:
        return
    for first, second in combinations([id for id in verdict.shown if id in place], 2):
        ahead = place[second] - place[first]
        yield Observation(first, second, verdict.strength * ((ahead > 0) - (ahead < 0)))
