"""Prediction-powered inference: a mean or a regression from few trusted labels and many cheap predictions of them.

The predictions may be as wrong as they like: their error is measured on the labelled items and taken off, so the
intervals cover whatever the predictor is worth. A power λ in [0, 1], tuned on the data, says how much of the
predictions to use; with λ = 0 it is the plain estimate from the labels.

The interval of a rate is Clopper and Pearson's at the effective number of labels (as many as would give the same
standard error), so it stays within 0 and 1 and always has a width. A standard error says little where hardly a label is
of the rarer kind: with fewer than `FEWEST_OF_EITHER` of them the rate is that of the labels alone.

A. Angelopoulos, S. Bates, C. Fannjiang, M. Jordan, T. Zrnic, "Prediction-powered inference", Science 382 (2023);
A. Angelopoulos, J. Duchi, T. Zrnic, "PPI++: Efficient prediction-powered inference", arXiv 2311.01453 (2023);
E. Korn, B. Graubard, "Confidence intervals for proportions with small expected number of positive counts estimated from
survey data", Survey Methodology 24 (1998).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from hafs.statistics.intervals import Estimate

Array = NDArray[np.float64]

FEWEST_OF_EITHER = 8
"""Labels of the rarer kind below which predictions are not used: their measured error would be a matter of luck."""


def ppi_mean(
    labels: ArrayLike,
    predicted: ArrayLike,
    predicted_elsewhere: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    weights_elsewhere: ArrayLike | None = None,
    power: float | None = None,
    level: float = 0.95,
) -> tuple[Estimate, float]:
    """The mean of the labels (each in [0, 1]) over all items, with its interval, and the power λ that was used.

    `labels` and `predicted` are of the same items, `predicted_elsewhere` of the items without a label. Weights are
    the inverse of the probability with which an item is on its side (any scale); without them, which items are
    labelled is taken to be random. Without predictions elsewhere, or with too few labels of the rarer kind, it is the
    mean of the labels. `n` of the estimate counts labels; without one all is None. `power` fixes λ instead of tuning it
    (PPI++, section 6).
    """
    y, f, g = (np.asarray(x, dtype=float) for x in (labels, predicted, predicted_elsewhere))
    if y.shape != f.shape:
        raise ValueError(f"{len(y)} labels and {len(f)} predictions of them")
    n, m = len(y), len(g)
    if n == 0:
        return Estimate(None, None, None, 0, level, "PPI++"), 0.0
    if y.min() < 0 or y.max() > 1:
        raise ValueError("a label of a rate lies between 0 and 1")
    w, v = _weights(weights, n), _weights(weights_elsewhere, m)
    alone, kish = float((w * y).mean()), n / float((w * w).mean())
    if m and kish * min(alone, 1 - alone) >= FEWEST_OF_EITHER:
        lam = _mean_power(y, f, g, w, v) if power is None else power
        away, error = float((v * lam * g).mean()), float((w * (y - lam * f)).mean())
        value = away + error
        variance = float(np.var(w * (y - lam * f - error), ddof=1)) / n + float(np.var(v * (lam * g - away))) / m
        if 0 < value < 1:
            variance = max(variance, alone * (1 - alone) / (4 * n))  # a perfect prediction of n labels may be luck
            size = value * (1 - value) / variance * _few(n, level)
            return Estimate(value, *_exact(value, size, level), n, level, "PPI++"), lam
    size = kish
    if n > 1 and 0 < alone < 1 and (variance := float(np.var(w * (y - alone), ddof=1)) / n) > 0:
        size = alone * (1 - alone) / variance * _few(n, level)
        if kish * min(alone, 1 - alone) < FEWEST_OF_EITHER:
            size = min(size, kish)
    return Estimate(alone, *_exact(alone, size, level), n, level, "Clopper-Pearson"), 0.0


def _few(n: int, level: float) -> float:
    """By how much a variance estimated from n values lessens the effective number of labels."""
    point = (1 + level) / 2
    return float(scipy.stats.norm.ppf(point) / scipy.stats.t.ppf(point, n - 1)) ** 2


def _exact(rate: float, size: float, level: float) -> tuple[float, float]:
    """The limits of Clopper and Pearson for a rate of `size` trials, whole or not."""
    tail, k = (1 - level) / 2, rate * size
    low = 0.0 if k <= 0 else float(scipy.special.betaincinv(k, size - k + 1, tail))
    high = 1.0 if size - k <= 1e-9 else float(scipy.special.betaincinv(k + 1, size - k, 1 - tail))
    return low, high


def _mean_power(y: Array, f: Array, g: Array, w: Array, v: Array) -> float:
    """The λ in [0, 1] with the least variance: cov(Y, f) / ((1 + n/N) var f)."""
    centre = float((v * g).mean() + (w * (y - f)).mean())
    a, b, c = w * (y - centre), w * (f - centre), v * (g - centre)
    spread = float(np.var(np.concatenate([b, c]), ddof=1))
    if spread == 0:
        return 0.0
    covariance = float(((a - a.mean()) * (b - b.mean())).mean())
    return min(1.0, max(0.0, covariance / ((1 + len(y) / len(g)) * spread)))


def _weights(given: ArrayLike | None, n: int) -> Array:
    """Weights with mean 1."""
    if given is None:
        return np.ones(n)
    w = np.asarray(given, dtype=float)
    if w.shape != (n,) or (w < 0).any() or (n and not w.sum() > 0):
        raise ValueError(f"{n} weights of 0 or more are needed")
    return w / w.mean() if n else w


@dataclass(frozen=True)
class Regression:
    """Coefficients with their covariance (k x k), and the power λ that was used."""

    coefficients: Array
    covariance: Array
    power: float


@dataclass(frozen=True)
class Rows:
    """One side of a regression: covariates (n x k), predictions in [0, 1], weights, and each row's cluster."""

    x: Array
    predicted: Array
    weights: Array
    clusters: NDArray[np.int64]

    @classmethod
    def of(cls, x: ArrayLike, predicted: ArrayLike, weights: ArrayLike | None, clusters: Sequence[Any] | None) -> Rows:
        design, f = np.asarray(x, dtype=float), np.asarray(predicted, dtype=float)
        if design.ndim != 2 or len(design) != len(f):
            raise ValueError("covariates are a table with a row for every prediction")
        names = np.arange(len(f)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
        return cls(design, f, _weights(weights, len(f)), names.astype(np.int64))

    def gradients(self, b: Array, target: Array) -> Array:
        """The gradient of each row's loss at coefficients `b`."""
        return np.asarray((self.weights * (scipy.special.expit(self.x @ b) - target))[:, None] * self.x)

    def information(self, b: Array) -> Array:
        """The mean curvature of the loss at coefficients `b`."""
        p = scipy.special.expit(self.x @ b)
        return np.asarray(self.x.T @ ((self.weights * p * (1 - p))[:, None] * self.x) / max(1, len(self.x)))

    def spread(self, gradients: Array) -> Array:
        """The covariance of the mean of `gradients`; rows of one cluster go together."""
        count = int(self.clusters.max()) + 1
        centred = gradients - gradients.mean(0)
        sums = np.zeros((count, gradients.shape[1]))
        np.add.at(sums, self.clusters, centred)
        return np.asarray(sums.T @ sums * count / max(1, count - 1) / len(gradients) ** 2)


def ppi_logistic(
    labels: ArrayLike, labelled: Rows, elsewhere: Rows | None = None, *, power: float | None = None
) -> Regression:
    """Logistic regression (no intercept of its own) of `labels` in [0, 1], helped by predictions elsewhere.

    The covariance is the sandwich one, by clusters. Raises ValueError where the coefficients cannot be told (columns
    that depend on each other, or labels that a covariate separates).
    """
    y = np.asarray(labels, dtype=float)
    lam = (0.0 if elsewhere is None else 1.0) if power is None else power
    b = _solve(y, labelled, elsewhere, lam)
    if elsewhere is not None and power is None:
        lam = _regression_power(y, labelled, elsewhere, b)
        b = _solve(y, labelled, elsewhere, lam)
    inverse = np.linalg.inv(_information(labelled, elsewhere if lam else None, b))
    middle = labelled.spread(labelled.gradients(b, y) - lam * labelled.gradients(b, labelled.predicted))
    if elsewhere is not None and lam:
        middle = middle + elsewhere.spread(lam * elsewhere.gradients(b, elsewhere.predicted))
    return Regression(b, inverse @ middle @ inverse, lam)


def _information(labelled: Rows, elsewhere: Rows | None, b: Array) -> Array:
    """The curvature over all rows there are."""
    if elsewhere is None:
        return labelled.information(b)
    n, m = len(labelled.x), len(elsewhere.x)
    return (n * labelled.information(b) + m * elsewhere.information(b)) / (n + m)


def _solve(y: Array, labelled: Rows, elsewhere: Rows | None, lam: float) -> Array:
    """Where the rectified gradient is zero; its loss is convex for λ in [0, 1]."""
    b = np.zeros(labelled.x.shape[1])
    for _ in range(100):
        target = y - lam * labelled.predicted
        p = scipy.special.expit(labelled.x @ b)
        slope = ((labelled.weights * ((1 - lam) * p - target))[:, None] * labelled.x).mean(0)
        curve = (1 - lam) * labelled.information(b)
        if elsewhere is not None and lam:
            slope = slope + lam * elsewhere.gradients(b, elsewhere.predicted).mean(0)
            curve = curve + lam * elsewhere.information(b)
        try:
            step = np.linalg.solve(curve, slope)
        except np.linalg.LinAlgError:
            raise ValueError("the coefficients cannot be told from these rows") from None
        size = float(np.abs(step).max())
        b = b - step * min(1.0, 2.0 / size if size else 1.0)  # a long step overshoots where the logistic is flat
        if size < 1e-11:
            return b
    raise ValueError("the coefficients cannot be told from these rows")


def _regression_power(y: Array, labelled: Rows, elsewhere: Rows, b: Array) -> float:
    """The λ in [0, 1] with the least total variance of the coefficients (PPI++, section 6)."""
    inverse = np.linalg.inv(_information(labelled, elsewhere, b))
    true, guess = labelled.gradients(b, y), labelled.gradients(b, labelled.predicted)
    away = elsewhere.gradients(b, elsewhere.predicted)
    both = (true - true.mean(0)).T @ (guess - guess.mean(0)) / len(y)
    spread = np.atleast_2d(np.cov(np.concatenate([guess, away]).T))
    below = (1 + len(y) / len(away)) * float(np.trace(inverse @ spread @ inverse))
    above = float(np.trace(inverse @ (both + both.T) @ inverse)) / 2
    return min(1.0, max(0.0, above / below)) if below > 0 else 0.0
