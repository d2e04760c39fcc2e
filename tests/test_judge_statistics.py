"""The numbers behind a judge: equal to the libraries that have them, and true to their promises in simulations."""

from __future__ import annotations

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import binom

from hafs.statistics import (
    LabelledMargins,
    Rows,
    bootstrap_mean,
    bradley_terry,
    brier,
    certify,
    clopper_pearson,
    cohen_kappa,
    cross_fitted,
    exceeds,
    expected_calibration_error,
    krippendorff_alpha,
    plackett_luce,
    ppi_logistic,
    ppi_mean,
    prompts_needed,
    symmetric_platt,
)

DRAWS = 2000
Pair = tuple[float, float]


# ---- agreement


@settings(deadline=None)  # the first call imports statsmodels
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40))
def test_kappa_is_that_of_statsmodels(pairs: list[tuple[int, int]]) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    table = np.zeros((4, 4))
    for a, b in pairs:
        table[a, b] += 1
    mine = cohen_kappa(pairs)
    if mine is not None:
        assert mine == pytest.approx(cohens_kappa(table, return_results=False))
    else:
        assert len({x for pair in pairs for x in pair}) == 1


@pytest.mark.parametrize("metric", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(6))
def test_alpha_is_that_of_krippendorff_with_gaps(metric: str, seed: int) -> None:
    import krippendorff

    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, 30)
    ratings = np.where(rng.random((4, 30)) < 0.6, truth, rng.integers(0, 5, (4, 30))).astype(float)
    ratings[rng.random((4, 30)) < 0.35] = np.nan
    units = [{str(r): x for r, x in enumerate(column) if not np.isnan(x)} for column in ratings.T]
    theirs = krippendorff.alpha(reliability_data=ratings, level_of_measurement=metric)
    assert krippendorff_alpha(units, metric) == pytest.approx(theirs)


def test_alpha_without_anything_to_compare() -> None:
    assert krippendorff_alpha([{"a": 1}, {"b": 2}]) is None
    assert krippendorff_alpha([{"a": 1, "b": 1}]) is None
    with pytest.raises(ValueError, match="metric"):
        krippendorff_alpha([], "ratio")


# ---- strengths


