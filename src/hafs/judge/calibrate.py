"""A judge measured against people's labels: how far they agree, what its margins are worth, and from which margin on it
may be trusted.

Everything goes by prompt: intervals resample prompts, cross-fitting holds whole prompts out, and the certified
threshold counts each prompt once. Where people's prompts were picked by an annotation queue, each counts with the
inverse of the probability with which it was picked, so that figures are of all judged prompts and not of the hard ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy

from hafs.errors import UsageError
from hafs.judge.aggregate import Judged, Opinion, aggregate
from hafs.judge.bias import BiasCard, bias_card
from hafs.judge.clients import judge_name
from hafs.judge.labels import Labels, PairLabels, read_labels
from hafs.judge.queue import Sample, sample
from hafs.statistics import (
    Certificate,
    Estimate,
    LabelledMargins,
    bootstrap_mean,
    brier,
    certify,
    cohen_kappa,
    cross_fitted,
    expected_calibration_error,
    krippendorff_alpha,
    symmetric_platt,
)
from hafs.store import Store
from hafs.types import Verdict, content_id

KIND = "calibration"
"""The kind of run that a calibration is kept as."""

VERSION = 1

_VERSION = re.compile(r"@1(:[0-9a-f]{8})?$")  # of the protocol, behind a judge's name in the source of its edges


@dataclass(frozen=True)
class Agreement:
    """How far two raters agree on pairs: where both decided, and with ties as an answer of their own.

    Kappa and alpha are of the answers better / tie / worse, each pair read in both directions.
    """

    decided: Estimate
    with_ties: Estimate
    kappa: float | None
    alpha: float | None
    pairs: int

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Agreement:
        return cls(**{**row, "decided": Estimate(**row["decided"]), "with_ties": Estimate(**row["with_ties"])})


@dataclass(frozen=True)
class Quality:
    """How far probabilities are from what people said: Brier score and expected calibration error."""

    brier: float | None
    ece: float | None


@dataclass(frozen=True)
class Calibration:
    """What a judge is worth, and everything needed to use it.

    `source` names the judge as edges do, `slope` turns a margin into a probability, `certificate` says from which
    margin on it is trusted, `coverage` which share of its edges on all judged prompts that is. `judge` is its agreement
    with people, `person` the people's with themselves (repeats), `people` of several among each other. `raw` and
    `calibrated` are the quality of its probabilities, the latter cross-fitted.
    """

    source: str
    protocol: str
    slope: float
    certificate: Certificate
    coverage: float | None
    judge: Agreement
    person: Agreement | None
    people: Agreement | None
    raw: Quality
    calibrated: Quality
    card: BiasCard
    judged_prompts: int
    labelled_prompts: int
    opinions: Mapping[str, int]
    verdicts: Mapping[str, int]
    seconds: float | None = None

    def p(self, margin: float) -> float:
        """The probability that the side of a positive margin is better; p(-m) = 1 - p(m)."""
        return float(scipy.special.expit(self.slope * margin))

    def trusts(self, margin: float) -> bool:
        """Whether an edge with this margin is above the certified threshold."""
        threshold = self.certificate.threshold
        return threshold is not None and abs(margin) >= threshold

    def claim(self) -> str:
        """The one sentence that the calibration comes to."""
        c = self.certificate
        if c.threshold is None:
            seen = "" if c.agreement is None else f"; seen: {c.agreement:.0%} on {c.prompts} prompts"
            return f"no margin is certified for agreement of {c.target:.0%} at {c.level:.0%} confidence{seen}"
        used = f"used on {self.coverage:.0%} of edges" if self.coverage is not None else "used on no edge"
        return f"{used}, agreement \u2265 {c.target:.0%} at {c.level:.0%} confidence"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Calibration:
        def agreement(given: Mapping[str, Any] | None) -> Agreement | None:
            return None if given is None else Agreement.from_dict(given)

        return cls(
            **{
                **row,
                "certificate": Certificate(**row["certificate"]),
                "judge": Agreement.from_dict(row["judge"]),
                "person": agreement(row["person"]),
                "people": agreement(row["people"]),
                "raw": Quality(**row["raw"]),
                "calibrated": Quality(**row["calibrated"]),
                "card": BiasCard.from_dict(row["card"]),
            }
        )


@dataclass(frozen=True)
class Evidence:
    """A judge's verdicts in a workspace, what they amount to, and what people said of the same prompts.

    `sample` is what the judge's newest queue has sampled, None where none of it was labelled. `weights` are the
    labelled prompts that figures are computed from, with the inverse of their inclusion probability: those of the
    sample, or all with the same weight without one.
    """

    protocol: str
    verdicts: Sequence[Verdict]
    judged: Sequence[Judged]
    labels: Labels
    weights: Mapping[str, float]
    sample: Sample | None

    @property
    def source(self) -> str:
        return self.judged[0].source if self.judged else ""

    def pairs(self) -> Iterable[tuple[Judged, Opinion, str, float]]:
        """(prompt, opinion, person, label) of every label of a pair that the judge was asked about."""
        for j in self.judged:
            for person, labels in sorted(self.labels.of.get(j.prompt_id, {}).items()):
                for o in j.opinions:
                    if (o.a, o.b) in labels:
                        yield j, o, person, labels[o.a, o.b]


def read_verdicts(store: Store, judges: Sequence[str] = (), protocol: str = "") -> tuple[str, list[Verdict]]:
    """The verdicts of the judges named (several are a panel; NAME, NAME@URL, or NAME@1 as edges say), of one protocol;
    which one it is.

    A judge or a protocol that is the only one needs no name. Raises UsageError where there are several or none.
    """
    asked = [_VERSION.sub("", judge_name(j)) for j in judges]
    found = list(store.verdicts(judge=asked or None))
    names = {v.judge for v in found}
    missing = [j for j in asked if j not in names]
    if not found or missing:
        who = f" of {missing[0]}" if missing else ""
        raise UsageError(f"{store.where} has no verdicts{who}", "hafs judge run")
    if not judges and len(names) > 1:
        raise UsageError("the verdicts are of several judges", f"--judge with one of: {', '.join(sorted(names))}")
    protocols = sorted({v.protocol for v in found})
    chosen = [p for p in protocols if not protocol or protocol in (p, p.partition("@")[0])]
    if len(chosen) != 1:
        raise UsageError(f"the verdicts are of the protocols {', '.join(protocols)}", "--protocol with one of them")
    return chosen[0], [v for v in found if v.protocol == chosen[0]]


def gather(store: Store, judges: Sequence[str] = (), protocol: str = "") -> Evidence:
    """A judge's verdicts and the labels; raises UsageError as `read_verdicts`."""
    chosen, verdicts = read_verdicts(store, judges, protocol)
    judged = list(aggregate(verdicts))
    if not judged:
        raise UsageError(f"{store.where} has only verdicts about probes", "hafs judge run")
    labels = read_labels(store)
    found = sample(store, judged[0].source, chosen, labels.of)
    both = [j.prompt_id for j in judged if j.prompt_id in labels.of]
    if found is None:
        weights = dict.fromkeys(both, 1.0)
    else:
        weights = {id: 1 / found.probabilities[id] for id in both if id in found.drawn}
    return Evidence(chosen, verdicts, judged, labels, weights, found)


