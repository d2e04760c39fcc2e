"""What the verdicts on one prompt amount to: for each two candidates an opinion or none, and tiers.

What the judge says of two candidates is `consistency.settled`'s; here it gets a margin, and candidates their tiers.

How sure it is comes from all candidates together: strengths by Bradley-Terry with ties from comparisons of two, by
Plackett-Luce from rankings of more, or the mean grades where candidates are graded alone. The margin of an opinion is
the difference of strengths, the log-odds that the winner is better. Turned verdicts turn every opinion and leave its
margin as it is: Plackett-Luce reads rankings from the top, so it is fitted from the top and from the bottom.

Strengths say how sure a verdict is, never what it says. Where those of all candidates speak against what the judge said
of two, the opinion stays and is marked `against`; its margin is then the one that the two have alone.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from hafs.judge.consistency import Pair, Votes, graded, grades, settled, votes
from hafs.judge.injection import probe_ids
from hafs.statistics import bradley_terry, plackett_luce
from hafs.types import Ranking, Verdict

PENALTY = 1.0
"""Of the strengths: their prior is the standard normal, so two agreeing verdicts alone give 74 %."""


@dataclass(frozen=True)
class Opinion:
    """What a judge thinks of candidates `a` and `b` (ids, a < b): one of `consistency.SAYS`.

    `margin` is the log-odds that a is better: above 0 for "a", below for "b", 0 for the rest. `against` says that the
    comparisons with the other candidates speak for the loser.
    """

    a: str
    b: str
    says: str
    margin: float = 0.0
    against: bool = False

    @property
    def decided(self) -> bool:
        """Whether one of the two is the better one."""
        return self.says in ("a", "b")

    @property
    def value(self) -> float | None:
        """1 for a, 0 for b, 0.5 for a tie, None where there is no opinion."""
        return {"a": 1.0, "b": 0.0, "tie": 0.5}.get(self.says)


@dataclass(frozen=True)
class Judged:
    """A prompt with everything that a judge (or a panel) thinks of its candidates.

    `verdicts` counts its verdicts by outcome. Tiers go by strength, and none holds a winner and a loser; what lies in
    different tiers is an edge only where there is an opinion, and an opinion that is marked `against` goes upwards.
    """

    prompt_id: str
    source: str
    opinions: tuple[Opinion, ...]
    tiers: tuple[tuple[str, ...], ...]
    verdicts: Mapping[str, int]

    def edges(self) -> Iterator[tuple[str, str, float]]:
        """(winner, loser, margin above 0) of every opinion that is decided."""
        for o in self.opinions:
            if o.decided:
                yield (o.a, o.b, o.margin) if o.says == "a" else (o.b, o.a, -o.margin)

    def ranking(self) -> Ranking:
        """The tiers as a ranking."""
        return Ranking(self.prompt_id, self.tiers, self.source)

    @property
    def uncertainty(self) -> float:
        """The mean over its pairs of 1 - |2p - 1|: 1 where nothing is known, 0 where all is certain."""
        if not self.opinions:
            return 1.0
        return sum(1 - abs(math.tanh(o.margin / 2)) if o.decided else 1.0 for o in self.opinions) / len(self.opinions)


def aggregate(verdicts: Iterable[Verdict]) -> Iterator[Judged]:
    """Each prompt's verdicts as one `Judged`; they must come prompt by prompt, as the store gives them.

    Verdicts of several judges make a panel. Those that show a probe are passed over. Raises ValueError for verdicts of
    several protocols of one judge, which do not mean the same.
    """
    for prompt_id, rows in groupby(verdicts, key=lambda v: v.prompt_id):
        probes = probe_ids(prompt_id)
        real = [v for v in rows if not probes.keys() & set(v.shown)]
        by_judge: dict[str, list[Verdict]] = defaultdict(list)
        for verdict in real:
            by_judge[verdict.judge].append(verdict)
        members = [_one(prompt_id, judge, mine) for judge, mine in sorted(by_judge.items())]
        if members:
            yield members[0] if len(members) == 1 else panel(members)


def panel(members: Sequence[Judged]) -> Judged:
    """Several judges of one prompt as one: a winner is what more than half of those that saw a pair prefer.

    Its margin is the mean over them, in which who disagrees or ties counts 0. A tie is what more than half call one.
    """
    held: dict[Pair, list[Opinion]] = defaultdict(list)
    for member in members:
        for o in member.opinions:
            held[o.a, o.b].append(o)
    opinions = [_vote(pair, votes) for pair, votes in sorted(held.items())]
    weight: Counter[str] = Counter()
    for o in opinions:
        weight.update({o.a: o.margin, o.b: -o.margin})
    names = "+".join(m.source.removeprefix("judge:") for m in members)
    verdicts: Counter[str] = Counter()
    for member in members:
        verdicts.update(member.verdicts)
    return Judged(members[0].prompt_id, f"judge:panel({names})", tuple(opinions), _tiers(weight, opinions), verdicts)


def _vote(pair: Pair, votes: Sequence[Opinion]) -> Opinion:
    saw = [o for o in votes if o.says != "missing"]
    if not saw:
        return Opinion(*pair, "missing")
    counts = Counter(o.says for o in saw)
    says = next((s for s in ("a", "b", "tie") if counts[s] > len(saw) / 2), "disagrees")
    margin = sum(o.margin for o in saw) / len(saw)
    agreeing = [abs(o.margin) for o in saw if o.says == says]
    return _opinion(*pair, says, margin, sum(agreeing) / len(saw), any(o.against for o in saw))


def _opinion(a: str, b: str, says: str, margin: float, alone: float, against: bool = False) -> Opinion:
    """The opinion with `margin`; where that speaks against what was said, with the margin `alone` (0 or more)."""
    if says not in ("a", "b"):
        return Opinion(a, b, says)
    sign = 1.0 if says == "a" else -1.0
    if sign * margin > 1e-6:  # what is nearly 0 says nothing of the two
        return Opinion(a, b, says, margin, against)
    return Opinion(a, b, says, sign * alone, True)


def _one(prompt_id: str, judge: str, verdicts: Sequence[Verdict]) -> Judged:
    """One judge's verdicts on one prompt."""
    protocols = {v.protocol for v in verdicts}
    if len(protocols) > 1:
        raise ValueError(f"verdicts of several protocols: {', '.join(sorted(protocols))}")
    version = protocols.pop().rpartition("@")[2]
    ids = sorted({id for v in verdicts for id in v.shown})
    if graded(verdicts):
        strengths, opinions = _graded(verdicts)
    else:
        strengths, opinions = _compared(ids, verdicts)
    counts = Counter(v.outcome for v in verdicts)
    return Judged(prompt_id, f"judge:{judge}@{version}", tuple(opinions), _tiers(strengths, opinions), counts)


