"""Which candidates of a ranking are paired. Ties never make a pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import TypeVar

T = TypeVar("T")
Tiers = Sequence[Sequence[T]]


def _all(tiers: Tiers[T]) -> Iterator[tuple[T, T]]:
    """Every member of a tier against every member of the tiers below."""
    for i, tier in enumerate(tiers):
        for lower in tiers[i + 1 :]:
            yield from product(tier, lower)


def _best_worst(tiers: Tiers[T]) -> Iterator[tuple[T, T]]:
    """The first of the best tier against the last of the worst."""
    if len(tiers) > 1:
        yield tiers[0][0], tiers[-1][-1]


def _guide(tiers: Tiers[T]) -> Iterator[tuple[T, T]]:
    """The best against the worst, the second against the second worst, and so on; ties are skipped."""
    members = [(place, member) for place, tier in enumerate(tiers) for member in tier]
    for i in range(len(members) // 2):
        (better, winner), (worse, loser) = members[i], members[-(i + 1)]
        if better != worse:
            yield winner, loser


_SCHEMES: dict[str, Callable[[Tiers[T]], Iterator[tuple[T, T]]]] = {
    "all": _all,
    "best-worst": _best_worst,
    "guide": _guide,
}
SCHEMES = tuple(_SCHEMES)


def pair(tiers: Tiers[T], scheme: str) -> list[tuple[T, T]]:
    """The (winner, loser) pairs that a scheme makes of tiers, best first; KeyError when there is no such."""
    return list(_SCHEMES[scheme](tiers))


def spread(tiers: Tiers[T], most: int) -> list[list[T]]:
    """Tiers with at most `most` members in all: the worst, the best, and evenly spaced ones between them."""
    if sum(map(len, tiers)) <= most:
        return [list(tier) for tier in tiers if tier]
    places = [(i, j) for i, tier in enumerate(tiers) for j in range(len(tier))]
    last = len(places) - 1
    places = [places[last - round(k * last / max(1, most - 1))] for k in reversed(range(most))]
    kept = [[tier[j] for place, j in places if place == i] for i, tier in enumerate(tiers)]
    return [tier for tier in kept if tier]
