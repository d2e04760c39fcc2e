"""Holding a judge's askings together: what it says of a pair of candidates, and how often the order decided.

The judge has an opinion of two candidates only when it was shown them in either order and said the same both times.
When it contradicts itself there is none, so a judge that always prefers the first slot has no opinion at all, however
it was asked. Malformed answers and abstentions are missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby

from hafs.judge.observations import observations
from hafs.types import Verdict

READABLE = ("ranked", "tie")
SAYS = ("a", "b", "tie", "disagrees", "missing")

Pair = tuple[str, str]
"""Two candidates' ids, the smaller one first."""
Votes = Mapping[Pair, tuple[Sequence[float], Sequence[float]]]
"""What the askings said of each pair: those that showed its first candidate first, and the others; above 0 for it."""


@dataclass(frozen=True)
class Settled:
    """What one judge, asked in one way, says of two candidates of a prompt (`first` < `second` by id): one of SAYS.

    "a" is for the first. "disagrees" is with itself, between the orders; "missing" includes pairs that were asked in
    one order only.
    """

    prompt_id: str
    judge: str
    protocol: str
    first: str
    second: str
    says: str

    @property
    def winner(self) -> str:
        """The better one's id; empty when there is none."""
        return {"a": self.first, "b": self.second}.get(self.says, "")


def consistent(verdicts: Iterable[Verdict]) -> Iterator[Settled]:
    """Every pair of candidates that `verdicts` speak of, once per prompt, judge and protocol, in that order."""

    def asking(v: Verdict) -> tuple[str, str, str]:
        return v.prompt_id, v.judge, v.protocol

    for about, group in groupby(sorted(verdicts, key=asking), key=asking):
        for (a, b), says in settled(list(group)).items():
            yield Settled(*about, a, b, says)


def settled(verdicts: Sequence[Verdict]) -> dict[Pair, str]:
    """What a judge's verdicts on a prompt, all by one protocol, come to for each pair of candidates: one of SAYS."""
    if graded(verdicts):
        return _by_grades(verdicts)
    return {pair: _says(*said) for pair, said in votes(verdicts).items()}


def graded(verdicts: Iterable[Verdict]) -> bool:
    """Whether candidates were looked at one by one."""
    return any(v.value is not None or len(v.shown) == 1 for v in verdicts)


def votes(verdicts: Iterable[Verdict]) -> Votes:
    """The votes of comparisons for every pair that was shown together, in the order of the ids."""
    found: dict[Pair, tuple[list[float], list[float]]] = {}
    for v in verdicts:
        for pair in combinations(sorted(v.shown), 2):
            found.setdefault(pair, ([], []))
        for o in observations(v):
            if o.first < o.second:
                found[o.first, o.second][0].append(o.vote)
            else:
                found[o.second, o.first][1].append(-o.vote)
    return dict(sorted(found.items()))


def grades(verdicts: Sequence[Verdict]) -> tuple[dict[str, float], set[str]]:
    """The mean grades of candidates looked at one by one, and the candidates that two orders grade differently.

    Several grades by a rubric are averaged. Beside a known answer, which comes first and second, they must be equal.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for v in verdicts:
        if v.value is not None and v.outcome in READABLE:
            found[v.shown[0]].append(v.value)
    orders = _in_orders(verdicts)
    torn = {id for id, values in found.items() if orders and len(set(values)) > 1}
    mean = {id: sum(v) / len(v) for id, v in found.items() if id not in torn and (len(v) > 1 or not orders)}
    return mean, torn


def _in_orders(verdicts: Sequence[Verdict]) -> bool:
    """Whether each question was asked both ways round; a candidate graded alone has no order."""
    return not (graded(verdicts) and not verdicts[0].protocol.startswith("reference"))


def _by_grades(verdicts: Sequence[Verdict]) -> dict[Pair, str]:
    mean, torn = grades(verdicts)
    found = {}
    for a, b in combinations(sorted({id for v in verdicts for id in v.shown}), 2):
        if a in mean and b in mean:
            found[a, b] = "a" if mean[a] > mean[b] else "b" if mean[a] < mean[b] else "tie"
        else:
            found[a, b] = "disagrees" if {a, b} & torn else "missing"
    return found


def _says(a_first: Sequence[float], b_first: Sequence[float]) -> str:
    """What the votes of the two orders (above 0 for a) come to."""
    if not (a_first and b_first):
        return "missing"
    if not any(a_first) and not any(b_first):
        return "tie"
    one, other = sum(a_first), sum(b_first)
    return "a" if one > 0 < other else "b" if one < 0 > other else "disagrees"


@dataclass
class Reliability:
    """How far a judge can be taken at its word before anything is known of its agreement with people.

    `verdicts` by outcome; `pairs` by what the judge says of them: "win", "tie", "disagrees" (with itself), "missing";
    `both` pairs answered in both orders, `flipped` of them differently; `first` of `decided` comparisons of two shown
    together went to the one shown earlier.
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
        """The share of pairs answered in both orders that the orders told differently; None without such pairs."""
        return _share(self.flipped, self.both)

    @property
    def first_rate(self) -> float | None:
        """The share of decided comparisons won by what was shown earlier; 0.5 is even. None without any."""
        return _share(self.first, self.decided)

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Count one judge's verdicts, by one protocol, on whole prompts that come one after the other."""
        self.verdicts.update(v.outcome for v in verdicts)
        for v in verdicts:
            votes = [o.vote for o in observations(v) if o.vote]
            self.decided += len(votes)
            self.first += sum(vote > 0 for vote in votes)
        for _, group in groupby(verdicts, key=lambda v: v.prompt_id):
            mine = list(group)
            said = Counter(settled(mine).values())
            self.pairs.update({"win": said["a"] + said["b"], **{s: said[s] for s in ("tie", "disagrees", "missing")}})
            if _in_orders(mine):
                self.both += said.total() - said["missing"]
                self.flipped += said["disagrees"]

    def to_dict(self) -> dict[str, object]:
        """Counts and rates as JSON writes them."""
        return {
            "verdicts": dict(self.verdicts),
            "pairs": {s: n for s, n in self.pairs.items() if n},
            "coverage": self.coverage,
            "flip_rate": self.flip_rate,
            "first_rate": self.first_rate,
        }


def reliability(verdicts: Iterable[Verdict]) -> Reliability:
    """The reliability of one judge's `verdicts`, which may be of many prompts but come prompt by prompt."""
    found = Reliability()
    found.add(list(verdicts))
    return found


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
