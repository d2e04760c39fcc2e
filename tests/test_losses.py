"""Losses: each against its formula written out, soft labels, weights, ties, and what the registry promises."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs import registry
from hafs.errors import UsageError
from hafs.training.losses import Edges, Strength, plackett_luce, tiers_of
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import TokenGroup, shared_row
from hafs.types import Edge

NAMES = registry.names("losses")
COMPARING = [n for n in NAMES if registry.load("losses", n).kind != "one-sided"]
PAIRWISE = [n for n in NAMES if registry.load("losses", n).kind == "pairwise"]
number = st.floats(-8, 8)


def edges(winner: float, loser: float, p: float = 1.0, lengths: tuple[int, int] = (3, 5)) -> Edges:
    """One edge whose reference log-probabilities are -4 and -6."""
    values = (winner, loser, -4.0, -6.0, *map(float, lengths), p)
    return Edges(*(torch.tensor([v], dtype=torch.float64) for v in values))


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def held(mean: float) -> float:
    """A mean log-probability, which is below 0."""
    return min(mean, -1e-6)


def log_odds(mean: float) -> float:
    return mean - math.log(-math.expm1(mean))


FORMULAS: dict[str, Any] = {
    "sigmoid": lambda w, x, b: -math.log(sigma(b * ((w + 4) - (x + 6)))),
    "sigmoid_norm": lambda w, x, b: -math.log(sigma(b * ((w + 4) / 3 - (x + 6) / 5))),
    "robust": lambda w, x, b: -math.log(sigma(b * ((w + 4) - (x + 6)))),
    "ipo": lambda w, x, b: ((w + 4) / 3 - (x + 6) / 5 - 1 / (2 * b)) ** 2,
    "hinge": lambda w, x, b: max(0.0, 1 - b * ((w + 4) - (x + 6))),
    "apo_zero": lambda w, x, b: 1 - sigma(b * (w + 4)) + sigma(b * (x + 6)),
    "orpo": lambda w, x, b: -held(w / 3) - b * math.log(sigma(log_odds(held(w / 3)) - log_odds(held(x / 5)))),
    "simpo": lambda w, x, b: -math.log(sigma(b * (w / 3 - x / 5) - 0.5)),
}


@pytest.mark.parametrize("name", PAIRWISE)
@given(number, number, st.sampled_from([0.1, 0.3, 2.0]))
def test_a_sure_edge_is_the_papers_formula(name: str, winner: float, loser: float, beta: float) -> None:
    got = registry.load("losses", name)(edges(winner, loser), Strength(beta))
    assert float(got) == pytest.approx(FORMULAS[name](winner, loser, beta), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", [n for n in PAIRWISE if n not in ("ipo", "simpo")])
@given(number, number, st.floats(0, 1))
def test_a_doubtful_edge_is_the_mean_of_both_directions(name: str, a: float, b: float, p: float) -> None:
    loss, strength = registry.load("losses", name), Strength(0.3)
    sure = edges(a, b)
    turned = Edges(
        sure.loser, sure.winner, sure.loser_ref, sure.winner_ref, sure.loser_length, sure.winner_length, sure.p
    )
    want = p * loss(sure, strength) + (1 - p) * loss(turned, strength)
    torch.testing.assert_close(loss(edges(a, b, p), strength), want)


@given(number, number)
def test_a_coin_toss_weighs_both_directions_of_simpo_alike(a: float, b: float) -> None:
    e, margin = edges(a, b, 0.5), a / 3 - b / 5
    want = -0.5 * math.log(sigma(2 * margin - 0.5)) - 0.5 * math.log(sigma(0.5 - 2 * margin))
    assert float(registry.load("losses", "simpo")(e, Strength(2.0, gamma=0.5))) == pytest.approx(want)


@given(number, number)
def test_a_coin_toss_is_pulled_to_no_margin_by_ipo(a: float, b: float) -> None:
    e = edges(a, b, 0.5)
    torch.testing.assert_close(registry.load("losses", "ipo")(e, Strength(0.1)), e.margin_per_token**2)


@given(number, number, st.floats(0, 0.4))
def test_robust_undoes_flips_in_the_mean(a: float, b: float, rate: float) -> None:
    """A share `rate` of the labels flipped, the mean of the robust loss is the clean loss."""
    loss, clean = registry.load("losses", "robust"), registry.load("losses", "sigmoid")(edges(a, b), Strength(0.2))
    noisy = Strength(0.2, smoothing=rate)
    mean = (1 - rate) * loss(edges(a, b, 1.0), noisy) + rate * loss(edges(a, b, 0.0), noisy)
    torch.testing.assert_close(mean, clean)


@settings(max_examples=40, deadline=None)
@given(st.lists(number, min_size=2, max_size=5), st.data())
def test_plackett_luce_is_the_sum_over_all_orders_that_agree(scores: list[float], data: Any) -> None:
    n = len(scores)
    level = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    tiers = [[i for i in range(n) if level[i] == k] for k in sorted(set(level))]
    s = torch.tensor(scores, dtype=torch.float64)

    def probability(order: tuple[int, ...]) -> float:
        return math.prod(float(torch.softmax(s[list(order[k:])], 0)[0]) for k in range(n))

    agreeing = sum(probability(order) for order in permutations(range(n)) if [level[i] for i in order] == sorted(level))
    assert float(plackett_luce(s, tiers)) == pytest.approx(-math.log(agreeing), rel=1e-8, abs=1e-9)


@given(number, number)
def test_plackett_luce_of_two_is_the_sigmoid_loss(a: float, b: float) -> None:
    rewards = 0.3 * torch.tensor([a + 4, b + 6], dtype=torch.float64)
    want = registry.load("losses", "sigmoid")(edges(a, b), Strength(0.3))[0]
    torch.testing.assert_close(plackett_luce(rewards, [[0], [1]]), want)


def test_tiers_of_edges() -> None:
    ranking = [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]  # 0 > 1 = 2 > 3
    assert tiers_of(ranking, 5) == [[0], [1, 2], [3]]
    assert tiers_of([(2, 0)], 3) == [[2], [0]]
    assert tiers_of([(0, 1), (1, 2), (2, 0)], 3) == [[0, 1, 2]]
    assert tiers_of([], 3) == []
    assert tiers_of([(0, 1)], 4, [(1, 3)]) == [[0], [1, 3]] and tiers_of([], 3, [(0, 2)]) == [[0, 2]]
    assert tiers_of([(0, 1), (2, 3)], 4, [(1, 2)]) == [[0], [1, 2], [3]]
    assert tiers_of([(0, 1)], 2, [(0, 1)]) == [[0, 1]]


def row_and_logps(*groups: TokenGroup) -> tuple[Any, torch.Tensor]:
    row = shared_row(groups)
    return row, torch.linspace(-3, -0.2, len(row.labels), dtype=torch.float64).requires_grad_()


GROUP = TokenGroup((1, 2), ((3, 4, 5), (6,), (7, 8)), (Edge(0, 1), Edge(0, 2, 0.5), Edge(1, 2, 2.0, 0.8)))


@pytest.mark.parametrize("name", COMPARING)
def test_every_loss_goes_down_its_own_gradient(name: str) -> None:
    row, logps = row_and_logps(GROUP)
    objective = PreferenceObjective(loss=name, beta=0.3)
    reference = torch.full((3,), -2.0, dtype=torch.float64)
    loss, metrics = objective.loss(logps, reference, row)
    (slope,) = torch.autograd.grad(loss, logps)
    lower, _ = objective.loss((logps - 1e-3 * slope).detach(), reference, row)
    assert float(lower) < float(loss)
    assert metrics["loss"][0] == pytest.approx(float(loss))
    assert objective.uses_reference == (name not in ("simpo", "orpo"))


@pytest.mark.parametrize("name", COMPARING)
def test_the_scale_of_weights_and_the_number_of_edges_do_not_matter(name: str) -> None:
    row, logps = row_and_logps(GROUP)
    heavier = TokenGroup(
        GROUP.prompt, GROUP.candidates, tuple(Edge(e.winner, e.loser, 7 * e.weight, e.p) for e in GROUP.edges)
    )
    objective, reference = PreferenceObjective(loss=name), torch.zeros(3, dtype=torch.float64)
    same = objective.loss(logps, reference, shared_row([heavier]))[0] / objective.normaliser([heavier])
    torch.testing.assert_close(objective.loss(logps, reference, row)[0] / objective.normaliser([GROUP]), same)


@pytest.mark.parametrize("name", COMPARING)
def test_a_group_pulls_as_its_edges_weigh(name: str) -> None:
    """A group of weight 5 beside one of weight 1 does what the same group five times would."""
    even = TokenGroup(GROUP.prompt, GROUP.candidates, tuple(Edge(e.winner, e.loser, 1.0, e.p) for e in GROUP.edges))
    heavy = TokenGroup(GROUP.prompt, GROUP.candidates, tuple(Edge(e.winner, e.loser, 5.0, e.p) for e in GROUP.edges))
    other = TokenGroup((1, 2), ((3, 4, 5), (6,)), (Edge(0, 1),))
    objective = PreferenceObjective(loss=name)

    def step(groups: list[TokenGroup]) -> float:
        total = 0.0
        for group in groups:
            _, logps = row_and_logps(group)
            reference = torch.zeros(len(group.candidates), dtype=torch.float64)
            total += float(objective.loss(logps, reference, shared_row([group]))[0])
        return total / objective.normaliser(groups)

    assert step([heavy, other]) == pytest.approx(step([even] * 5 + [other]))
    assert step([heavy, other]) != pytest.approx(step([even, other]))


def test_tokens_beyond_the_shorter_answer_weigh_ld_alpha() -> None:
    row, logps = row_and_logps(TokenGroup((1, 2), ((3, 4, 5), (6,)), (Edge(0, 1),)))
    a, b, c, d = logps.tolist()
    reference = torch.tensor([-1.0, -0.5, -0.25, -2.0], dtype=torch.float64)
    objective = PreferenceObjective(beta=0.5, ld_alpha=0.25)
    assert objective.reference_by_token
    margin = (a + 0.25 * (b + c)) - (-1.0 + 0.25 * (-0.75)) - (d + 2.0)
    loss, metrics = objective.loss(logps, reference, row)
    assert float(loss) == pytest.approx(-math.log(sigma(0.5 * margin)))
    assert metrics["logps/chosen"][0] == pytest.approx(a + b + c)  # what is reported is the plain sum
    whole = PreferenceObjective(beta=0.5, ld_alpha=1.0)
    plain = whole.loss(logps, row.sums(reference), row)[0]
    almost = PreferenceObjective(beta=0.5, ld_alpha=1 - 1e-9).loss(logps, reference, row)[0]
    torch.testing.assert_close(almost, plain)


def test_unknown_losses_and_settings_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="there is no loss named 'dpop'"):
        PreferenceObjective(loss="dpop")
    with pytest.raises(UsageError, match="ld_alpha compares two answers"):
        PreferenceObjective(loss="plackett_luce", ld_alpha=0.5)
