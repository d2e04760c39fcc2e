"""What is in preference groups, counted in one pass: sources, families, margins, lengths."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hafs.preferences.mix import kind_of
from hafs.types import PreferenceGroup

__all__ = ["Stats", "StatsChart", "charts_of_stats", "headline_of"]

BINS = 20


def _bin(value: float, low: float, high: float) -> int:
    """Which of BINS equal parts of [low, high] a value is in; the outer ones take what is beyond."""
    return min(BINS - 1, max(0, math.floor((value - low) / (high - low) * BINS)))


@dataclass
class Stats:
    """Counts over groups. Margins are in bins over [0, 1], lengths in bins of log2 (winner / loser) over [-4, 4]."""

    groups: int = 0
    edges: int = 0
    candidates: int = 0
    off_policy: int = 0
    soft: int = 0
    longer_wins: int = 0
    shorter_wins: int = 0
    weight: float = 0.0
    sources: dict[str, dict[str, float]] = field(default_factory=dict)
    families: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    margins: list[int] = field(default_factory=lambda: [0] * BINS)
    lengths: list[int] = field(default_factory=lambda: [0] * BINS)

    def counted(self, groups: Iterable[PreferenceGroup]) -> Iterator[PreferenceGroup]:
        """Pass groups through and count each."""
        for group in groups:
            self.add(group)
            yield group

    def add(self, group: PreferenceGroup) -> None:
        """Count one group."""
        sizes = [len(c.text) for c in group.candidates]
        self.groups += 1
        self.edges += len(group.edges)
        self.candidates += len(sizes)
        self.off_policy += sum(c.off_policy for c in group.candidates)
        self.families[group.family] += 1
        self.splits[group.split] += 1
        self.sizes[len(sizes)] += 1
        logs = [math.log2(n + 1) for n in sizes]
        for e in group.edges:
            source = self.sources.get(e.source) or self.sources.setdefault(e.source, {"edges": 0, "weight": 0.0})
            source["edges"] += 1
            source["weight"] += e.weight
            self.weight += e.weight
            self.soft += e.p != 1.0
            if e.margin is not None:
                self.margins[_bin(e.margin, 0.0, 1.0)] += 1
            a, b = sizes[e.winner], sizes[e.loser]
            self.longer_wins += a > b
            self.shorter_wins += a < b
            self.lengths[_bin(logs[e.winner] - logs[e.loser], -4.0, 4.0)] += 1

    def __add__(self, other: Stats) -> Stats:
        """Both together."""
        sources = {name: dict(row) for name, row in self.sources.items()}
        for name, row in other.sources.items():
            mine = sources.setdefault(name, {"edges": 0, "weight": 0.0})
            for what, n in row.items():
                mine[what] += n
        both: dict[str, Any] = {"sources": sources}
        for name in vars(self).keys() - both.keys():
            one, two = getattr(self, name), getattr(other, name)
            both[name] = [a + b for a, b in zip(one, two, strict=True)] if isinstance(one, list) else one + two
        return Stats(**both)

    def kinds(self) -> dict[str, dict[str, float]]:
        """Edges and weight by kind of source, heaviest first."""
        found: dict[str, dict[str, float]] = {}
        for source, row in self.sources.items():
            kind = found.setdefault(kind_of(source), {"edges": 0, "weight": 0.0})
            kind["edges"] += row["edges"]
            kind["weight"] += row["weight"]
        return dict(sorted(found.items(), key=lambda item: -item[1]["weight"]))

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain data; `from_dict` reads it."""
        return {
            **vars(self),
            "families": dict(self.families),
            "splits": dict(self.splits),
            "sizes": {str(k): v for k, v in self.sizes.items()},
        }

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Stats:
        """The counts that `to_dict` wrote."""
        sizes = Counter({int(k): v for k, v in row["sizes"].items()})
        return cls(**{**row, "families": Counter(row["families"]), "splits": Counter(row["splits"]), "sizes": sizes})


class StatsChart(NamedTuple):
    """Bars with a title; of each its name, its length and what it says."""

    title: str
    rows: list[tuple[str, float, str]]


def headline_of(found: Stats) -> str:
    """The counts in one sentence."""
    return (
        f"{found.groups:,} groups, {found.edges:,} edges, {found.candidates:,} candidates"
        f" ({found.off_policy:,} off policy); {found.soft:,} edges are uncertain"
    )


def charts_of_stats(found: Stats) -> list[StatsChart]:
    """The counts as bars: sources, families, margins, lengths."""
    kinds = found.kinds().items()
    weights = [(k, row["weight"], f"{row['weight']:,.0f} in {row['edges']:,.0f} edges") for k, row in kinds]
    charts = [StatsChart("weight by source", weights)]
    named = [(name or "(none)", float(n), f"{n:,}") for name, n in found.families.most_common(12)]
    charts.append(StatsChart(f"groups by family ({len(found.families)} in all)", named))
    if any(found.margins):
        margins = [(f"{i / 20:.2f}", float(n), f"{n:,}") for i, n in enumerate(found.margins)]
        charts.append(StatsChart("margin of edges", margins))
    lengths = [(f"{2 ** (i * 0.4 - 4):.2f}×", float(n), f"{n:,}") for i, n in enumerate(found.lengths)]
    told = found.longer_wins + found.shorter_wins
    share = f", the longer one wins {found.longer_wins / told:.0%}" if told else ""
    return [*charts, StatsChart(f"winner's length by loser's{share}", [row for row in lengths if row[1]])]
