"""Several sources of preferences as one: merged by prompt, weighed, filtered, balanced, with their conflicts named.

Every edge keeps its source, so a pair of answers that a scorer, a judge and a person have compared has three edges.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from hafs.errors import UsageError
from hafs.preferences.formats.shapes import asked_about
from hafs.preferences.pairs import group_of
from hafs.preferences.ranking import same_text
from hafs.statistics import wilson
from hafs.types import Edge, GroupCandidate, PreferenceGroup, content_id

__all__ = ["Mixed", "Mixing", "kind_of", "mix"]

BALANCES = ("family", "source")
CONFLICTS = ("keep", "people", "drop")
MOST_SCALE = 10.0  # balancing multiplies no weight by more than this
LENGTH_BINS = (0.25, 0.5, 1.0, math.inf)  # of |log2| of the lengths' ratio


def kind_of(source: str) -> str:
    """Who said so, in a word: "human", "judge", "reference", or the scorer's name without its version."""
    return source.partition(":")[0].partition("@")[0] or "unnamed"


@dataclass(frozen=True)
class Mixing:
    """What `mix` does; the defaults merge and leave out repetitions, and nothing else.

    `weights` multiplies the weight of edges by source: a whole source ("human:ann"), a kind ("human") or a file's name
    without its end. `duplicate` repeats such an edge that many times instead (the guide's way; whole numbers).
    `per_prompt`: at most so many edges of a prompt, the widest margins first. `balance`: "family" and "source" get
    equal weight in all. `min_margin` leaves out edges with a smaller known margin. `max_length_ratio` leaves out pairs
    whose longer answer is more than so many times as long; `match_lengths` makes longer winners weigh as much as
    shorter ones at every difference in length. `conflicts`: where people disagree with others, "keep" both, follow
    "people", or "drop" the pair.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    duplicate: bool = False
    per_prompt: int = 0
    balance: tuple[str, ...] = ()
    min_margin: float = 0.0
    max_length_ratio: float = 0.0
    match_lengths: bool = False
    conflicts: str = "keep"

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise UsageError(f"the weight of {name} is {weight}, not a number above 0", "write --weight human=5")
            if self.duplicate and weight != int(weight):
                raise UsageError(f"--duplicate repeats whole times, not {weight}", "leave out --duplicate")
        for name in self.balance:
            if name not in BALANCES:
                raise UsageError(f"edges cannot be balanced by {name!r}", f"use one of: {', '.join(BALANCES)}")
        if self.conflicts not in CONFLICTS:
            raise UsageError(f"conflicts cannot be {self.conflicts!r}", f"use one of: {', '.join(CONFLICTS)}")
        if 0 < self.max_length_ratio < 1:
            raise UsageError(f"a length ratio is 1 or more, not {self.max_length_ratio}", "raise it")


@dataclass
class Mixed:
    """The groups, the edges left out by why, and how far each two kinds of source agree on the pairs that both have.

    `conflicts` has a row for each two kinds: compared, agree, agreement with its interval, and a few pairs on which
    they differ.
    """

    groups: list[PreferenceGroup]
    left_out: Counter[str] = field(default_factory=Counter)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def edges(self) -> int:
        """How many edges there are in all."""
        return sum(len(g.edges) for g in self.groups)


@dataclass
class _Claim:
    """An edge on its way: the place of its group, the texts' keys, what it says, and where it came from."""

    group: int
    winner: str
    loser: str
    edge: Edge
    file: str
    times: int = 1

    @property
    def pair(self) -> tuple[int, frozenset[str]]:
        return self.group, frozenset((self.winner, self.loser))


