"""The bias card of a judge: the slot, the length, its own kind, and texts that only ask for its vote.

A preference for long answers or for one's own model's is a bias only as far as people do not share it, so each stands
beside the people's own, on the pairs that both decided. Intervals go by prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hafs.judge.aggregate import Judged, Opinion
from hafs.judge.injection import ProbeResult, read_probes
from hafs.judge.labels import Pair
from hafs.judge.observations import observations
from hafs.statistics import Estimate, bootstrap_mean
from hafs.types import Candidate, Verdict


@dataclass(frozen=True)
class Preference:
    """How often a kind of answer (the longer one, the judge's own) wins: for the judge over all of its edges, and on
    the pairs that a person decided too for the judge, for the person, and the difference."""

    judge: Estimate
    judge_here: Estimate
    person: Estimate
    excess: Estimate


@dataclass(frozen=True)
class BiasCard:
    """`first_slot` is the share of decided askings that the answer shown first wins (0.5 is fair), `flips` the share of
    pairs on which the judge contradicts itself between the orders. `own` is None where no candidate is the judge's.
    """

    first_slot: Estimate
    flips: Estimate
    longer: Preference
    own: Preference | None = None
    probes: Mapping[str, ProbeResult] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> BiasCard:
        def preference(given: Mapping[str, Any]) -> Preference:
            return Preference(**{name: Estimate(**e) for name, e in given.items()})

        own = row["own"]
        return cls(
            Estimate(**row["first_slot"]),
            Estimate(**row["flips"]),
            preference(row["longer"]),
            None if own is None else preference(own),
            {n: ProbeResult(**p) for n, p in row["probes"].items()},
        )


def bias_card(
    verdicts: Sequence[Verdict],
    judged: Sequence[Judged],
    labels: Mapping[str, Mapping[Pair, float]],
    candidates: Mapping[str, Candidate],
    level: float = 0.95,
) -> BiasCard:
    """The card from a judge's verdicts (those about probes among them), what they amount to, and people's labels."""
    first, where = [], []
    for v in verdicts:
        for o in observations(v):
            if o.vote and o.first in candidates and o.second in candidates:
                first.append(float(o.vote > 0))
                where.append(v.prompt_id)
    asked = [(j.prompt_id, float(o.says == "disagrees")) for j in judged for o in j.opinions if o.says != "missing"]
    judges = {v.judge.lower() for v in verdicts}
    own = {id for id, c in candidates.items() if {c.model.lower(), c.model_name.lower()} & judges}
    return BiasCard(
        bootstrap_mean(first, where, level=level),
        bootstrap_mean([x for _, x in asked], [p for p, _ in asked], level=level),
        _preference(judged, labels, {id: len(c.text) for id, c in candidates.items()}, level),
        _preference(judged, labels, {id: int(id in own) for id in candidates}, level) if own else None,
        read_probes(verdicts),
    )


def _preference(
    judged: Iterable[Judged], labels: Mapping[str, Mapping[Pair, float]], measure: Mapping[str, int], level: float
) -> Preference:
    """How often the candidate with the greater measure wins; pairs of equal measure say nothing."""
    everywhere: list[tuple[str, float]] = []
    here: list[tuple[str, float, float]] = []
    for j in judged:
        for o in j.opinions:
            more = _more(o, measure)
            if not o.decided or more is None:
                continue
            wins = float((o.says == "a") == more)
            everywhere.append((j.prompt_id, wins))
            label = labels.get(j.prompt_id, {}).get((o.a, o.b), 0.5)
            if label != 0.5:
                here.append((j.prompt_id, wins, float((label > 0.5) == more)))

    def mean(values: list[float], prompts: list[str]) -> Estimate:
        return bootstrap_mean(values, prompts, level=level)

    prompts = [p for p, _, _ in here]
    return Preference(
        mean([w for _, w in everywhere], [p for p, _ in everywhere]),
        mean([w for _, w, _ in here], prompts),
        mean([w for _, _, w in here], prompts),
        mean([w - v for _, w, v in here], prompts),
    )


def _more(o: Opinion, measure: Mapping[str, int]) -> bool | None:
    """Whether a has more of it than b; None when they have as much."""
    a, b = measure.get(o.a, 0), measure.get(o.b, 0)
    return None if a == b else a > b