def _graded(verdicts: Sequence[Verdict]) -> tuple[dict[str, float], list[Opinion]]:
    """Grades of candidates shown alone: the better one is preferred, with (1 + 0.98 difference) / 2 as probability."""
    mean, _ = grades(verdicts)
    said = settled(verdicts)
    margin = {(a, b): 2 * math.atanh(0.98 * (mean[a] - mean[b])) for a, b in said if a in mean and b in mean}
    return mean, [Opinion(*pair, says, margin.get(pair, 0.0)) for pair, says in said.items()]


def _compared(ids: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[dict[str, float], list[Opinion]]:
    """Comparisons of two or more, in several orders."""
    said = votes(verdicts)
    if any(len(v.shown) > 2 for v in verdicts):
        strengths = _from_rankings(ids, verdicts)
    else:
        strengths = _from_pairs(ids, said)
    opinions = [
        _opinion(*pair, says, strengths[pair[0]] - strengths[pair[1]], _alone(pair, said))
        for pair, says in settled(verdicts).items()
    ]
    ranked = {id for pair, (first, second) in said.items() if first or second for id in pair}
    return {id: s for id, s in strengths.items() if id in ranked}, opinions


def _alone(pair: Pair, votes: Votes) -> float:
    """The size of the margin that the comparisons of two candidates have without those of any other."""
    strengths = _from_pairs(pair, {pair: votes[pair]})
    return abs(strengths[pair[0]] - strengths[pair[1]])


def _from_pairs(ids: Sequence[str], votes: Votes) -> dict[str, float]:
    """Bradley-Terry strengths; only of pairs asked in both orders, each order with the same weight."""
    at = {id: i for i, id in enumerate(ids)}
    wins, ties = np.zeros((len(ids), len(ids))), np.zeros((len(ids), len(ids)))
    for (a, b), orders in votes.items():
        if not all(orders):
            continue
        for order in orders:
            for vote in order:
                i, j = (at[a], at[b]) if vote >= 0 else (at[b], at[a])
                if vote:
                    wins[i, j] += abs(vote) / len(order)
                else:
                    ties[i, j] += 1 / len(order)
                    ties[j, i] += 1 / len(order)
    return dict(zip(ids, bradley_terry(wins, ties, penalty=PENALTY).values.tolist(), strict=True))


def _from_rankings(ids: Sequence[str], verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Plackett-Luce strengths, half from the rankings and half from the rankings turned over."""
    at = {id: i for i, id in enumerate(ids)}
    given = [v.tiers if v.outcome == "ranked" else (v.shown,) for v in verdicts if v.outcome in ("ranked", "tie")]
    rankings = [[[at[id] for id in tier] for tier in tiers] for tiers in given]
    down = plackett_luce(rankings, len(ids), penalty=PENALTY).values
    up = plackett_luce([r[::-1] for r in rankings], len(ids), penalty=PENALTY).values
    return dict(zip(ids, ((down - up) / 2).tolist(), strict=True))


def _tiers(strengths: Mapping[str, float], opinions: Iterable[Opinion]) -> tuple[tuple[str, ...], ...]:
    """Candidates by strength; a new tier begins with one that the judge tells from a member of the tier before."""
    decided = {frozenset((o.a, o.b)) for o in opinions if o.decided}
    tiers: list[list[str]] = []
    for id in sorted(strengths, key=lambda id: (-strengths[id], id)):
        if tiers and not any(frozenset((id, member)) in decided for member in tiers[-1]):
            tiers[-1].append(id)
        else:
            tiers.append([id])
    return tuple(map(tuple, tiers))
