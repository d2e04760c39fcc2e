"""Intervals keep their promise: published values, symmetries, and coverage measured by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from conftest import DRAWS, nominal
from hafs.statistics import (
    Estimate,
    bootstrap_mean,
    clopper_pearson,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_difference,
    wilson,
    wilson_mean,
)


@st.composite
def changed_prompts(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 400))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


def test_published_values() -> None:
    e = wilson(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I
    assert (e.low, e.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))
    e = clopper_pearson(81, 263)
    assert (e.low, e.high) == (pytest.approx(0.2527, abs=5e-5), pytest.approx(0.3676, abs=5e-5))
    e = paired_difference(1, 7, 21)  # Fagerland, Lydersen and Laake (2014), airway example
    assert (e.low, e.high) == (pytest.approx(-0.517, abs=5e-4), pytest.approx(-0.026, abs=5e-4))
    assert mcnemar(1, 7) == pytest.approx(18 / 256)  # 2 (1 + 8) / 2^8
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize("n", [96, 320])
@pytest.mark.parametrize("rate", [0.48, 0.75, 0.82])
def test_wilson_covers(n: int, rate: float) -> None:
    hits = np.random.default_rng(n).binomial(n, rate, DRAWS)
    ends = {k: wilson(int(k), n) for k in np.unique(hits)}
    assert nominal(sum(ends[k].low <= rate <= ends[k].high for k in hits))


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=60))
def test_the_interval_of_a_mean_share_is_wilsons_for_passes_and_never_empty(shares: list[float]) -> None:
    e = wilson_mean(shares)
    assert 0 <= e.low < e.high <= 1 and e.low - 1e-12 <= e.value <= e.high + 1e-12
    passes = [round(x) for x in shares]
    same = wilson(sum(passes), len(passes))
    assert wilson_mean(passes) == Estimate(
        same.value, pytest.approx(same.low), pytest.approx(same.high), same.n, same.level, same.method
    )
    mirrored = wilson_mean([1 - x for x in shares])
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - e.high), pytest.approx(1 - e.low))


@pytest.mark.parametrize(("n", "win", "loss"), [(96, 0.3, 0.2), (96, 0.15, 0.05), (320, 0.06, 0.03)])
def test_the_win_rate_covers_although_chance_decides_how_many_prompts_decide(n: int, win: float, loss: float) -> None:
    """Win rates and people's preferences: Wilson over the decided prompts, whose number varies too."""
    drawn = np.random.default_rng(n).multinomial(n, [win, loss, 1 - win - loss], DRAWS).tolist()
    ends = {(w, x): wilson(w, w + x) for w, x, _ in map(tuple, drawn) if w + x}
    truth = win / (win + loss)
    assert nominal(sum(ends[w, x].low <= truth <= ends[w, x].high for w, x, _ in drawn if w + x))


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.82, 0.97])
def test_clopper_pearson_covers_at_least_at_its_level(rate: float) -> None:
    n = 60
    ends = [clopper_pearson(k, n) for k in range(n + 1)]
    assert sum(binom.pmf(k, n, rate) for k, e in enumerate(ends) if e.low <= rate <= e.high) >= 0.95


@pytest.mark.parametrize("n", [96, 320])
@pytest.mark.parametrize(("gains", "losses"), [(0.12, 0.05), (0.15, 0.15), (0.3, 0.2), (0.08, 0.03)])
def test_paired_difference_covers(n: int, gains: float, losses: float) -> None:
    drawn = np.random.default_rng(n).multinomial(n, [gains, losses, 1 - gains - losses], DRAWS)
    cache: dict[tuple[int, int], bool] = {}
    for gained, lost, _ in drawn.tolist():
        if (gained, lost) not in cache:
            e = paired_difference(gained, lost, n)
            cache[gained, lost] = e.low <= gains - losses <= e.high
    assert nominal(sum(cache[gained, lost] for gained, lost, _ in drawn.tolist()))


def test_bootstrap_of_a_mean_covers() -> None:
    rng = np.random.default_rng(5)
    lengths = rng.gamma(6.0, 8.0, (DRAWS, 100))  # skewed, like answer lengths; mean 48
    ends = [bootstrap_mean(row, draws=600, seed=i) for i, row in enumerate(lengths)]
    assert nominal(sum(e.low <= 48.0 <= e.high for e in ends))


