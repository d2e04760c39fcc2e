"""From a training log to its charts: which metrics go together, in which unit, and what each shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hafs.evals.tables import Cell, Table
from hafs.evals.words import model_title
from hafs.report.blocks import Lines, Series
from hafs.report.charts import is_long, parts_of, smooth, tidy
from hafs.report.data import Training

__all__ = ["charts_of"]

_ROWS = 8  # of a chart's table of figures


@dataclass(frozen=True)
class _Plan:
    """One chart: its unit, and the metrics in it as (name in the log, label, colour, single measurements)."""

    title: str
    unit: str
    metrics: tuple[tuple[str, str, str, bool], ...]
    share: bool = False


_PLANS = (
    _Plan("Loss", "nats", (("loss", "training", "ref", False), ("eval/loss", "validation", "new", True))),
    _Plan("Validation pass rate", "share of prompts", (("eval/pass_rate", "passed", "new", True),), share=True),
    _Plan(
        "Reward margin",
        "nats, β × log-ratio to the reference",
        (("rewards/margins", "training", "ref", False), ("eval/rewards/margins", "validation", "new", True)),
    ),
    _Plan(
        "Rewards",
        "nats, β × log-ratio to the reference",
        (("rewards/chosen", "chosen", "new", False), ("rewards/rejected", "rejected", "ref", False)),
    ),
    _Plan(
        "Pairs ordered right",
        "share of pairs",
        (("rewards/accuracies", "training", "ref", False), ("eval/rewards/accuracies", "validation", "new", True)),
        share=True,
    ),
    _Plan(
        "Log-probability of answers",
        "nats, summed over tokens",
        (("logps/chosen", "chosen", "new", False), ("logps/rejected", "rejected", "ref", False)),
    ),
    _Plan(
        "Length: chosen minus rejected",
        "tokens",
        (("length_gap", "training", "ref", False), ("eval/length_gap", "validation", "new", True)),
    ),
    _Plan("Answer length on validation", "tokens", (("eval/tokens", "mean", "new", True),)),
    _Plan("KL to the reference", "nats", (("kl", "training", "ref", False), ("eval/kl", "validation", "new", True))),
)


def charts_of(*trainings: Training) -> list[Lines]:
    """The charts that the logs have figures for, in a fixed order; several runs one after the other on one axis."""
    return [chart for plan in _PLANS if (chart := _chart(trainings, plan))]


def _chart(trainings: Sequence[Training], plan: _Plan) -> Lines | None:
    starts = _starts(trainings)
    series = [
        Series(label, points, style, dots, starts[1:])
        for key, label, style, dots in plan.metrics
        if (points := tuple(p for t, start in zip(trainings, starts, strict=True) for p in _points(t, key, start)))
    ]
    if not series:
        return None
    several = len(trainings) > 1
    return Lines(
        title=plan.title,
        x_label="optimiser step, round after round" if several else "optimiser step",
        y_label=plan.unit,
        series=tuple(series),
        caption=_caption(series, plan.share, [t.name for t in trainings] if several else []),
        figures=_figures(plan, series),
        marks=_round_marks(trainings, starts) if several else _kept_mark(trainings[0], series),
        share=plan.share,
    )


def _starts(trainings: Sequence[Training]) -> tuple[float, ...]:
    """Where each run begins on the common axis: after the last step of the one before it."""
    starts, at = [], 0.0
    for t in trainings:
        starts.append(at)
        at += max((float(row["step"]) for row in t.rows if "step" in row), default=0.0) + 1
    return tuple(starts)


def _kept_mark(training: Training, series: Sequence[Series]) -> tuple[tuple[float, str], ...]:
    steps, kept = [x for s in series for x, _ in s.points], training.kept
    if kept is None or not min(steps) <= kept <= max(steps) or len(set(steps)) < 2:
        return ()
    return ((float(kept), "kept"),)


def _round_marks(trainings: Sequence[Training], starts: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple((start, model_title(t.name)) for t, start in zip(trainings, starts, strict=True))


def _points(training: Training, key: str, start: float) -> list[tuple[float, float]]:
    """The (step, value) pairs of one metric, `start` added to the step; what is not a number is left out."""
    out = []
    for row in training.rows:
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value) and "step" in row:
            out.append((start + float(row["step"]), float(value)))
    return sorted(out)


def _caption(series: Sequence[Series], share: bool, names: Sequence[str]) -> str:
    """Where each line began and ended, in words (a long line's running mean, as drawn)."""
    said = []
    for s in series:
        parts = [smooth(part) for part in parts_of(s)]
        ends = [
            f"{tidy(p[0][1], share)} to {tidy(p[-1][1], share)}" if len(p) > 1 else tidy(p[-1][1], share) for p in parts
        ]
        said.append(f"{s.label} {', then '.join(ends)}")
    mean = " (running mean)" if any(is_long(part) for s in series for part in parts_of(s)) else ""
    if names:
        return f"{'; '.join(said)}{mean}."
    last_step = max(s.points[-1][0] for s in series)
    return f"{'; '.join(said)}, by step {last_step:g}{mean}."


def _figures(plan: _Plan, series: Sequence[Series]) -> Table:
    """Figures at about `_ROWS` steps, from the first to the last at which the sparsest line was measured."""
    steps = sorted({x for x, _ in min(series, key=lambda s: len(s.points)).points})
    n = min(_ROWS, len(steps))
    picked = sorted({steps[round(i * (len(steps) - 1) / max(1, n - 1))] for i in range(n)})
    by_step = [dict(s.points) for s in series]
    rows = tuple(
        (Cell(f"{step:g}"), *(Cell(tidy(v[step], plan.share) if step in v else "-") for v in by_step))
        for step in picked
    )
    return Table(f"{plan.title} ({plan.unit})", ("Step", *(s.label for s in series)), rows)
