"""How many more labels a judge needs before it may be trusted, and how long the person needs for them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hafs.judge.calibrate import Evidence, labelled
from hafs.statistics import exceeds, prompts_needed

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Of the judge's edges, the surest ones: what is planned for."""

ENOUGH_TO_RESAMPLE = 10
"""Labelled prompts from which on the plan is made from what was seen, not from an assumption."""

MOST = 2000
DRAWS = 60


@dataclass(frozen=True)
class PlanRow:
    """For trusting this share of the judge's edges: what agreement was seen (on how many prompts), and the labelled
    prompts needed in all and in addition, with the person's minutes for them; None where it cannot be shown."""

    share: float
    agreement: float | None
    prompts: int
    needed: int | None
    more: int | None
    minutes: float | None


@dataclass(frozen=True)
class JudgePlan:
    """The rows, and what they rest on: the pace in seconds a prompt and whether it was measured, and the agreement that
    is assumed where too little was seen."""

    source: str
    target: float
    level: float
    labelled: int
    judged: int
    seconds: float
    measured: bool
    expected: float
    rows: tuple[PlanRow, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def plan(evidence: Evidence, target: float = 0.75, level: float = 0.95, expected: float | None = None) -> JudgePlan:
    """What certifying `target` at `level` takes, with a chance of four in five of success.

    `expected` is the agreement assumed where fewer than ten labelled prompts have an edge, by default half-way between
    the target and 1.
    """
    assumed = (1 + target) / 2 if expected is None else expected
    seen = labelled(evidence)
    highest = np.array([max((m for _, _, m in j.edges()), default=0.0) for j in evidence.judged])
    margins = np.sort([m for j in evidence.judged for _, _, m in j.edges()])[::-1]
    rows = []
    for share in SHARES:
        if not len(margins):
            break
        threshold = float(margins[max(1, round(share * len(margins))) - 1])
        values, weights, coins = seen.above(threshold)
        agreement = float(np.average(values, weights=weights)) if len(values) else None
        if len(values) >= ENOUGH_TO_RESAMPLE:
            prompts = _resampled(values, weights, coins, target, level)
        else:
            prompts = prompts_needed(target, assumed, level) if assumed > target else None
        needed = None if prompts is None else int(np.ceil(prompts / (highest >= threshold).mean()))
        more = None if needed is None else max(0, needed - len(evidence.weights))
        rows.append(
            PlanRow(
                share, agreement, len(values), needed, more, None if more is None else more * evidence.labels.pace / 60
            )
        )
    return JudgePlan(
        evidence.source,
        target,
        level,
        len(evidence.weights),
        len(evidence.judged),
        evidence.labels.pace,
        evidence.labels.seconds is not None,
        assumed,
        tuple(rows),
    )


def _resampled(
    values: np.ndarray, weights: np.ndarray, coins: bool, target: float, level: float, chance: float = 0.8
) -> int | None:
    """The least number of prompts like those seen with which the claim would be shown, by drawing from them."""
    if np.average(values, weights=weights) <= target:
        return None
    rng = np.random.default_rng(0)
    n = ENOUGH_TO_RESAMPLE
    while n <= MOST:
        shown = 0
        for _ in range(DRAWS):
            drawn = rng.integers(0, len(values), n)
            shown += exceeds(values[drawn], weights[drawn], target, coins=coins) <= 1 - level
        if shown >= DRAWS * chance:
            return n
        n = round(n * 1.3)
    return None
