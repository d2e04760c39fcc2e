"""What people said of the candidates, pair by pair, for comparing a judge with them.

A person's label of two candidates is 1 when the first (by id) is better, 0 when the second is, 0.5 for a tie. Repeats
(a later look at a prompt, not announced) are kept apart: they measure how far a person agrees with themself.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from hafs.store import Store
from hafs.types import Annotation, Ranking

Pair = tuple[str, str]
PairLabels = dict[Pair, float]

SEEN_BLIND = ("rank", "ab")
"""The modes in which a person sees no verdict; only these may be compared with a judge."""

ASSUMED_SECONDS = 90.0
"""A person's time for one prompt where none was measured: the guide's 1-2 minutes."""


@dataclass
class Labels:
    """Labels by prompt and person, the repeats, and the pace.

    `of` is prompt id -> person -> pair -> label; `repeats` are (prompt id, first look, later look), `annotations` the
    ids of what was read, `seconds` the median time of a prompt (None where none was measured).
    """

    of: dict[str, dict[str, PairLabels]] = field(default_factory=lambda: defaultdict(dict))
    repeats: list[tuple[str, PairLabels, PairLabels]] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    seconds: float | None = None

    @property
    def pace(self) -> float:
        """Seconds a prompt takes, measured or assumed."""
        return ASSUMED_SECONDS if self.seconds is None else self.seconds


def read_labels(store: Store, *, blind: bool = True) -> Labels:
    """The people's labels in a workspace; `blind` leaves out what was said with a judge's verdict in sight.

    Rankings with a source "human:NAME" that no annotation made (imported ones) count as first looks.
    """
    found = Labels()
    looks: dict[tuple[str, str], list[Annotation]] = defaultdict(list)
    seconds = []
    for a in store.annotations():
        if a.seconds is not None and a.seconds > 0 and a.answer != "skipped":
            seconds.append(a.seconds)
        if a.ranking() is not None and (a.mode in SEEN_BLIND or (not blind and a.mode == "review")):
            looks[a.prompt_id, a.annotator].append(a)
            found.annotations.append(a.id)
    for (prompt_id, person), mine in looks.items():
        first = min(a.serial for a in mine)
        labels: PairLabels = {}
        for a in mine:  # in the order said: of equal serial the last word counts
            if a.serial == first:
                labels.update(pair_labels(a.tiers))
        found.of[prompt_id][person] = labels
        found.repeats += [(prompt_id, labels, pair_labels(a.tiers)) for a in mine if a.serial != first]
    for ranking in _imported(store):
        person = ranking.source.removeprefix("human:")
        if person not in found.of.get(ranking.prompt_id, {}):
            found.of[ranking.prompt_id][person] = pair_labels(ranking.tiers)
            found.annotations.append(ranking.id)
    found.seconds = statistics.median(seconds) if seconds else None
    return found


def _imported(store: Store) -> Iterable[Ranking]:
    for ranking in store.rankings():
        if ranking.source.startswith("human:") and "annotation" not in ranking.details:
            yield ranking


def pair_labels(tiers: Iterable[Iterable[str]]) -> PairLabels:
    """The label of every two candidates of a ranking."""
    place = {id: i for i, tier in enumerate(tiers) for id in tier}
    return {
        (a, b): 0.5 if place[a] == place[b] else float(place[a] < place[b]) for a, b in combinations(sorted(place), 2)
    }


def pooled(people: Mapping[str, PairLabels]) -> dict[Pair, tuple[float, tuple[str, ...]]]:
    """For each pair the mean label of the people who gave one, and who they are."""
    said: dict[Pair, dict[str, float]] = defaultdict(dict)
    for person, labels in sorted(people.items()):
        for pair, label in labels.items():
            said[pair][person] = label
    return {pair: (sum(by.values()) / len(by), tuple(by)) for pair, by in said.items()}