def calibrate(
    store: Store,
    judges: Sequence[str] = (),
    protocol: str = "",
    *,
    target: float = 0.75,
    level: float = 0.95,
    count_ties: bool = False,
) -> Calibration:
    """Measure a judge on the workspace's labels; the result is kept there as a run of kind "calibration".

    `target` is the agreement to certify, at confidence `level`; with `count_ties` a pair that the person calls a tie
    counts half, without it the claim is of pairs on which the person has a preference. Repeated on the same verdicts
    and labels it comes from the workspace. Raises UsageError without verdicts, or without a label of a judged prompt.
    """
    evidence = gather(store, judges, protocol)
    if not evidence.weights:
        raise UsageError(
            f"no person has ranked a prompt that {evidence.source.removeprefix('judge:')} has judged",
            "hafs annotate start",
        )
    config = {
        "judge": evidence.source,
        "protocol": evidence.protocol,
        "target": target,
        "level": level,
        "count_ties": count_ties,
        "version": VERSION,
    }
    inputs = {
        "verdicts": content_id(sorted((v.id, v.outcome) for v in evidence.verdicts)),
        "labels": content_id(sorted(evidence.labels.annotations)),
        "weights": content_id(evidence.weights),
    }
    known = store.once(KIND, config, inputs)
    if known.done is not None:
        return Calibration.from_dict(known.renew().outputs)
    found = measure(store, evidence, target=target, level=level, count_ties=count_ties)
    figures = {"agreement": found.judge.decided.value, "coverage": found.coverage, "slope": found.slope}
    known.finish(figures, found.to_dict())
    return found


def newest_calibration(store: Store, source: str, protocol: str) -> Calibration | None:
    """The calibration of a judge (as edges name it) in a protocol that was made last; None without one."""
    made = store.newest(KIND, judge=source, protocol=protocol, version=VERSION)
    return Calibration.from_dict(made.outputs) if made else None


