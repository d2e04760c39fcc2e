"""Intervals and tests for pass rates, for one model and for two models on the same prompts.

The prompt is the unit everywhere: one prompt is one trial, two models are compared on the prompts both
answered, and several answers to one prompt are averaged before anything is resampled. Each interval's
coverage is measured by simulation in the tests; the choice for paired differences (Tango's score interval) is
the one that stays nearest to its nominal level around 100 prompts and that leaves out zero exactly when
McNemar's test is significant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Estimate",
    "bootstrap_mean",
    "clopper_pearson",
    "holm",
    "mcnemar",
    "minimum_detectable_difference",
    "paired_bootstrap",
    "paired_difference",
    "pass_at_k",
    "two_level_bootstrap",
    "wilson",
    "wilson_mean",
]

_ROWS_AT_ONCE = 2_000_000  # resampled values held in memory at a time


@dataclass(frozen=True)
class Estimate:
    """A figure from `n` prompts with its interval [`low`, `high`] at `level`; all None without data."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    level: float = 0.95
    method: str = ""

    @property
    def above_zero(self) -> bool:
        """The whole interval is above zero."""
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        """The whole interval is below zero."""
        return self.high is not None and self.high < 0


def wilson(k: int, n: int, level: float = 0.95) -> Estimate:
    """The rate k/n with Wilson's score interval; no data (n = 0) has no value.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22
    (1927). Its coverage is close to nominal from about ten trials on (Brown, Cai and DasGupta, Statistical
    Science 16, 2001).
    """
    return _binomial(k, n, level, "wilson")


def wilson_mean(shares: ArrayLike, level: float = 0.95) -> Estimate:
    """The mean of one share in [0, 1] a prompt, with Wilson's interval at the effective number of prompts.

    Shares vary less than plain passes of the same mean do, so they count as more prompts: as many as passes would need
    for the same standard error. For shares that are all 0 or 1 it is `wilson`, for equal ones n is taken as it is; so
    the interval has a width where a bootstrap, which sees no variation, has none.

    Source: P. Kott and D. Carr, "Developing an estimation strategy for a pesticide data program", J. Official
    Statistics 13 (1997); N. Dean and M. Pagano, "Evaluating confidence interval methods for binomial proportions in
    clustered surveys", J. Survey Statistics and Methodology 3 (2015).
    """
    _check(level)
    x = np.asarray(shares, dtype=float)
    n = len(x)
    if n == 0:
        return Estimate(None, None, None, 0, level, "Wilson")
    if x.min() < 0 or x.max() > 1:
        raise ValueError("a share lies between 0 and 1")
    m, z = float(x.mean()), float(scipy.stats.norm.ppf((1 + level) / 2))
    size = n if x.min() == x.max() else 1 + (n - 1) * m * (1 - m) / float(x.var())
    middle = (m + z * z / (2 * size)) / (1 + z * z / size)
    half = z / (1 + z * z / size) * math.sqrt(m * (1 - m) / size + z * z / (4 * size * size))
    return Estimate(m, max(0.0, middle - half), min(1.0, middle + half), n, level, "Wilson")


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Estimate:
    """The rate k/n with the exact interval, which covers at least at its level for every true rate.

    Source: C. Clopper and E. S. Pearson, "The use of confidence or fiducial limits", Biometrika 26 (1934).
    """
    return _binomial(k, n, level, "exact")


def _binomial(k: int, n: int, level: float, method: str) -> Estimate:
    _check(level)
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes in {n} trials")
    name = "Wilson" if method == "wilson" else "Clopper-Pearson"
    if n == 0:
        return Estimate(None, None, None, 0, level, name)
    ci = scipy.stats.binomtest(k, n).proportion_ci(level, method=method)
    return Estimate(k / n, float(ci.low), float(ci.high), n, level, name)


