"""Holding a judge's askings together: what it says of a pair in every order, and how often the order decided.

A pair of candidates counts only when every order in which it was shown says the same. Whoever always prefers the first
slot therefore says nothing about any pair.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby

from hafs.types import Verdict

READABLE = ("ranked", "tie")


@dataclass(frozen=True)
class Pair:
    """What one judge, asked in one way, says of two candidates of a prompt (`first` < `second` by id).

    `outcome` is "win" (`winner` is set), "tie", "abstain" or "malformed"; `orders` is how many askings could be read,
    `flipped` whether they differed. `strength` is the mean over the orders (1 slight, 2 clear).
    """

    prompt_id: str
    judge: str
    protocol: str
    first: str
    second: str
    outcome: str
    winner: str = ""
    orders: int = 0
    flipped: bool = False
    strength: float = 1.0
    reason: str = ""


def consistent(verdicts: Iterable[Verdict]) -> Iterator[Pair]:
    """Every pair of candidates that `verdicts` speak of, once per prompt, judge and protocol, in that order of ids.

    The outcome is "malformed" when an asking was, else "abstain" when one abstained, when only one order of a
    comparison was answered, or when the orders differ; else what they all say. Grades of single candidates (`value`)
    make a pair of two whose orders each agreed.
    """
    by_asking = sorted(verdicts, key=lambda v: (v.prompt_id, v.judge, v.protocol))
    for (prompt, judge, protocol), group in groupby(by_asking, key=lambda v: (v.prompt_id, v.judge, v.protocol)):
        said = list(group)
        of = _graded(said) if all(len(v.shown) == 1 for v in said) else _compared(said)
        for (a, b), found in sorted(of.items()):
            needs = 1 if protocol.startswith("pointwise") else 2
            yield _settle(Pair(prompt, judge, protocol, a, b, "abstain"), found, needs)


@dataclass(frozen=True)
class _Said:
    """One asking's word on a pair: an outcome of a Verdict, the winner of a "ranked" one, its strength."""

    outcome: str
    winner: str = ""
    strength: float = 1.0


def _compared(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], list[_Said]]:
    found: dict[tuple[str, str], list[_Said]] = defaultdict(list)
    for v in verdicts:
        for a, b in combinations(sorted(v.shown), 2):
            found[a, b].append(_of_pair(v, a, b))
    return found


def _of_pair(v: Verdict, a: str, b: str) -> _Said:
    if v.outcome != "ranked":
        return _Said(v.outcome)
    place = {id: n for n, tier in enumerate(v.tiers) for id in tier}
    if a not in place or b not in place:
        return _Said("abstain")
    if place[a] == place[b]:
        return _Said("tie")
    return _Said("ranked", a if place[a] < place[b] else b, v.strength)


def _graded(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], list[_Said]]:
    """Pairs of candidates that were looked at one by one: the two grades are compared order by order.

    A candidate whose grades differ over its orders makes the orders of its pairs differ.
    """
    grades: dict[str, dict[int, Verdict]] = defaultdict(dict)
    for v in verdicts:
        grades[v.shown[0]][v.shuffle] = v
    orders = sorted({n for mine in grades.values() for n in mine})
    found: dict[tuple[str, str], list[_Said]] = {}
    for a, b in combinations(sorted(grades), 2):
        said = [_of_grades(grades[a].get(n), grades[b].get(n), a, b) for n in orders]
        if any(len({v.value for v in grades[c].values() if v.value is not None}) > 1 for c in (a, b)):
            said = [_Said("tie"), _Said("ranked", a), *(s for s in said if s.outcome not in READABLE)]
        found[a, b] = said
    return found


def _of_grades(x: Verdict | None, y: Verdict | None, a: str, b: str) -> _Said:
    if x is None or y is None or x.value is None or y.value is None:
        return _Said("malformed" if "malformed" in [v.outcome for v in (x, y) if v] else "abstain")
    if x.value == y.value:
        return _Said("tie")
    return _Said("ranked", a if x.value > y.value else b)


def _settle(pair: Pair, said: Sequence[_Said], needs: int) -> Pair:
    readable = [s for s in said if s.outcome in READABLE]
    flipped = len({(s.outcome, s.winner) for s in readable}) > 1
    outcome, winner, reason = "abstain", "", ""
    if any(s.outcome == "malformed" for s in said):
        outcome, reason = "malformed", "an answer could not be read"
    elif len(readable) < len(said):
        reason = "the judge abstained"
    elif len(readable) < needs:
        reason = "only one order was answered"
    elif flipped:
        reason = "the orders differ"
    else:
        outcome, winner = ("tie", "") if readable[0].outcome == "tie" else ("win", readable[0].winner)
    strength = sum(s.strength for s in readable) / len(readable) if readable else 1.0
    return Pair(
        pair.prompt_id, pair.judge, pair.protocol, pair.first, pair.second, outcome, winner, len(readable), flipped,
        strength, reason,
    )  # fmt: skip


@dataclass
class Reliability:
    """How far a judge can be taken at its word before anything is known of its agreement with people.

    `verdicts` by outcome; `pairs` by outcome; `both` pairs read in two orders or more, `flipped` of them differently;
    `first` of `decided` comparisons of two shown together went to the one shown earlier.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    pairs: Counter[str] = field(default_factory=Counter)
    both: int = 0
    flipped: int = 0
    first: int = 0
    decided: int = 0

    @property
    def coverage(self) -> float | None:
        """The share of verdicts that rank or tie; None when there are none."""
        return _share(sum(self.verdicts[o] for o in READABLE), sum(self.verdicts.values()))

    @property
    def flip_rate(self) -> float | None:
        """The share of pairs read in two orders or more that the orders told differently; None without such pairs."""
        return _share(self.flipped, self.both)

    @property
    def first_rate(self) -> float | None:
        """The share of decided comparisons won by what was shown earlier; 0.5 is even. None without any."""
        return _share(self.first, self.decided)

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count the verdicts of whole prompts."""
        self.verdicts.update(v.outcome for v in verdicts)
        for v in verdicts:
            place = {id: n for n, tier in enumerate(v.tiers) for id in tier} if v.outcome == "ranked" else {}
            for earlier, later in combinations(v.shown, 2):
                if earlier in place and later in place and place[earlier] != place[later]:
                    self.decided += 1
                    self.first += place[earlier] < place[later]
        for pair in consistent(verdicts):
            self.pairs[pair.outcome] += 1
            self.both += pair.orders >= 2
            self.flipped += pair.flipped

    def to_dict(self) -> dict[str, object]:
        """Counts and rates as JSON writes them."""
        return {
            "verdicts": dict(self.verdicts), "pairs": dict(self.pairs), "coverage": self.coverage,
            "flip_rate": self.flip_rate, "first_rate": self.first_rate,
        }  # fmt: skip


def reliability(verdicts: Iterable[Verdict]) -> Reliability:
    """The reliability of `verdicts`, which may be of many prompts but come prompt by prompt."""
    found = Reliability()
    for _, group in groupby(verdicts, key=lambda v: v.prompt_id):
        found.add(list(group))
    return found


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