@pytest.mark.parametrize("seed", range(5))
def test_bradley_terry_is_that_of_choix(seed: int) -> None:
    import choix

    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 4, (5, 5))
    np.fill_diagonal(wins, 0)
    data = [(i, j) for i in range(5) for j in range(5) for _ in range(wins[i, j])]
    mine = bradley_terry(wins, penalty=0.3)
    assert mine.values == pytest.approx(choix.opt_pairwise(5, data, alpha=0.15, tol=1e-12), abs=1e-6)
    assert mine.values.sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_bradley_terry_with_ties_and_its_errors_are_those_of_a_conditional_logit(seed: int) -> None:
    """Davidson's model is a choice among win, tie and loss; the third item's strength is pinned to 0."""
    from statsmodels.discrete.conditional_models import ConditionalLogit

    rng = np.random.default_rng(seed)
    wins, ties = rng.integers(3, 9, (3, 3)), np.zeros((3, 3))
    np.fill_diagonal(wins, 0)
    rows, chosen, group = [], [], []
    for i, j in combinations(range(3), 2):
        ties[i, j] = ties[j, i] = rng.integers(2, 6)
        for outcome, count in enumerate((wins[i, j], ties[i, j], wins[j, i])):
            for _ in range(int(count)):
                number = len(group) // 3
                for option, sign in enumerate((0.5, 0.0, -0.5)):
                    row = np.zeros(3)
                    row[[i, j]] = sign, -sign
                    rows.append([row[0], row[1], float(option == 1)])
                    chosen.append(int(option == outcome))
                    group.append(number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ConditionalLogit(np.array(chosen), np.array(rows), groups=np.array(group)).fit(disp=0)
    mine = bradley_terry(wins, ties, penalty=1e-9)
    for at, (i, j) in enumerate([(0, 2), (1, 2)]):
        difference, error = mine.difference(i, j)
        assert difference == pytest.approx(theirs.params[at], abs=1e-3)  # its optimiser stops early
        assert error == pytest.approx(theirs.bse[at], rel=1e-3)
    assert mine.log_tie == pytest.approx(theirs.params[2], abs=1e-3)
    win, tie, loss = mine.probabilities(0, 1)
    assert win + tie + loss == pytest.approx(1)
    assert win / loss == pytest.approx(np.exp(mine.difference(0, 1)[0]))


@pytest.mark.parametrize("seed", range(5))
def test_plackett_luce_is_that_of_choix(seed: int) -> None:
    import choix

    rng = np.random.default_rng(seed)
    partial = [rng.permutation(6)[: rng.integers(2, 7)].tolist() for _ in range(12)]
    mine = plackett_luce([[[i] for i in r] for r in partial], 6, penalty=0.4)
    assert mine.values == pytest.approx(choix.opt_rankings(6, partial, alpha=0.2, tol=1e-12), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_plackett_luce_with_ties_and_its_errors_are_those_of_a_stratified_cox_regression(seed: int) -> None:
    from statsmodels.duration.hazard_regression import PHReg

    rng = np.random.default_rng(seed)
    rankings, times, items, strata = [], [], [], []
    for n in range(25):
        places = rng.integers(0, 3, 4)  # three tiers at most
        rankings.append([np.flatnonzero(places == p).tolist() for p in range(3) if (places == p).any()])
        times += (places + 1).tolist()
        items += range(4)
        strata += [n] * 4
    design = np.eye(4)[items][:, :3]  # the last item is pinned to 0
    theirs = PHReg(np.array(times), design, strata=np.array(strata), ties="breslow").fit(disp=0)
    mine = plackett_luce(rankings, 4, penalty=1e-9)
    for i in range(3):
        difference, error = mine.difference(i, 3)
        assert difference == pytest.approx(theirs.params[i], abs=1e-4)
        assert error == pytest.approx(theirs.bse[i], rel=1e-3)


def test_strengths_refuse_what_makes_no_sense() -> None:
    for wins, ties in (([[0, -1], [0, 0]], None), ([[0, 1]], None), ([[0, 1], [0, 0]], [[0, 1], [0, 0]])):
        with pytest.raises(ValueError):
            bradley_terry(wins, ties)
    with pytest.raises(ValueError, match="twice"):
        plackett_luce([[[0], [1, 0]]], 2)
    with pytest.raises(ValueError, match="penalty"):
        bradley_terry([[0, 1], [0, 0]], penalty=0)
    assert plackett_luce([], 3).values == pytest.approx([0, 0, 0])


def test_the_prior_that_the_judge_uses_gives_two_agreeing_verdicts_74_percent() -> None:
    assert expit(bradley_terry([[0, 2], [0, 0]]).difference(0, 1)[0]) == pytest.approx(0.74, abs=0.005)


# ---- prediction-powered inference


def ppi_data(rng: np.random.Generator, n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of n items (a rate of 0.6) and a judge's guesses of them and of m more; the judge is biased upwards."""
    y = (rng.random(n + m) < 0.6).astype(float)
    guess = np.where(rng.random(n + m) < 0.7, y, rng.random(n + m) < 0.8)
    return y[:n], guess[:n], guess[n:]


@pytest.mark.parametrize("power", [None, 0.0, 0.5, 1.0])
def test_ppi_mean_is_that_of_ppi_python(power: float | None) -> None:
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

    y, f, g = ppi_data(np.random.default_rng(1), 80, 500)
    e, used = ppi_mean(y, f, g, power=power)
    low, high = (float(x.item()) for x in ppi_mean_ci(y, f, g, alpha=0.05, lam=power))
    assert (e.low, e.high) == (pytest.approx(low, abs=0.015), pytest.approx(high, abs=0.015)), "exact, theirs is normal"
    assert e.value == pytest.approx(np.asarray(ppi_mean_pointestimate(y, f, g, lam=power)).item())
    w, v = np.random.default_rng(2).random(80) + 0.1, np.random.default_rng(3).random(500) + 0.1
    weighted, used = ppi_mean(y, f, g, weights=w, weights_elsewhere=v, power=power)
    theirs = ppi_mean_pointestimate(y, f, g, lam=used, w=w, w_unlabeled=v)
    assert weighted.value == pytest.approx(np.asarray(theirs).item())
    scaled, _ = ppi_mean(y, f, g, weights=7 * w, weights_elsewhere=3 * v, power=power)
    assert (scaled.value, scaled.low) == (pytest.approx(weighted.value), pytest.approx(weighted.low))


@pytest.mark.parametrize("power", [0.6, None])
def test_ppi_logistic_is_that_of_ppi_python(power: float | None) -> None:
    from ppi_py import ppi_logistic_ci, ppi_logistic_pointestimate

    rng = np.random.default_rng(4)
    x = np.column_stack([np.ones(360), rng.normal(size=360)])
    y = (rng.random(360) < expit(x @ [0.4, 0.8])).astype(float)
    f = np.clip(0.8 * y + 0.3 * rng.random(360), 0, 1)
    here, away = slice(0, 100), slice(100, 360)
    mine = ppi_logistic(
        y[here], Rows.of(x[here], f[here], None, None), Rows.of(x[away], f[away], None, None), power=power
    )
    given = (x[here], y[here], f[here], x[away], f[away])
    assert mine.coefficients == pytest.approx(ppi_logistic_pointestimate(*given, lam=mine.power), abs=1e-5)
    low, high = ppi_logistic_ci(*given, alpha=0.05, lam=mine.power)
    half = 1.959964 * np.sqrt(np.diag(mine.covariance))
    assert mine.coefficients - half == pytest.approx(low, abs=2e-4)
    assert mine.coefficients + half == pytest.approx(high, abs=2e-4)
    if power is None:
        assert 0.3 < mine.power < 1


def test_logistic_regression_by_clusters_is_that_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 2))
    y = (rng.random(300) < expit(x @ [0.5, -1.0])).astype(float)
    clusters = np.repeat(np.arange(100), 3)
    mine = ppi_logistic(y, Rows.of(x, y, None, clusters.tolist()))
    model = sm.GLM(y, x, family=sm.families.Binomial())
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    assert mine.coefficients == pytest.approx(theirs.params)
    assert mine.covariance == pytest.approx(theirs.cov_params() * 100 / 99)
    with pytest.raises(ValueError, match="cannot be told"):
        ppi_logistic(np.ones(4), Rows.of(np.ones((4, 1)), np.ones(4), None, None))


@pytest.mark.parametrize("n", [100, 200])
def test_ppi_covers_and_is_narrower_than_the_labels_alone(n: int) -> None:
    rng = np.random.default_rng(n)
    hits, width, plain = 0, 0.0, 0.0
    for _ in range(DRAWS):
        y, f, g = ppi_data(rng, n, 600)
        e, _ = ppi_mean(y, f, g)
        alone, _ = ppi_mean(y, f, [])
        assert e.low is not None and e.high is not None and alone.low is not None and alone.high is not None
        hits += e.low <= 0.6 <= e.high
        width += e.high - e.low
        plain += alone.high - alone.low
    assert 0.93 <= hits / DRAWS <= 0.97
    assert width < 0.85 * plain


def test_weighted_ppi_covers_when_the_hard_items_were_picked() -> None:
    rng = np.random.default_rng(8)
    hits = naive = 0
    for _ in range(DRAWS // 2):
        hard = rng.random(700) < 0.4
        y = (rng.random(700) < np.where(hard, 0.3, 0.8)).astype(float)  # 0.6 over all
        guess = np.where(rng.random(700) < 0.75, y, 1.0)
        p = np.where(hard, 0.3, 0.1)
        here = rng.random(700) < p
        e, _ = ppi_mean(y[here], guess[here], guess[~here], weights=1 / p[here], weights_elsewhere=1 / (1 - p[~here]))
        plain, _ = ppi_mean(y[here], guess[here], guess[~here])
        assert e.low is not None and e.high is not None and plain.low is not None and plain.high is not None
        hits += e.low <= 0.6 <= e.high
        naive += plain.low <= 0.6 <= plain.high
    assert 0.93 <= hits / (DRAWS // 2) <= 0.97
    assert naive / (DRAWS // 2) < 0.9, "what the weights are for"


@pytest.mark.parametrize("n", [12, 20, 60])
@pytest.mark.parametrize("rate", [0.5, 0.7, 0.9, 0.95, 0.99])
def test_rates_from_few_labels_are_covered_at_every_rate(rate: float, n: int) -> None:
    """A good judge, a biased one, and one that is always right: the interval has a width and lies within 0 and 1."""
    rng = np.random.default_rng(n)
    draws = 200
    for judge in ((0.93, 0.93), (0.98, 0.3), (1.0, 1.0)):
        hits = 0
        for _ in range(draws):
            y = (rng.random(n + 100) < rate).astype(float)
            right = rng.random(n + 100) < np.where(y == 1, *judge)
            guess = np.where(right, y, 1 - y)
            e, _ = ppi_mean(y[:n], guess[:n], guess[n:])
            assert e.low is not None and e.high is not None and 0 <= e.low < e.high <= 1
            hits += e.low <= rate <= e.high
        assert hits / draws >= 0.93
    alone = [ppi_mean([1.0] * k + [0.0] * (n - k), [0.0] * n, [])[0] for k in range(n + 1)]
    chance = binom.pmf(np.arange(n + 1), n, rate)
    assert sum(p for e, p in zip(alone, chance, strict=True) if (e.low or 0) <= rate <= (e.high or 0)) >= 0.95


def test_ppi_without_labels_or_predictions() -> None:
    assert ppi_mean([], [], [1.0])[0].value is None
    e, power = ppi_mean([0.0, 1.0, 1.0], [1.0, 1.0, 1.0], [])
    assert (e.value, power) == (pytest.approx(2 / 3), 0.0)
    many = [0.0, 1.0] * 8
    assert ppi_mean(many, [1.0] * 16, [1.0])[1] == 0.0, "constant predictions say nothing"
    assert ppi_mean([0.0] * 7 + [1.0] * 40, [0.0] * 7 + [1.0] * 40, [1.0] * 9)[0].method == "Clopper-Pearson"
    sure = ppi_mean([1.0] * 12, [1.0] * 12, [1.0] * 500)[0]
    assert sure.low == pytest.approx(clopper_pearson(12, 12).low) and sure.high == 1.0
    with pytest.raises(ValueError):
        ppi_mean([1.0], [], [])
    with pytest.raises(ValueError, match="between 0 and 1"):
        ppi_mean([2.0], [1.0], [])


# ---- calibrated probabilities


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-4, 4), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30))
def test_a_swapped_pair_gets_the_other_probability(rows: list[Pair]) -> None:
    m, t = np.array(rows).T
    slope = symmetric_platt(m, t)
    assert symmetric_platt(-m, 1 - t) == pytest.approx(slope)
    flip = np.random.default_rng(0).random(len(m)) < 0.5
    assert symmetric_platt(np.where(flip, -m, m), np.where(flip, 1 - t, t)) == pytest.approx(slope)
    assert slope >= 0


def test_platt_is_a_logistic_regression_without_intercept() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    m = rng.normal(size=400)
    t = (rng.random(400) < expit(1.7 * m)).astype(float)
    drawn = t + (1 - 2 * t) / 402
    theirs = sm.GLM(drawn, m, family=sm.families.Binomial()).fit()
    assert symmetric_platt(m, t) == pytest.approx(theirs.params[0], abs=1e-6)
    assert symmetric_platt(m, 1 - t) == 0.0, "a judge that is wrong more often than right says nothing"
    assert np.isfinite(symmetric_platt(np.abs(m), np.ones(400))), "perfect agreement has a finite slope"
    assert symmetric_platt([], []) == 0.0


def test_cross_fitting_holds_whole_prompts_out_and_calibrates() -> None:
    rng = np.random.default_rng(1)
    prompts = [f"p{i // 4}" for i in range(1200)]
    m = rng.normal(size=1200) * 2
    t = (rng.random(1200) < expit(0.4 * m)).astype(float)
    p = cross_fitted(m, t, prompts)
    changed = t.copy()
    changed[:4] = 1 - changed[:4]  # the labels of one prompt
    assert cross_fitted(m, changed, prompts)[:4] == pytest.approx(p[:4]), "its own labels do not move its probability"
    side = np.where(m > 0, p, 1 - p), np.where(m > 0, t, 1 - t)
    raw = expit(np.abs(m))
    assert (brier(side[0], side[1]) or 1) < (brier(raw, side[1]) or 0)
    assert (expected_calibration_error(*side) or 1) < 0.06 < (expected_calibration_error(raw, side[1]) or 0)
    assert (brier([], []), expected_calibration_error([], [])) == (None, None)


# ---- the certified threshold


def test_the_exact_test_accepts_where_clopper_pearson_does() -> None:
    for n in (11, 12, 40):
        for k in range(n + 1):
            values = np.array([1.0] * k + [0.0] * (n - k))
            low = clopper_pearson(k, n, 0.9).low  # one-sided 95%
            assert low is not None
            assert (exceeds(values, np.ones(n), 0.75, coins=True) <= 0.05) == (low >= 0.75)
    assert exceeds(np.array([]), np.array([]), 0.75) == 1.0


def test_prompts_needed_is_the_least_number_with_that_power() -> None:
    def power(n: int, true: float) -> float:
        least = next(k for k in range(n + 2) if binom.sf(k - 1, n, 0.75) <= 0.05)
        return float(binom.sf(least - 1, n, true))

    for true in (0.85, 0.95):
        n = prompts_needed(0.75, true)
        assert all(power(m, true) >= 0.8 for m in range(n, n + 40)) and power(n - 1, true) < 0.8
    assert prompts_needed(0.75, 1.0) == 11
    with pytest.raises(ValueError):
        prompts_needed(0.75, 0.75)


def population(rng: np.random.Generator, prompts: int, edges: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins (prompts x edges) and the probability that the person agrees; edges of a prompt hang together."""
    margins = rng.gamma(2.0, 0.7, (prompts, edges))
    shift = rng.normal(0, 0.7, (prompts, 1))
    return margins, expit(0.9 * margins + shift)


def true_agreement(margins: np.ndarray, chance: np.ndarray, threshold: float) -> float:
    used = margins >= threshold
    has = used.any(1)
    return float(((chance * used).sum(1)[has] / used.sum(1)[has]).mean())


@pytest.mark.parametrize(("edges", "prompts"), [(1, 150), (6, 80)])
def test_what_is_certified_holds(edges: int, prompts: int) -> None:
    """Agreement crosses the target inside the range of margins, so a threshold can well be chosen wrongly."""
    big = population(np.random.default_rng(99), 40_000, edges)
    rng = np.random.default_rng(edges)
    draws, wrong, found = 200, 0, 0
    for _ in range(draws):
        margins, chance = population(rng, prompts, edges)
        agrees = rng.random(chance.shape) < chance
        names = [str(i) for i in range(prompts) for _ in range(edges)]
        made = certify(LabelledMargins.of(margins.ravel(), agrees.ravel(), names), 0.75)
        if made.threshold is not None:
            found += 1
            wrong += true_agreement(*big, made.threshold) < 0.75
    assert wrong / draws <= 0.05
    assert found / draws > 0.3, "it is of use, too"


def test_what_is_certified_holds_where_the_hard_prompts_were_picked() -> None:
    big = population(np.random.default_rng(99), 40_000, 3)
    rng = np.random.default_rng(3)
    draws, wrong, found = 200, 0, 0
    for _ in range(draws):
        margins, chance = population(rng, 700, 3)
        p = np.clip(0.5 / (1 + margins.mean(1)), 0.05, 0.5)
        here = rng.random(700) < p
        agrees = rng.random((here.sum(), 3)) < chance[here]
        names = [str(i) for i in np.flatnonzero(here) for _ in range(3)]
        weights = {str(i): float(1 / p[i]) for i in np.flatnonzero(here)}
        made = certify(LabelledMargins.of(margins[here].ravel(), agrees.ravel(), names, weights), 0.75)
        if made.threshold is not None:
            found += 1
            wrong += true_agreement(*big, made.threshold) < 0.75
    assert wrong / draws <= 0.05
    assert found / draws > 0.3


def test_nothing_is_certified_of_a_judge_that_tosses_a_coin_or_of_no_labels() -> None:
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(200)]
    found = sum(
        certify(LabelledMargins.of(rng.gamma(2, 1, 200), rng.random(200) < 0.5, names)).threshold is not None
        for _ in range(50)
    )
    assert found == 0
    assert certify(LabelledMargins.of([], [], [])).threshold is None
    sure = certify(LabelledMargins.of(rng.gamma(2, 1, 200), np.ones(200), names))
    assert sure.threshold == pytest.approx(sure.threshold) and sure.agreement == 1.0 and sure.prompts == 200


def test_weighted_bootstrap() -> None:
    names = ["a", "b", "b", "c"]
    e = bootstrap_mean([1.0, 0.0, 1.0, 0.0], names, weights={"a": 2.0, "b": 1.0, "c": 1.0})
    assert e.value == pytest.approx((2 * 1 + 0.5 + 0) / 4)
    assert bootstrap_mean([1.0, 0.0], ["a", "b"], weights={"a": 5.0, "b": 5.0}).value == 0.5
