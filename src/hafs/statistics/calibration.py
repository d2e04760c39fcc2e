"""From a judge's margins to probabilities that may be believed, and to a threshold that may be trusted.

A margin says by how much one answer beats the other; with the answers swapped it changes its sign. Everything here
keeps that: a calibrated probability is an odd function of the margin around one half, p(-m) = 1 - p(m).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from hafs.types import content_id

Array = NDArray[np.float64]


def symmetric_platt(margins: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The slope β >= 0 of p = 1 / (1 + exp(-β margin)); there is no intercept, so a swapped pair gets 1 - p.

    `targets` are probabilities that the side with the positive margin is better: 1, 0, or 0.5 for a tie. As in Platt's
    method the targets are drawn a little towards one half, by 1 / (n + 2), so perfect agreement has a finite slope.
    Without a margin other than 0 it is 0.

    J. Platt, "Probabilistic outputs for support vector machines" (1999), the symmetric case of it.
    """
    m, t = np.asarray(margins, dtype=float), np.asarray(targets, dtype=float)
    w = np.ones(len(m)) if weights is None else np.asarray(weights, dtype=float)
    if not len(m) or not (np.abs(m) * w).any():
        return 0.0
    t = t + (1 - 2 * t) / (len(m) + 2)

    def slope(b: float) -> float:
        return float((w * m * (t - scipy.special.expit(b * m))).sum())

    if slope(0.0) <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while slope(high) > 0 and high < 1e6:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return (low + high) / 2


def cross_fitted(
    margins: ArrayLike, targets: ArrayLike, prompts: Sequence[str], weights: ArrayLike | None = None, folds: int = 5
) -> Array:
    """The probability of each margin by a slope that was fitted without its prompt; folds go by the prompts' names."""
    m, t = np.asarray(margins, dtype=float), np.asarray(targets, dtype=float)
    w = np.ones(len(m)) if weights is None else np.asarray(weights, dtype=float)
    names = sorted(set(prompts), key=lambda name: content_id("fold", name))
    fold_of = {name: i % min(folds, max(1, len(names))) for i, name in enumerate(names)}
    fold = np.array([fold_of[name] for name in prompts], dtype=int)
    p = np.full(len(m), 0.5)
    for k in set(fold_of.values()):
        inside = fold == k
        if not inside.all():
            p[inside] = scipy.special.expit(symmetric_platt(m[~inside], t[~inside], w[~inside]) * m[inside])
    return p


def brier(probabilities: ArrayLike, targets: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """The mean squared distance of probabilities from what was so; 0.25 is a coin. None without data.

    G. Brier, Monthly Weather Review 78 (1950).
    """
    p, t = np.asarray(probabilities, dtype=float), np.asarray(targets, dtype=float)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=float)
    return float(np.average((p - t) ** 2, weights=w)) if len(p) else None


def expected_calibration_error(probabilities: ArrayLike, targets: ArrayLike, bins: int = 10) -> float | None:
    """The mean distance between what was said and what was so, in bins of equally many; None without data.

    M. Naeini, G. Cooper, M. Hauskrecht, AAAI 2015, with bins of equal mass. It is positive by chance alone: about
    sqrt(bins / n) / 2.5 for n even odds.
    """
    p, t = np.asarray(probabilities, dtype=float), np.asarray(targets, dtype=float)
    if not len(p):
        return None
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(p))) if len(part)]
    return float(sum(len(part) * abs(p[part].mean() - t[part].mean()) for part in parts) / len(p))


@dataclass(frozen=True)
class LabelledMargins:
    """Decided edges that a person looked at, flat: the judge's margin (above 0), whether the person agrees (1, 0, or
    0.5 for a tie that counts half), the number of the edge's prompt, and a weight for each prompt.
    """

    margins: Array
    agrees: Array
    prompts: NDArray[np.int64]
    weights: Array

    @classmethod
    def of(
        cls, margins: ArrayLike, agrees: ArrayLike, prompts: Sequence[str], weight_of: dict[str, float] | None = None
    ) -> LabelledMargins:
        """Prompts by name; they are taken in an order that says nothing about them."""
        names = sorted(set(prompts), key=lambda name: content_id("order", name))
        place = {name: i for i, name in enumerate(names)}
        weights = np.array([1.0 if weight_of is None else weight_of[name] for name in names])
        return cls(
            np.asarray(margins, dtype=float),
            np.asarray(agrees, dtype=float),
            np.array([place[name] for name in prompts], dtype=np.int64),
            weights,
        )

    def above(self, threshold: float) -> tuple[Array, Array, bool]:
        """For each prompt with an edge at or above the threshold: mean agreement of those edges, weight; and whether
        each of them has just one such edge, so that agreement is a coin's toss."""
        used = self.margins >= threshold
        count = np.bincount(self.prompts[used], minlength=len(self.weights))
        total = np.bincount(self.prompts[used], weights=self.agrees[used], minlength=len(self.weights))
        has = count > 0
        return total[has] / count[has], self.weights[has], bool((count[has] == 1).all())