def mix(files: Mapping[str, Iterable[PreferenceGroup]], how: Mixing | None = None) -> Mixed:
    """Merge groups from several files, by name; an edge without a source gets the file's name as its source.

    Groups of one prompt become one, with equal texts as one candidate. Raises UsageError when a name in
    `how.weights` fits nothing.
    """
    how = how or Mixing()
    merged: dict[tuple[str, ...], _Merged] = {}
    claims: list[_Claim] = []
    for file, groups in files.items():
        for group in groups:
            place = merged.setdefault(asked_about(group), _Merged(len(merged), group))
            claims += place.take(group, file)
    out = Mixed([])
    claims = _deduplicated(claims, out.left_out)
    out.conflicts = _conflicts(claims, list(merged.values()))
    claims = _resolved(claims, how.conflicts, out.left_out)
    claims = _filtered(claims, how, out.left_out)
    families = [m.family for m in merged.values()]
    for part in how.balance:
        _balance(claims, (lambda c: families[c.group]) if part == "family" else (lambda c: kind_of(c.edge.source)))
    _weigh(claims, how)
    if how.match_lengths:
        claims = _length_matched(claims, out.left_out)
    by_group: dict[int, list[_Claim]] = defaultdict(list)
    for claim in claims:
        by_group[claim.group].append(claim)
        kind = kind_of(claim.edge.source)
        out.weights[kind] = out.weights.get(kind, 0.0) + claim.edge.weight * claim.times
    out.groups = [m.group(by_group[m.place]) for m in merged.values() if m.place in by_group]
    return out


class _Merged:
    """All that the files say of one prompt."""

    def __init__(self, place: int, first: PreferenceGroup) -> None:
        self.place, self.first = place, first
        self.candidates: dict[str, GroupCandidate] = {}
        self.family, self.split = first.family, first.split

    def take(self, group: PreferenceGroup, file: str) -> list[_Claim]:
        """Add the candidates of a group; returns its edges as claims."""
        keys = [same_text(c.text) for c in group.candidates]
        for key, candidate in zip(keys, group.candidates, strict=True):
            known = self.candidates.setdefault(key, candidate)
            if candidate.id and not known.id:
                known = candidate if candidate.label is not None else replace(candidate, label=known.label)
            elif known.label is None and candidate.label is not None:
                known = replace(known, label=candidate.label)
            self.candidates[key] = known
        self.family = min(filter(None, (self.family, group.family)), default="")
        if "test" in (self.split, group.split):
            self.split = "test"
        elif "validation" in (self.split, group.split):
            self.split = "validation"
        return [
            _Claim(self.place, keys[e.winner], keys[e.loser], e if e.source else replace(e, source=file), file)
            for e in group.edges
            if keys[e.winner] != keys[e.loser]
        ]

    def group(self, claims: Sequence[_Claim]) -> PreferenceGroup:
        """The group of the claims that are left."""
        used = dict.fromkeys(key for c in claims for key in (c.winner, c.loser))
        place = {key: i for i, key in enumerate(used)}
        edges = tuple(
            replace(c.edge, winner=place[c.winner], loser=place[c.loser]) for c in claims for _ in range(c.times)
        )
        made = group_of(asked_about(self.first), [self.candidates[key] for key in used], edges)
        prompt_id = self.first.prompt_id or made.prompt_id
        return replace(made, prompt_id=prompt_id, family=self.family, split=self.split)


def _deduplicated(claims: Iterable[_Claim], left_out: Counter[str]) -> list[_Claim]:
    """One claim for each source, winner and loser: what a source says twice it has said once."""
    found: dict[tuple[object, ...], _Claim] = {}
    for c in claims:
        key = (c.group, c.winner, c.loser, c.edge.source)
        left_out["said before"] += key in found
        found.setdefault(key, c)
    return list(found.values())


