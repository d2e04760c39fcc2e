"""Strengths of a few items from comparisons of them: Bradley-Terry with ties, and Plackett-Luce for rankings.

Both are penalised maximum likelihood: the log-strengths have independent normal priors with variance 1 / `penalty`,
so an item that won everything has a finite strength, and strengths sum to zero. The likelihoods are concave, and
Newton's method finds the maximum in a few steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Strengths:
    """Log-strengths of items with their covariance (the inverse of the penalised information, n x n).

    `log_tie` is Davidson's log ν; None where ties were not modelled.
    """

    values: Array
    covariance: Array
    log_tie: float | None = None

    @property
    def standard_errors(self) -> Array:
        """The standard error of each log-strength."""
        return np.sqrt(np.diag(self.covariance))

    def difference(self, i: int, j: int) -> tuple[float, float]:
        """How much stronger i is than j (the win log-odds among decided comparisons), with its standard error."""
        c = self.covariance
        return float(self.values[i] - self.values[j]), math.sqrt(max(0.0, c[i, i] + c[j, j] - 2 * c[i, j]))

    def probabilities(self, i: int, j: int) -> tuple[float, float, float]:
        """The probabilities that i wins, that they tie, and that j wins."""
        half = (self.values[i] - self.values[j]) / 2
        logits = np.array([half, -math.inf if self.log_tie is None else self.log_tie, -half])
        win, tie, loss = np.exp(logits - np.logaddexp.reduce(logits)).tolist()
        return win, tie, loss


def bradley_terry(wins: ArrayLike, ties: ArrayLike | None = None, *, penalty: float = 1.0) -> Strengths:
    """Strengths from `wins` (n x n: how often the row's item beat the column's) and symmetric `ties` (n x n).

    Counts may be fractional (weights). With ties P(i wins) : P(tie) : P(j wins) = π_i : ν √(π_i π_j) : π_j, and log ν
    has the same prior as the strengths; without any tie it is the plain Bradley-Terry model. Raises ValueError for
    negative counts, another shape, or a penalty that is not above 0.

    R. Bradley and M. Terry, Biometrika 39 (1952); R. Davidson, "On extending the Bradley-Terry model to accommodate
    ties", JASA 65 (1970); the prior: F. Caron and A. Doucet, J. Computational and Graphical Statistics 21 (2012).
    """
    w = np.asarray(wins, dtype=float)
    t = np.zeros_like(w) if ties is None else np.asarray(ties, dtype=float)
    n = len(w)
    if w.shape != (n, n) or t.shape != (n, n) or (w < 0).any() or (t < 0).any() or not np.array_equal(t, t.T):
        raise ValueError("wins and ties are square tables of counts, and ties are symmetric")
    _check(penalty)
    i, j = np.triu_indices(n, 1)
    counts = np.column_stack([w[i, j], t[i, j], w[j, i]])
    met = counts.sum(1) > 0
    i, j, counts = i[met], j[met], counts[met]
    rows = np.zeros((len(i), n))
    rows[np.arange(len(i)), i], rows[np.arange(len(i)), j] = 0.5, -0.5
    tied = bool(t.any())

    def likelihood(x: Array) -> tuple[float, Array, Array]:
        half = rows @ x[:n]
        logits = np.column_stack([half, np.full(len(i), x[n] if tied else -math.inf), -half])
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p, total = np.exp(logits), counts.sum(1)
        edge = p[:, 0] - p[:, 2]
        value = float((counts * np.where(counts > 0, logits, 0.0)).sum())
        slope = rows.T @ (counts[:, 0] - counts[:, 2] - total * edge)
        curve = rows.T @ ((total * (p[:, 0] + p[:, 2] - edge**2))[:, None] * rows)
        if not tied:
            return value, slope, curve
        slope = np.append(slope, (counts[:, 1] - total * p[:, 1]).sum())
        cross = -rows.T @ (total * edge * p[:, 1])
        corner = (total * p[:, 1] * (1 - p[:, 1])).sum()
        return value, slope, np.block([[curve, cross[:, None]], [cross[None], np.array([[corner]])]])

    best, covariance = _maximum(likelihood, n + tied, penalty)
    return Strengths(best[:n], covariance[:n, :n], float(best[n]) if tied else None)


def plackett_luce(rankings: Sequence[Sequence[Sequence[int]]], n: int, *, penalty: float = 1.0) -> Strengths:
    """Strengths of `n` items from rankings, each of tiers of items, best first; a ranking may leave items out.

    What a ranking leaves out it says nothing of. Members of a tier are each chosen from the tier and all below it
    (Breslow's form of ties), which pulls them together. Raises ValueError when a ranking names an item twice, or for a
    penalty that is not above 0.

    R. Plackett, "The analysis of permutations", Applied Statistics 24 (1975); R. Luce (1959). The likelihood is that of
    Cox's regression with a stratum for each ranking; ties: N. Breslow, Biometrics 30 (1974).
    """
    _check(penalty)
    chosen = np.zeros(n)
    sets: list[Array] = []
    sizes: list[int] = []
    for ranking in rankings:
        named = [item for tier in ranking for item in tier]
        if len(set(named)) != len(named):
            raise ValueError("a ranking names an item twice")
        left = np.zeros(n)
        left[named] = 1.0
        for tier in ranking:
            if left.sum() > 1:
                chosen[list(tier)] += 1
                sets.append(left.copy())
                sizes.append(len(tier))
            left[list(tier)] = 0.0
    among = np.array(sets).reshape(-1, n)
    weight = np.array(sizes, dtype=float)

    def likelihood(x: Array) -> tuple[float, Array, Array]:
        logits = np.where(among > 0, x, -math.inf)
        total = np.logaddexp.reduce(logits, axis=1, initial=-math.inf)
        p = np.exp(logits - total[:, None])
        value = float(chosen @ x - weight @ total)
        expected = p * weight[:, None]
        return value, chosen - expected.sum(0), np.diag(expected.sum(0)) - p.T @ expected

    return Strengths(*_maximum(likelihood, n, penalty))


def _check(penalty: float) -> None:
    if not penalty > 0:
        raise ValueError(f"a penalty is above 0, not {penalty}")


def _maximum(
    likelihood: Callable[[Array], tuple[float, Array, Array]], size: int, penalty: float
) -> tuple[Array, Array]:
    """Where the penalised log-likelihood is greatest, and the inverse of its curvature there (Newton's method)."""

    def penalised(x: Array) -> tuple[float, Array, Array]:
        value, slope, curve = likelihood(x)
        return value - penalty * float(x @ x) / 2, slope - penalty * x, curve + penalty * np.eye(size)

    x = np.zeros(size)
    value, slope, curve = penalised(x)
    for _ in range(100):
        step = np.linalg.solve(curve, slope)
        gain = float(slope @ step)
        if gain < 1e-16:
            break
        length = 1.0
        while True:
            there = penalised(x + length * step)
            if there[0] >= value or length < 1e-8:
                break
            length /= 2
        x = x + length * step
        value, slope, curve = there
    return x, np.asarray(np.linalg.inv(curve), dtype=float)
