"""What people said of the candidates, pair by pair: the one reader of their labels, and the one rule that joins them.

A person's label of two candidates is 1 when the first (by id) is better, 0 when the second is, 0.5 for a tie. It comes
from a ranking, a choice between two, two ratings, or an edited answer, which beats the answer that it was made from and
all that this one beats. Repeats (a later look at a prompt, not announced) are kept apart: they measure how far a person
agrees with themself. Each person counts once for a pair; a slight preference weighs half of a clear one.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from hafs.store import Store
from hafs.types import Annotation, Ranking

Pair = tuple[str, str]
PairLabels = dict[Pair, float]

SEEN_BLIND = ("rank", "ab", "rate")
"""The modes in which a person sees no verdict; only these may be compared with a judge."""

SLIGHT = 0.5
"""The weight of a slight preference, a clear one's being 1."""

ASSUMED_SECONDS = 90.0
"""A person's time for one prompt where none was measured: the guide's 1-2 minutes."""


@dataclass(frozen=True)
class Merged:
    """What several people's labels of two candidates come to.

    `first` and `second` are the weights that speak for either, a tie giving half of its to each. `sources` say who
    labelled the pair, as edges do.
    """

    first: float
    second: float
    sources: tuple[str, ...]

    @property
    def label(self) -> float:
        """The share of the weight that speaks for the first."""
        return self.first / (self.first + self.second)


@dataclass
class Labels:
    """Labels by prompt and person, the repeats, and the pace.

    `of` is prompt id -> person -> pair -> label, `slight` and `edited` the pairs so labelled, as (prompt id, person,
    pair); `ratings` are prompt id -> person -> candidate -> value, `repeats` are (prompt id, first look, later look),
    `annotations` the ids of what was read, `seconds` the median time of a prompt (None where none was measured).
    """

    of: dict[str, dict[str, PairLabels]] = field(default_factory=lambda: defaultdict(dict))
    slight: set[tuple[str, str, Pair]] = field(default_factory=set)
    edited: set[tuple[str, str, Pair]] = field(default_factory=set)
    ratings: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    repeats: list[tuple[str, PairLabels, PairLabels]] = field(default_factory=list)
    annotations: list[str] = field(default_factory=list)
    seconds: float | None = None

    def merged(self, prompt_id: str, same: Mapping[str, str] | None = None) -> dict[Pair, Merged]:
        """The labels of a prompt's pairs, of all people together.

        `same` maps candidates to the one whose text they share; what a person said of equal texts is averaged.
        """
        said: dict[Pair, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
        for person, labels in sorted(self.of.get(prompt_id, {}).items()):
            for pair, label in labels.items():
                a, b = (same.get(id, id) for id in pair) if same else pair
                if a == b:
                    continue
                weight = SLIGHT if (prompt_id, person, pair) in self.slight else 1.0
                source = f"human:{person}" + ":edited" * ((prompt_id, person, pair) in self.edited)
                said[min(a, b), max(a, b)][source].append((label if a < b else 1 - label, weight))
        return {pair: _merged(by) for pair, by in said.items()}

    @property
    def pace(self) -> float:
        """Seconds a prompt takes, measured or assumed."""
        return ASSUMED_SECONDS if self.seconds is None else self.seconds


def read_labels(store: Store, *, blind: bool = True, annotators: Sequence[str] | None = None) -> Labels:
    """The people's labels in a workspace, or those of some `annotators`; `blind` leaves out what was said with a
    judge's verdict in sight.

    Rankings with a source "human:NAME" that no annotation made (imported ones) count as first looks.
    """
    found = labels_of(store.annotations(annotator=annotators), blind=blind)
    for ranking in _imported(store):
        person = ranking.source.removeprefix("human:")
        if annotators is not None and person not in annotators:
            continue
        if person not in found.of.get(ranking.prompt_id, {}):
            found.of[ranking.prompt_id][person] = pair_labels(ranking.tiers)
            found.annotations.append(ranking.id)
    return found


def labels_of(annotations: Iterable[Annotation], *, blind: bool = True) -> Labels:
    """The labels of some annotations; of several of one person the first look at a prompt, and there the last word."""
    found = Labels()
    looks: dict[tuple[str, str], list[Annotation]] = defaultdict(list)
    rated: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    seconds = []
    for a in annotations:
        if a.seconds is not None and a.seconds > 0 and a.answer != "skipped":
            seconds.append(a.seconds)
        if a.undone is not None or (a.mode not in SEEN_BLIND and (blind or a.mode != "review")):
            continue
        if a.mode == "rate":
            if a.answer == "ranked" and a.value is not None and not a.serial:
                rated[a.prompt_id, a.annotator].setdefault(a.shown[0], a.value)
                found.annotations.append(a.id)
        elif a.ranking() is not None or (a.answer == "ranked" and a.details.get("edited")):
            looks[a.prompt_id, a.annotator].append(a)
            found.annotations.append(a.id)
    for about, mine in looks.items():
        _look(found, about, mine)
    for (prompt_id, person), values in rated.items():
        found.ratings.setdefault(prompt_id, {})[person] = values
        ordered = sorted(set(values.values()), reverse=True)
        ratings = pair_labels([id for id, v in values.items() if v == value] for value in ordered)
        if ratings:
            found.of[prompt_id][person] = ratings | found.of.get(prompt_id, {}).get(person, {})
    found.seconds = statistics.median(seconds) if seconds else None
    return found


def _look(found: Labels, about: tuple[str, str], mine: Sequence[Annotation]) -> None:
    """Add what a person said of a prompt."""
    prompt_id, person = about
    first = min(a.serial for a in mine)
    labels: PairLabels = {}
    for a in mine:  # in the order said: of equal serial the last word counts
        if a.serial == first:
            new = pair_labels(a.tiers)
            by_hand = _edited(a, new)
            for pair in new.keys() | by_hand.keys():
                key = (prompt_id, person, pair)
                (found.slight.add if a.confidence == "slight" else found.slight.discard)(key)
                (found.edited.add if pair in by_hand else found.edited.discard)(key)
            labels |= new | by_hand
    found.of[prompt_id][person] = labels
    found.repeats += [(prompt_id, labels, pair_labels(a.tiers)) for a in mine if a.serial != first]


def _edited(annotation: Annotation, labels: PairLabels) -> PairLabels:
    """The labels of the answer that the annotator wrote, if they did."""
    about = annotation.details.get("edited")
    if not about:
        return {}
    better, original = str(about["candidate"]), str(about["of"])
    losers = {original}
    for (a, b), label in labels.items():
        if label != 0.5 and original == (a if label else b):
            losers.add(b if label else a)
    return {(min(better, x), max(better, x)): float(better < x) for x in losers if x != better}


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


def _merged(by: Mapping[str, Sequence[tuple[float, float]]]) -> Merged:
    """One pair's labels by source, as (label, weight)."""
    first = second = 0.0
    for said in by.values():
        weight = max(w for _, w in said)
        label = sum(x for x, _ in said) / len(said)
        first, second = first + weight * label, second + weight * (1 - label)
    return Merged(first, second, tuple(sorted(by)))
