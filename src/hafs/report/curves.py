"""From a training log to its charts: which metrics go together, in which unit, and what each shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hafs.evals.tables import Cell, Table
from hafs.report.blocks import Lines, Series
from hafs.report.charts import is_long, smooth, tidy
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
    _Plan(
        "Validation pass rate",
        "share of prompts",
        (("eval/pass_rate", "passed", "new", True),),
        share=True,
    ),
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
        (
            ("rewards/accuracies", "training", "ref", False),
            ("eval/rewards/accuracies", "validation", "new", True),
        ),
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
    _Plan(
        "KL to the reference",
        "nats",
        (("kl", "training", "ref", False), ("eval/kl", "validation", "new", True)),
    ),
)


def charts_of(training: Training) -> list[Lines]:
    """The charts that the log has figures for, in a fixed order."""
    return [chart for plan in _PLANS if (chart := _chart(training, plan))]


def _chart(training: Training, plan: _Plan) -> Lines | None:
    series = [
        Series(label, points, style, dots)
        for key, label, style, dots in plan.metrics
        if (points := _points(training, key))
    ]
    if not series:
        return None
    steps = [x for s in series for x, _ in s.points]
    kept = training.kept
    mark = (float(kept), "kept") if kept is not None and min(steps) <= kept <= max(steps) else None
    return Lines(
        title=plan.title,
        x_label="optimiser step",
        y_label=plan.unit,
        series=tuple(series),
        caption=_caption(series, plan.share),
        figures=_figures(plan, series),
        mark=mark if len(set(steps)) > 1 else None,
        share=plan.share,
    )


def _points(training: Training, key: str) -> tuple[tuple[float, float], ...]:
    """The (step, value) pairs of one metric; values that are not numbers are left out."""
    out = []
    for row in training.rows:
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value) and "step" in row:
            out.append((float(row["step"]), float(value)))
    return tuple(sorted(out))


def _caption(series: Sequence[Series], share: bool) -> str:
    """Where each line began and ended, in words (a long line's running mean, as drawn)."""
    parts = []
    for s in series:
        line = smooth(s.points)
        first, last = tidy(line[0][1], share), tidy(line[-1][1], share)
        parts.append(f"{s.label} {first} to {last}" if len(line) > 1 else f"{s.label} {last}")
    last_step = max(s.points[-1][0] for s in series)
    mean = " (running mean)" if any(is_long(s.points) for s in series) else ""
    return f"{'; '.join(parts)}, by step {last_step:g}{mean}."


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