def exceeds(values: Array, weights: Array, target: float, *, coins: bool = False) -> float:
    """A p-value of the claim that the mean of `values` (in [0, 1], one a prompt) is at most `target`.

    With `coins` (values are 0 or 1) and equal weights it is the exact binomial one, whose acceptance is
    Clopper-Pearson's lower limit. Otherwise it is a bet: an average of fortunes won by staking fixed shares on
    values above the target, each of which is above 1/p with probability at most p when the claim is true. Weights are
    inverse inclusion probabilities, so the mean is over all prompts and not over those that were picked.

    C. Clopper and E. Pearson, Biometrika 26 (1934); I. Waudby-Smith and A. Ramdas, "Estimating means of bounded
    random variables by betting", JRSS B 86 (2024).
    """
    if not len(values):
        return 1.0
    if coins and np.isin(values, (0.0, 1.0)).all() and np.ptp(weights) == 0:
        return float(scipy.stats.binom.sf(values.sum() - 1, len(values), target))
    gains = weights / weights.max() * (values - target)
    stakes = np.linspace(0.05, 0.95, 19) / target
    fortunes = np.log1p(stakes[:, None] * gains).cumsum(axis=1)
    wealth = np.logaddexp.reduce(fortunes, axis=0) - math.log(len(stakes))
    return float(min(1.0, math.exp(-max(0.0, wealth.max()))))


@dataclass(frozen=True)
class Certificate:
    """The lowest margin at which agreement is shown to be at least `target` at confidence `level`; None for none.

    `agreement` and `prompts` are of the edges at or above it (of those first tested where there is no threshold),
    `p_value` of the last test that counts.
    """

    threshold: float | None
    target: float
    level: float
    agreement: float | None
    prompts: int
    p_value: float


def certify(labelled: LabelledMargins, target: float = 0.75, level: float = 0.95, steps: int = 20) -> Certificate:
    """Test thresholds from the strictest down and stop before the first that fails: fixed-sequence testing.

    Which thresholds are tested, and in which order, depends on the margins alone, so all claims hold together with
    probability `level`. The sequence begins where there are enough prompts to expect a success when the true agreement
    is half-way between the target and 1.

    A. Angelopoulos et al., "Learn then test", Annals of Applied Statistics 19 (2025), section 3.2; for judges: J. Jung,
    F. Brahman, Y. Choi, "Trust or escalate", ICLR 2025.
    """
    if not (0 < target < 1 and 0 < level < 1):
        raise ValueError("target and level lie between 0 and 1")
    best: Certificate | None = None
    for threshold in _sequence(labelled, prompts_needed(target, (1 + target) / 2, level), steps):
        values, weights, coins = labelled.above(threshold)
        p = exceeds(values, weights, target, coins=coins)
        agreement = float(np.average(values, weights=weights)) if len(values) else None
        if p > 1 - level:
            return best or Certificate(None, target, level, agreement, len(values), p)
        best = Certificate(float(threshold), target, level, agreement, len(values), p)
    return best or Certificate(None, target, level, None, 0, 1.0)


def _sequence(labelled: LabelledMargins, enough: int, steps: int) -> list[float]:
    """Thresholds, falling: from where `enough` prompts have an edge (or from the lowest) down to the lowest margin."""
    if not len(labelled.margins):
        return []
    highest = np.zeros(len(labelled.weights))
    np.maximum.at(highest, labelled.prompts, labelled.margins)
    first = np.sort(highest)[::-1][min(enough, len(highest)) - 1]
    below = np.unique(labelled.margins[labelled.margins <= first])[::-1]
    if len(below) > steps:
        below = below[np.unique(np.linspace(0, len(below) - 1, steps).round().astype(int))]
    return [float(x) for x in below]


@cache
def prompts_needed(target: float, expected: float, level: float = 0.95, chance: float = 0.8) -> int:
    """How many prompts with one edge each show agreement of at least `target` with probability `chance`.

    `expected` is the true agreement. Raises ValueError when it is not above the target.
    """
    if not target < expected <= 1:
        raise ValueError(f"agreement of {expected} does not show {target}")
    most = 500
    while True:
        n = np.arange(1, most + 1)
        least = scipy.stats.binom.isf(1 - level, n, target) + 1  # from which on P(X >= k | target) <= 1 - level
        shown = scipy.stats.binom.sf(least - 1, n, expected) >= chance
        steady = np.logical_and.accumulate(shown[::-1])[::-1]  # from here on for every n: the power zigzags
        if steady[-min(most, 100) :].all() or most > 100_000:
            return int(n[steady.argmax()]) if steady.any() else most
        most *= 4
