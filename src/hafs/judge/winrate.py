"""Which of two models people prefer, from a judge's verdicts on all prompts and people's labels on some.

The judge alone gives a precise answer to another question (which model it prefers); people alone a rough one to this.
Together (PPI++) the judge's error is measured on the labelled prompts and taken off, so the interval covers the
people's rate whatever the judge is worth. Beside each rate stands the length-controlled one: what it would be if the
answers were equally long, from a logistic regression of the two models' comparisons on the difference of length.

A rate of two models comes from comparisons of these two alone. How many other models the judge has seen changes none.

Y. Dubois, B. Galambosi, P. Liang, T. Hashimoto, "Length-controlled AlpacaEval", arXiv 2404.04475 (2024); here without
its difficulty of prompts. PPI++: see `hafs.statistics.ppi`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy

from hafs.errors import UsageError
from hafs.judge.aggregate import Judged
from hafs.judge.calibrate import Evidence, gather
from hafs.judge.labels import Pair
from hafs.judge.queue import Sample
from hafs.statistics import FEWEST_OF_EITHER, Estimate, Regression, Rows, ppi_logistic, ppi_mean
from hafs.store import Store
from hafs.types import Candidate

FEWEST = 10
"""Labelled prompts below which no rate is corrected: the interval would not be worth its name."""


@dataclass(frozen=True)
class Rates:
    """A rate by the judge alone, by people alone, and by both (PPI++, with the power λ: how much the judge is used)."""

    judge: Estimate
    people: Estimate
    corrected: Estimate
    power: float


@dataclass(frozen=True)
class WinRate:
    """How often model `a` is better than `b`; ties count half, and so does a judge's contradicting itself.

    `prompts` have answers of both that the judge was asked about, `missing` of the asked ones have no usable verdict.
    `judge_slope` and `people_slope` say how much length wins: the change of the log-odds where one answer is much
    longer (their difference of lengths in standard deviations, through tanh). `models` are all that the judge compared.
    """

    a: str
    b: str
    source: str
    prompts: int
    labelled: int
    missing: int
    raw: Rates
    length_controlled: Rates | None
    judge_slope: float | None
    people_slope: float | None
    models: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Match:
    """Two models on one prompt: the judge's mean value of the first, the people's (None without), and by how many
    characters the first is longer."""

    prompt_id: str
    a: str
    b: str
    judge: float
    people: float | None
    longer: float


def win_rate(store: Store, evidence: Evidence, a: str, b: str, level: float = 0.95) -> WinRate:
    """The win rate of model `a` over `b` (names or hashes of models with candidates in the workspace).

    Raises UsageError when the judge has compared no answers of the two.
    """
    ids = {id for j in evidence.judged for o in j.opinions for id in (o.a, o.b)}
    candidates = {c.id: c for c in store.candidates(ids=ids)}
    name_of = {c.model: name for c in candidates.values() for name in (a, b) if name in (c.model, c.model_name)}
    matches, missing = _matches(evidence, candidates, name_of, {a, b})
    mine = [m for m in matches if {m.a, m.b} == {a, b}]
    if not mine or a == b:
        raise UsageError(
            f"{evidence.source.removeprefix('judge:')} has compared no answers of {a} and {b}",
            "`hafs generate` with both models on the same prompts, then `hafs judge run`",
        )
    mine = [m if m.a == a else _turned(m) for m in mine]
    raw = _raw(mine, evidence.sample, level)
    controlled, judge_slope, people_slope = _controlled(mine, evidence.sample, level)
    return WinRate(
        a,
        b,
        evidence.source,
        len(mine),
        raw.people.n,
        missing,
        raw,
        controlled,
        judge_slope,
        people_slope,
        tuple(sorted({name for m in matches for name in (m.a, m.b)})),
    )


def judge_preference(
    store: Store, models: Mapping[str, str], reference: str, level: float = 0.95
) -> tuple[dict[str, Estimate], str]:
    """The win rates over the reference by the workspace's one judge, by model name, and a sentence on their origin.

    `models` maps names to content hashes. A rate is corrected by people's labels where there are enough of them.
    Nothing where no judge has compared answers of these models, and only a sentence where several judges have.
    """
    if reference not in models or next(iter(store.verdicts()), None) is None:
        return {}, ""
    try:
        evidence = gather(store)
    except UsageError as e:
        return {}, f"No judge's win rate: {e.what}; `hafs judge winrate` takes one."
    found: dict[str, Estimate] = {}
    corrected = []
    for name, hash in models.items():
        try:
            raw = win_rate(store, evidence, hash, models[reference], level).raw
        except UsageError:  # it was not asked about this one
            continue
        found[name] = raw.judge if raw.corrected.value is None else raw.corrected
        corrected += [name] if found[name] is raw.corrected else []
    if not found:
        return {}, ""
    how = "corrected by people's labels (PPI++)"
    if plain := [name for name in corrected if found[name].method != "PPI++"]:
        how = f"people's labels alone, since too few are of the rarer kind to correct a judge: {', '.join(plain)}"
    if alone := [name for name in found if name not in corrected]:
        how = f"the judge's own, which labels of {FEWEST} prompts would correct: {', '.join(alone)}"
    judge = evidence.source.removeprefix("judge:")
    return found, (
        f"Judge's Win Rate: how often {judge} prefers the model's answer to that of {reference} where it was"
        f" asked, ties as half; {how}."
    )


def _matches(
    evidence: Evidence, candidates: Mapping[str, Candidate], name_of: Mapping[str, str], wanted: set[str]
) -> tuple[list[_Match], int]:
    """Every two models on every prompt, and how many prompts of the wanted two have no usable verdict."""
    matches, missing = [], 0
    for j in evidence.judged:
        labels = {pair: m.label for pair, m in evidence.labels.merged(j.prompt_id).items()}
        by_model: dict[str, list[Candidate]] = defaultdict(list)
        for id in sorted({id for o in j.opinions for id in (o.a, o.b)}):
            if (c := candidates.get(id)) is not None and c.model:
                by_model[name_of.get(c.model) or c.model_name or c.model].append(c)
        names = sorted(by_model)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                match = _match(j, one, other, by_model, labels)
                if match is not None:
                    matches.append(match)
                elif {one, other} == wanted:
                    missing += 1
    return matches, missing


def _match(
    j: Judged, one: str, other: str, by_model: Mapping[str, Sequence[Candidate]], labels: Mapping[Pair, float]
) -> _Match | None:
    """The two models' answers against each other; None where the judge said nothing usable of any two of them."""
    said = {(o.a, o.b): 0.5 if o.value is None else o.value for o in j.opinions if o.says != "missing"}
    judge: list[float] = []
    people: list[float] = []
    longer = []
    for x, y in product(by_model[one], by_model[other]):
        for found, into in ((said, judge), (labels, people)):
            if (x.id, y.id) in found:
                into.append(found[x.id, y.id])
            elif (y.id, x.id) in found:
                into.append(1 - found[y.id, x.id])
        longer.append(len(x.text) - len(y.text))
    if not judge:
        return None
    return _Match(
        j.prompt_id,
        one,
        other,
        float(np.mean(judge)),
        float(np.mean(people)) if people else None,
        float(np.mean(longer)),
    )