def measure(store: Store, evidence: Evidence, *, target: float, level: float, count_ties: bool) -> Calibration:
    """The calibration that the evidence gives; nothing is written."""
    ids = {id for j in evidence.judged for o in j.opinions for id in (o.a, o.b)}
    candidates = {c.id: c for c in store.candidates(ids=ids)}
    people = {id: {pair: m.label for pair, m in evidence.labels.merged(id).items()} for id in evidence.labels.of}
    slope, raw, better = _probabilities(evidence)
    certificate = certify(labelled(evidence, count_ties), target, level)
    margins = np.array([m for j in evidence.judged for _, _, m in j.edges()])
    counts = [o.says for j in evidence.judged for o in j.opinions]
    outcomes: dict[str, int] = {}
    for j in evidence.judged:
        for outcome, n in j.verdicts.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + n
    threshold = certificate.threshold
    rows = [(j.prompt_id, o.value, label) for j, o, _, label in evidence.pairs() if o.value is not None]
    return Calibration(
        evidence.source,
        evidence.protocol,
        slope,
        certificate,
        None if threshold is None or not len(margins) else float((margins >= threshold).mean()),
        agreement([(p, x, y) for p, x, y in rows if p in evidence.weights], level, evidence.weights),
        _themselves(evidence.labels, level),
        _each_other(evidence.labels, level),
        raw,
        better,
        bias_card(evidence.verdicts, evidence.judged, people, candidates, level),
        len(evidence.judged),
        len(evidence.weights),
        {s: counts.count(s) for s in sorted(set(counts))},
        outcomes,
        evidence.labels.seconds,
    )


def labelled(evidence: Evidence, count_ties: bool = False) -> LabelledMargins:
    """The judge's edges that a person decided (or tied, where ties count), for the certificate."""
    margins, agrees, prompts = [], [], []
    for j, o, _, label in evidence.pairs():
        if o.decided and (label != 0.5 or count_ties) and j.prompt_id in evidence.weights:
            margins.append(abs(o.margin))
            agrees.append(label if o.says == "a" else 1 - label)
            prompts.append(j.prompt_id)
    return LabelledMargins.of(margins, agrees, prompts, dict(evidence.weights))


def agreement(
    rows: Sequence[tuple[str, float, float]], level: float = 0.95, weights: Mapping[str, float] | None = None
) -> Agreement:
    """The agreement of two raters' labels (1, 0.5, 0) of pairs; `rows` are (prompt, one label, the other)."""
    decided = [(p, float(x == y)) for p, x, y in rows if x != 0.5 != y]
    ties = [(p, float(x == y)) for p, x, y in rows]

    def mean(found: Sequence[tuple[str, float]]) -> Estimate:
        return bootstrap_mean([v for _, v in found], [p for p, _ in found], weights=weights, level=level)

    turned = [pair for _, x, y in rows for pair in ((x, y), (1 - x, 1 - y))]
    alpha = krippendorff_alpha([{"one": x, "other": y} for x, y in turned], "ordinal")
    return Agreement(mean(decided), mean(ties), cohen_kappa(turned), alpha, len(rows))


def _probabilities(evidence: Evidence) -> tuple[float, Quality, Quality]:
    """The slope, and the quality of probabilities before and after it (cross-fitted); human ties are 0.5."""
    rows = [
        (j.prompt_id, abs(o.margin), label if o.says == "a" else 1 - label)
        for j, o, _, label in evidence.pairs()
        if o.decided
    ]
    if not rows:
        return 0.0, Quality(None, None), Quality(None, None)
    prompts = [p for p, _, _ in rows]
    m, t = np.array([m for _, m, _ in rows]), np.array([t for _, _, t in rows])
    _, place, count = np.unique(prompts, return_inverse=True, return_counts=True)
    weights = 1 / count[place]  # each prompt counts once
    out = cross_fitted(m, t, prompts, weights)
    qualities = [Quality(brier(p, t, weights), expected_calibration_error(p, t)) for p in (scipy.special.expit(m), out)]
    return symmetric_platt(m, t, weights), qualities[0], qualities[1]


def _themselves(labels: Labels, level: float) -> Agreement | None:
    """People against their own repeats."""
    rows = [(p, first[pair], later[pair]) for p, first, later in labels.repeats for pair in first if pair in later]
    return agreement(rows, level) if rows else None


def _each_other(labels: Labels, level: float) -> Agreement | None:
    """Each two people who looked at the same prompt."""
    rows: list[tuple[str, float, float]] = []
    for prompt_id, by in labels.of.items():
        people: list[PairLabels] = [by[person] for person in sorted(by)]
        for i, one in enumerate(people):
            rows += [(prompt_id, one[pair], other[pair]) for other in people[i + 1 :] for pair in one if pair in other]
    return agreement(rows, level) if rows else None