def test_paired_bootstrap_covers() -> None:
    rng = np.random.default_rng(6)
    old = rng.random((DRAWS, 100))
    new = old + rng.normal(0.05, 0.2, (DRAWS, 100))
    ends = [paired_bootstrap(a, b, draws=600, seed=i) for i, (a, b) in enumerate(zip(new, old, strict=True))]
    assert nominal(sum(e.low <= 0.05 <= e.high for e in ends))


def test_bootstrap_by_prompt_covers_where_single_answers_do_not() -> None:
    """Eight answers a prompt that go together: taking them for independent ones makes the interval far too narrow."""
    rng = np.random.default_rng(7)
    prompts = [str(i // 8) for i in range(80 * 8)]
    naive = clustered = 0
    for i in range(DRAWS):
        values = np.repeat(rng.normal(0, 1, 80), 8) + rng.normal(0, 0.5, 640)
        by_prompt = bootstrap_mean(values, prompts, draws=400, seed=i)
        clustered += by_prompt.low <= 0 <= by_prompt.high
        if i < 200:
            by_answer = bootstrap_mean(values, draws=400, seed=i)
            naive += by_answer.low <= 0 <= by_answer.high
    assert nominal(clustered)
    assert naive / 200 < 0.75


@pytest.mark.parametrize(("n", "changed"), [(96, 0.2), (320, 0.12)])
def test_the_detectable_difference_shows_four_times_in_five(n: int, changed: float) -> None:
    d = minimum_detectable_difference(n, changed)
    assert d is not None
    drawn = np.random.default_rng(8).multinomial(n, [(changed + d) / 2, (changed - d) / 2, 1 - changed], DRAWS)
    seen = {(g, x): paired_difference(g, x, n).above_zero for g, x, _ in set(map(tuple, drawn.tolist()))}
    assert 0.77 <= sum(seen[g, x] for g, x, _ in drawn.tolist()) / DRAWS <= 0.86


def test_the_detectable_difference_shrinks_with_more_prompts() -> None:
    found = [minimum_detectable_difference(n, 0.1) for n in (20, 50, 100, 400, 2000)]
    assert None not in found
    assert found == sorted(found, reverse=True)
    assert minimum_detectable_difference(3, 0.1) is None


@given(changed_prompts())
def test_paired_difference_mirrors_and_agrees_with_mcnemar(case: tuple[int, int, int]) -> None:
    gained, lost, n = case
    e, mirrored = paired_difference(gained, lost, n), paired_difference(lost, gained, n)
    assert -1 <= e.low <= e.value <= e.high <= 1
    assert (e.low, e.high) == (pytest.approx(-mirrored.high, abs=1e-8), pytest.approx(-mirrored.low, abs=1e-8))
    z = float(norm.ppf(0.975))
    score = (gained - lost) ** 2 - z * z * (gained + lost)
    if abs(score) > 1e-6 * n and gained + lost:
        assert (e.above_zero or e.below_zero) == (score > 0)


@given(changed_prompts())
def test_a_higher_level_is_wider(case: tuple[int, int, int]) -> None:
    wide, narrow = paired_difference(*case, level=0.99), paired_difference(*case, level=0.8)
    assert wide.low <= narrow.low + 1e-9
    assert wide.high >= narrow.high - 1e-9


def test_without_data_there_is_no_value() -> None:
    for e in (wilson(0, 0), wilson_mean([]), clopper_pearson(0, 0), paired_difference(0, 0, 0), bootstrap_mean([])):
        assert (e.value, e.low, e.high, e.n) == (None, None, None, 0)
        assert not e.above_zero
        assert not e.below_zero
    assert mcnemar(0, 0) == 1.0


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 successes in 4"):
        wilson(5, 4)
    with pytest.raises(ValueError, match="3 gained and 2 lost of 4"):
        paired_difference(3, 2, 4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson_mean([0.5, 1.5])
    with pytest.raises(ValueError, match="level"):
        wilson(1, 2, level=95)
    with pytest.raises(ValueError, match="2 new values and 1 old"):
        paired_bootstrap([1.0, 2.0], [1.0])


def test_the_bootstrap_repeats_itself_and_counts_prompts_once() -> None:
    values, prompts = [1.0, 0.0, 0.0, 1.0, 1.0], ["a", "a", "a", "b", "c"]
    e = bootstrap_mean(values, prompts)
    assert e == bootstrap_mean(values, prompts)
    assert e.n == 3
    assert e.value == pytest.approx((1 / 3 + 1 + 1) / 3)