def _turned(m: _Match) -> _Match:
    return _Match(m.prompt_id, m.b, m.a, 1 - m.judge, None if m.people is None else 1 - m.people, -m.longer)


def _weights(
    matches: Sequence[_Match], sample: Sample | None
) -> tuple[list[_Match], list[_Match], list[float] | None, list[float] | None]:
    """The matches with labels and those without, with their weights; without a sample none, and every label counts.

    With one, the first are of the prompts drawn and the second of those that might have been; the rest are left out.
    """
    known = [m for m in matches if m.people is not None and (sample is None or m.prompt_id in sample.drawn)]
    if sample is None:
        return known, [m for m in matches if m.people is None], None, None
    p = sample.probabilities
    rest = [m for m in matches if m.prompt_id not in sample.drawn and p.get(m.prompt_id, 1.0) < 1]
    return known, rest, [1 / p[m.prompt_id] for m in known], [1 / (1 - p[m.prompt_id]) for m in rest]


def _raw(matches: Sequence[_Match], sample: Sample | None, level: float) -> Rates:
    known, rest, inside, outside = _weights(matches, sample)
    nothing = Estimate(None, None, None, len(known), level)
    judge, _ = ppi_mean([m.judge for m in matches], [m.judge for m in matches], [], level=level)
    if len(known) < FEWEST:
        return Rates(judge, nothing, nothing, 0.0)
    people = [m.people for m in known if m.people is not None]
    guess, elsewhere = [m.judge for m in known], [m.judge for m in rest]
    alone, _ = ppi_mean(people, guess, [], weights=inside, level=level)
    both, power = ppi_mean(people, guess, elsewhere, weights=inside, weights_elsewhere=outside, level=level)
    return Rates(judge, alone, both, power)


def _controlled(
    matches: Sequence[_Match], sample: Sample | None, level: float
) -> tuple[Rates | None, float | None, float | None]:
    """The length-controlled rates of the first model, and the slopes of length of judge and people."""
    scale = float(np.std([m.longer for m in matches]))
    if scale == 0:
        return None, None, None

    def rows(part: Sequence[_Match], weights: Sequence[float] | None) -> Rows:
        x = np.array([[1.0, math.tanh(m.longer / scale)] for m in part]).reshape(-1, 2)
        return Rows.of(x, [m.judge for m in part], weights, [m.prompt_id for m in part])

    def rate(fit: Regression | None, n: int) -> Estimate:
        if fit is None:
            return Estimate(None, None, None, n, level)
        odds, error = fit.coefficients[0], math.sqrt(fit.covariance[0, 0])
        half = float(scipy.stats.norm.ppf((1 + level) / 2)) * error
        value, low, high = (float(scipy.special.expit(v)) for v in (odds, odds - half, odds + half))
        return Estimate(value, low, high, n, level, "logistic")

    known, rest, inside, outside = _weights(matches, sample)
    everything = rows(matches, None)
    judge = _fit(everything.predicted, everything, None) if _both_kinds(everything.predicted) else None
    alone = both = None
    labels = [m.people for m in known if m.people is not None]
    if _both_kinds(labels):
        here = rows(known, inside)
        alone = _fit(labels, here, None)
        both = _fit(labels, here, rows(rest, outside) if rest else None)
    n = len(known)
    rates = Rates(rate(judge, len(matches)), rate(alone, n), rate(both, n), both.power if both else 0.0)
    slopes = [None if fit is None else float(fit.coefficients[-1]) for fit in (judge, alone)]
    return rates, slopes[0], slopes[1]


def _both_kinds(values: Iterable[float]) -> bool:
    """Whether enough of both outcomes were seen for a regression's standard error to be worth its name."""
    seen = list(values)
    return min(sum(seen), len(seen) - sum(seen)) >= FEWEST_OF_EITHER


def _fit(labels: Any, here: Rows, elsewhere: Rows | None) -> Regression | None:
    """The regression; None where it has no finite answer, as when one model always wins."""
    try:
        return ppi_logistic(labels, here, elsewhere)
    except (ValueError, np.linalg.LinAlgError):
        return None
