"""Rankings as people write them, `C A=B D`, and what they imply: one edge for every pair in different tiers."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import TypeVar

from hafs.errors import UsageError

LABELS = "ABCDEFGH"
"""The names of cards, in the order shown."""

T = TypeVar("T", bound=Hashable)
Tiers = tuple[tuple[str, ...], ...]

_SEPARATORS = re.compile(r"[\s,;>]+")


def example(labels: Sequence[str]) -> str:
    """A ranking of these labels for a person to see how it is written: `C A B D` for four."""
    first = labels[2:3] if len(labels) > 2 else labels[1:2]
    return " ".join([*first, *(label for label in labels if label not in first)])


def parse_ranking(text: str, labels: Sequence[str]) -> Tiers:
    """The tiers of a ranking from best to worst, ties with `=`: `C A=B D`, `c > a = b > d`, `CABD`.

    Labels left out are unranked. Raises UsageError for an unknown or repeated label, a tie without a partner, and
    fewer than two labels.
    """
    fix = f'write the letters from best to worst, such as "{example(labels)}"; ties as "{labels[0]}={labels[1]}"'
    words = _words(text.strip().upper(), labels)
    tiers: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for word in words:
        tier = word.split("=")
        for label in tier:
            if not label:
                raise UsageError("there is a = without a letter on both sides", fix)
            if label not in labels:
                raise UsageError(f"there is no {label[:20]}, only {', '.join(labels)}", fix)
            if label in seen:
                raise UsageError(f"{label} is named twice", fix)
            seen.add(label)
        tiers.append(tuple(tier))
    if len(seen) < 2:
        raise UsageError("a ranking names at least two" if seen else "nothing was ranked", fix)
    return tuple(tiers)


def _words(text: str, labels: Sequence[str]) -> list[str]:
    """The tiers as written, each with its `=`; letters written together without any mark are one tier each."""
    text = re.sub(r"\s*=\s*", "=", text)
    words = [word for word in _SEPARATORS.split(text) if word]
    known = set(labels)
    return [
        part
        for word in words
        for part in (re.findall(r"[^=](?:=[^=])*", word) if known >= set(word) - {"="} and _joined(word) else [word])
    ]


def _joined(word: str) -> bool:
    """Whether a word is letters in a row, ties among them, with every = between two letters."""
    return not (word.startswith("=") or word.endswith("=") or "==" in word)


def implied_edges(tiers: Iterable[Sequence[T]]) -> list[tuple[T, T]]:
    """(winner, loser) for every two members of different tiers, best first."""
    return [(a, b) for better, worse in combinations(list(tiers), 2) for a in better for b in worse]


def pair_orders(tiers: Iterable[Sequence[str]]) -> Mapping[tuple[str, str], int]:
    """For every two ranked ids in sorted order (a, b): 1 when a is better, -1 when b is, 0 when they tie."""
    place = {id: i for i, tier in enumerate(tiers) for id in tier}
    return {(a, b): (place[a] < place[b]) - (place[a] > place[b]) for a, b in combinations(sorted(place), 2)}