def _sides(claims: Iterable[_Claim]) -> dict[tuple[int, frozenset[str]], dict[str, str]]:
    """Of each pair, what each kind of source says wins; a kind that says both is left out."""
    sides: dict[tuple[int, frozenset[str]], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for c in claims:
        sides[c.pair][kind_of(c.edge.source)].add(c.winner if c.edge.p >= 0.5 else c.loser)
    return {pair: {k: next(iter(w)) for k, w in said.items() if len(w) == 1} for pair, said in sides.items()}


def _conflicts(claims: Sequence[_Claim], merged: Sequence[_Merged]) -> list[dict[str, Any]]:
    tallies: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    examples: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for (group, _), said in _sides(claims).items():
        for a, b in combinations(sorted(said), 2):
            tallies[a, b][0] += 1
            tallies[a, b][1] += said[a] == said[b]
            if said[a] != said[b] and len(examples[a, b]) < 3:
                examples[a, b].append({"prompt": merged[group].first.prompt, a: said[a], b: said[b]})
    rows = []
    for (a, b), (compared, agree) in sorted(tallies.items()):
        rate = wilson(agree, compared)
        rows.append(
            {
                "between": [a, b],
                "compared": compared,
                "agree": agree,
                "agreement": rate.value,
                "low": rate.low,
                "high": rate.high,
                "examples": examples[a, b],
            }
        )
    return rows


def _resolved(claims: list[_Claim], rule: str, left_out: Counter[str]) -> list[_Claim]:
    """The claims without those that lose a conflict with people."""
    if rule == "keep":
        return claims
    sides = _sides(claims)
    kept = []
    for c in claims:
        said = sides[c.pair]
        people = said.get("human")
        fought = people is not None and any(w != people for w in said.values())
        mine = kind_of(c.edge.source) == "human"
        if fought and (rule == "drop" or (not mine and (c.winner if c.edge.p >= 0.5 else c.loser) != people)):
            left_out["in conflict with people"] += 1
        else:
            kept.append(c)
    return kept


def _filtered(claims: list[_Claim], how: Mixing, left_out: Counter[str]) -> list[_Claim]:
    kept = []
    for c in claims:
        if how.min_margin and c.edge.margin is not None and c.edge.margin < how.min_margin:
            left_out["margin too small"] += 1
        elif how.max_length_ratio and abs(_ratio(c)) > math.log2(how.max_length_ratio):
            left_out["lengths too far apart"] += 1
        else:
            kept.append(c)
    if not how.per_prompt:
        return kept
    counts: Counter[int] = Counter()
    chosen: set[int] = set()
    for c in sorted(kept, key=lambda c: (-(c.edge.margin or 0.0), content_id(c.winner, c.loser, c.edge.source))):
        counts[c.group] += 1
        if counts[c.group] <= how.per_prompt:
            chosen.add(id(c))
    left_out["above the limit of a prompt"] += len(kept) - len(chosen)
    return [c for c in kept if id(c) in chosen]


def _ratio(claim: _Claim) -> float:
    """log2 of how much longer the winner is."""
    return math.log2((len(claim.winner) + 1) / (len(claim.loser) + 1))


def _balance(claims: Sequence[_Claim], part: Callable[[_Claim], str]) -> None:
    """Scale weights so that every part has the same in all, none by more than MOST_SCALE; the whole stays the same."""
    totals: dict[str, float] = defaultdict(float)
    for c in claims:
        totals[part(c)] += c.edge.weight
    if not totals:
        return
    whole = sum(totals.values())
    scales = {name: whole / len(totals) / total for name, total in totals.items()}
    scales = {name: max(min(s, MOST_SCALE), 1 / MOST_SCALE) for name, s in scales.items()}
    again = whole / sum(total * scales[name] for name, total in totals.items())
    for c in claims:
        c.edge = replace(c.edge, weight=c.edge.weight * scales[part(c)] * again)


def _length_matched(claims: list[_Claim], left_out: Counter[str]) -> list[_Claim]:
    """Scale down the heavier of longer and shorter winners in each bin of length difference."""
    sums: dict[tuple[int, bool], float] = defaultdict(float)
    bins = [next(i for i, edge in enumerate(LENGTH_BINS) if abs(_ratio(c)) <= edge) for c in claims]
    for c, bin in zip(claims, bins, strict=True):
        if _ratio(c):
            sums[bin, _ratio(c) > 0] += c.edge.weight * c.times
    kept = []
    for c, bin in zip(claims, bins, strict=True):
        longer = _ratio(c) > 0
        other = sums[bin, not longer]
        if _ratio(c) and not other:
            left_out["no pair of the other length to match"] += 1
            continue
        if _ratio(c):
            c.edge = replace(c.edge, weight=c.edge.weight * min(1.0, other / sums[bin, longer]))
        kept.append(c)
    return kept


def _weigh(claims: Sequence[_Claim], how: Mixing) -> None:
    used: set[str] = set()
    for c in claims:
        names = (c.edge.source, kind_of(c.edge.source), c.file)
        name = next((n for n in names if n in how.weights), None)
        if name is None:
            continue
        used.add(name)
        if how.duplicate:
            c.times = int(how.weights[name])
        else:
            c.edge = replace(c.edge, weight=c.edge.weight * how.weights[name])
    if unknown := sorted(set(how.weights) - used):
        known = sorted({kind_of(c.edge.source) for c in claims})
        raise UsageError(f"no edge is of the source {unknown[0]!r}", f"the sources here are: {', '.join(known)}")