def paired_difference(gained: int, lost: int, n: int, level: float = 0.95) -> Estimate:
    """The change of a pass rate on the same n prompts, with Tango's score interval.

    `gained` prompts pass only with the new model, `lost` only with the old one; the value is (gained - lost)
    / n. The limits are the differences d at which (gained - lost - n d)^2 equals z^2 times the variance under
    d, the nuisance rate being its maximum-likelihood value under d.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998), equations 10-14; recommended by Fagerland,
    Lydersen and Laake, Statistics in Medicine 33 (2014).
    """
    _check(level)
    if gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"{gained} gained and {lost} lost of {n} prompts")
    if n == 0:
        return Estimate(None, None, None, 0, level, "Tango")
    d, z, nudge = (gained - lost) / n, float(scipy.stats.norm.ppf((1 + level) / 2)), 1e-12

    def gap(x: float) -> float:
        return abs(d - x) - z * _restricted_deviation(gained, lost, n, x)

    low = -1.0 if d == -1 else scipy.optimize.brentq(gap, -1.0, d - nudge)
    high = 1.0 if d == 1 else scipy.optimize.brentq(gap, d + nudge, 1.0)
    return Estimate(d, float(low), float(high), n, level, "Tango")


def _restricted_deviation(gained: int, lost: int, n: int, d: float) -> float:
    """Standard error of the difference if it were d, the loss rate q at its maximum likelihood under d."""
    b = -gained - lost + (2 * n - gained + lost) * d
    c = -lost * d * (1 - d)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return math.sqrt(max(2 * q + d * (1 - d), 0.0) / n)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p that gains and losses are equally likely; 1 when no prompt changed.

    Source: Q. McNemar, Psychometrika 12 (1947), in its exact binomial form. It is cautious: with few changed
    prompts it can stay above 0.05 where the interval of `paired_difference` already leaves out zero.
    """
    changed = gained + lost
    return 1.0 if changed == 0 else float(scipy.stats.binomtest(gained, changed, 0.5).pvalue)


def bootstrap_mean(
    values: ArrayLike,
    prompts: Sequence[str] | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    level: float = 0.95,
    draws: int = 4000,
    seed: int = 0,
) -> Estimate:
    """The mean of `values` with a percentile bootstrap interval that resamples prompts.

    Several values of one prompt (named by `prompts`, as long as `values`) are averaged first, so that every
    prompt counts once and values of one prompt, which go together, are never taken for independent ones. `weights`
    are those of the prompts, such as the inverse of the probability with which each was picked.

    Source: B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13; resampling
    whole clusters: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    _check(level)
    units = _prompt_means(np.asarray(values, dtype=float), prompts)
    n = len(units)
    if n == 0:
        return Estimate(None, None, None, 0, level, "bootstrap")
    weight = np.ones(n)
    if weights is not None and prompts is not None:
        weight = np.array([weights[name] for name in sorted(set(prompts))])  # the order of `_prompt_means`
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    step = max(1, _ROWS_AT_ONCE // n)
    for start in range(0, draws, step):
        picked = rng.integers(0, n, size=(min(step, draws - start), n))
        means[start : start + len(picked)] = np.average(units[picked], weights=weight[picked], axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(np.average(units, weights=weight)), float(low), float(high), n, level, "bootstrap")


def paired_bootstrap(
    new: ArrayLike, old: ArrayLike, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Estimate:
    """The mean change from `old` to `new` (one value a prompt, same prompts, same order), bootstrapped.

    It serves any per-prompt figure (score, tokens, share of samples passed). For plain passes
    `paired_difference` needs no random numbers and covers better when few prompts changed. Source: as
    `bootstrap_mean`.
    """
    a, b = np.asarray(new, dtype=float), np.asarray(old, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} new values and {len(b)} old ones")
    return bootstrap_mean(a - b, level=level, draws=draws, seed=seed)


def two_level_bootstrap(
    new: ArrayLike, old: ArrayLike, *, level: float = 0.95, draws: int = 4000, seed: int = 0
) -> Estimate:
    """The mean change from `old` to `new`, with an interval that contains both the prompts and the trainings' seeds.

    `new` and `old` are [prompts, seeds] (or [prompts] for a model that was made once), the same prompts in the same
    order; the seeds of the two are not paired. A draw takes prompts anew, the same ones for both, and seeds anew for
    each. Few seeds drawn with replacement vary too little, by the factor (S - 1) / S in the variance, so their
    deviations are widened by its root. One seed says nothing of seeds: then the interval is over prompts alone, and
    `method` says so.

    Source: crossed random effects, A. B. Owen, "The pigeonhole bootstrap" (2007), and the factor from Davison and
    Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.
    """
    _check(level)
    a, b = (np.asarray(x, dtype=float) for x in (new, old))
    a, b = (x[:, None] if x.ndim == 1 else x for x in (a, b))
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"{len(a)} prompts of the new model and {len(b)} of the old one")
    n, method = len(a), "bootstrap over prompts and seeds"
    if a.shape[1] == 1 and b.shape[1] == 1:
        method = "bootstrap over prompts, of one seed"
    if n == 0:
        return Estimate(None, None, None, 0, level, method)
    rng = np.random.default_rng(seed)
    share = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    changes = _drawn_seeds(share @ a, rng) - _drawn_seeds(share @ b, rng)
    low, high = np.quantile(changes, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(a.mean() - b.mean()), float(low), float(high), n, level, method)


def _drawn_seeds(means: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """[draws] means over seeds drawn anew, of [draws, seeds] means over prompts."""
    draws, seeds = means.shape
    centre = means.mean(axis=1)
    if seeds == 1:
        return np.asarray(centre, dtype=float)
    picked = np.take_along_axis(means, rng.integers(0, seeds, size=(draws, seeds)), axis=1).mean(axis=1)
    return np.asarray(centre + (picked - centre) * math.sqrt(seeds / (seeds - 1)), dtype=float)


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The unbiased estimate of the chance that at least one of `k` answers is right, from `n` sampled ones.

    It is 1 - C(n - passed, k) / C(n, k), as a product so that large n does no harm. Raises ValueError for k above n.

    Source: M. Chen et al., "Evaluating large language models trained on code" (2021), equation 1.
    """
    if not (1 <= k <= n and 0 <= passed <= n):
        raise ValueError(f"pass@{k} of {passed} right answers among {n}")
    if n - passed < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - passed + 1, n + 1))


def _prompt_means(values: NDArray[np.float64], prompts: Sequence[str] | None) -> NDArray[np.float64]:
    if prompts is None:
        return values
    if len(prompts) != len(values):
        raise ValueError(f"{len(values)} values and {len(prompts)} prompt names")
    _, index = np.unique(np.asarray(prompts, dtype=str), return_inverse=True)
    count = np.bincount(index)
    return np.asarray(np.bincount(index, weights=values) / count, dtype=float)


def minimum_detectable_difference(n: int, changed: float, *, level: float = 0.95, power: float = 0.8) -> float | None:
    """The smallest true difference of pass rates that n shared prompts show with probability `power`.

    `changed` is the share of prompts on which the two models disagree (at least the difference itself). The
    value solves n = (z_level sqrt(p) + z_power sqrt(p - d^2))^2 / d^2 for d, with p = max(changed, d); None
    when even a difference of 100 points would not be shown.

    Source: R. Connor, "Sample size for testing differences in proportions for the paired-sample design",
    Biometrics 43 (1987).
    """
    _check(level)
    z_level, z_power = float(scipy.stats.norm.ppf((1 + level) / 2)), float(scipy.stats.norm.ppf(power))

    def spare(d: float) -> float:
        p = max(changed, d)
        return n * d * d - (z_level * math.sqrt(p) + z_power * math.sqrt(p - d * d)) ** 2

    return None if spare(1.0) < 0 else float(_root(spare, 1e-9, 1.0))


def _root(f: Callable[[float], float], low: float, high: float) -> float:
    return float(high if f(high) == 0 else scipy.optimize.brentq(f, low, high))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for making several comparisons at once, in the order given.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6 (1979).
    """
    adjusted = [0.0] * len(p_values)
    floor = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = floor
    return adjusted


def _check(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not {level}")
