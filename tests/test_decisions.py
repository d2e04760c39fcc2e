"""Decisions of the loop on planted evaluations and logs, and what the next round asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.config import LoopConfig
from hafs.evals import EvalResult, PromptResult
from hafs.statistics import paired_difference, wilson
from hafs.workflows.loop.ask import plan
from hafs.workflows.loop.decide import (
    Past,
    Signs,
    budget_spent,
    judge_round,
    rounds_done,
    signs_of,
    stop,
    target_reached,
)

LIMITS = LoopConfig()


def evaluated(
    name: str, passed: list[bool], built: list[bool] | None = None, tokens: float = 30, missing: int = 0
) -> EvalResult:
    """A model's answers to as many prompts as `passed` has; the last `missing` are unscored."""
    n = len(passed)
    built = built or [True] * n
    rows = [
        PromptResult(
            str(i),
            passed=None if i >= n - missing else ok,
            reason="the emulator died" if i >= n - missing else "",
            value=float(ok),
            n_tokens=round(tokens) + i % 3,
            details={"assembles": built[i]},
            cause="" if ok else "wrong result",
        )
        for i, ok in enumerate(passed)
    ]
    return EvalResult(name, "decision", tuple(rows), model=name)


def planted(both: int, lost: int, gained: int, neither: int) -> tuple[EvalResult, EvalResult]:
    """(before, after) with so many prompts passed by both, only before, only after, by neither."""
    before = [True] * (both + lost) + [False] * (gained + neither)
    after = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return evaluated("sft", before), evaluated("dpo-1", after)


counts = st.integers(0, 60)


@settings(max_examples=30, deadline=None)
@given(both=counts, lost=counts, gained=counts, neither=st.integers(1, 60))
def test_a_round_is_promoted_when_it_is_at_least_as_good_and_the_reason_has_the_figures(
    both: int, lost: int, gained: int, neither: int
) -> None:
    before, after = planted(both, lost, gained, neither)
    ruling, comparison = judge_round(before, after, Signs(kept=5), LIMITS)
    n = both + lost + gained + neither
    difference = paired_difference(gained, lost, n)
    assert (ruling.action == "promote") == (gained >= lost and not difference.below_zero)
    assert ("worse" in ruling.rules) == difference.below_zero
    assert comparison.overall["dpo-1"].difference == difference
    assert f"of {n} decision prompts" in ruling.reason
    proven = "the whole interval is above zero" in ruling.reason
    assert proven == (ruling.action == "promote" and difference.above_zero)
    assert ("Rolled back to SFT" in ruling.reason) == (ruling.action == "roll back")


@settings(deadline=None)
@given(st.sampled_from([0.0, 0.1, 0.49, 0.51, 2.0]), st.sampled_from([None, 0, 7]))
def test_drift_and_a_training_without_a_better_step_roll_back(kl: float, kept: int | None) -> None:
    before, after = planted(40, 0, 20, 20)
    ruling, _ = judge_round(before, after, Signs(kept=kept, kl=kl), LIMITS)
    assert ("KL" in ruling.rules) == (kl > LIMITS.max_kl)
    assert ("no better step" in ruling.rules) == (kept == 0)
    assert (ruling.action == "roll back") == (kl > LIMITS.max_kl or kept == 0)
    assert ("nats a token" in ruling.reason) == (kl > LIMITS.max_kl)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200))
def test_answers_that_run_away_in_length_roll_back(tokens: int) -> None:
    before = evaluated("sft", [True] * 50, tokens=30)
    after = evaluated("dpo-1", [True] * 50, tokens=tokens)
    ruling, _ = judge_round(before, after, Signs(kept=3), LIMITS)
    drifted = abs(tokens - 30) > 0.5 * (30 + 49 / 50)
    assert (ruling.action, "length" in ruling.rules) == (("roll back", True) if drifted else ("promote", False))
    if drifted:
        assert ("longer" if tokens > 30 else "shorter") in ruling.reason


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60))
def test_fewer_answers_that_assemble_roll_back_even_when_more_pass(broken: int) -> None:
    before = evaluated("sft", [i < 20 for i in range(100)])
    after = evaluated("dpo-1", [i < 40 for i in range(100)], built=[i < 100 - broken for i in range(100)])
    ruling, comparison = judge_round(before, after, Signs(kept=3), LIMITS)
    assert ("fewer assemble" in ruling.rules) == comparison.overall["dpo-1"].builds.below_zero
    assert (ruling.action == "roll back") == (broken > 3), "four lost of a hundred leave out zero"


def test_too_few_scored_answers_do_not_promote() -> None:
    before, _ = planted(40, 0, 0, 60)
    after = evaluated("dpo-1", [True] * 100, missing=30)
    ruling, _ = judge_round(before, after, Signs(kept=3), LIMITS)
    assert (ruling.action, ruling.rules) == ("roll back", ("not as good",))
    assert "Only 70 of 100 prompts were scored" in ruling.reason


# the log


def rows(rates: list[float], accuracies: list[float]) -> list[dict[str, float]]:
    trained = [{"step": i, "loss": 0.5, "kl": 0.01 * i, "rewards/accuracies": a} for i, a in enumerate(accuracies, 1)]
    checked = [{"step": i * 2, "eval/pass_rate": r} for i, r in enumerate(rates)]
    return sorted([*trained, *checked], key=lambda r: r["step"])


def test_overfitting_is_validation_falling_while_training_improves() -> None:
    rising, falling = [0.5, 0.6, 0.8, 0.95], [0.95, 0.8, 0.6, 0.5]
    assert "fell from 60.0% to 20.0%" in signs_of(rows([0.5, 0.6, 0.2], rising), 2, 50).overfits
    assert signs_of(rows([0.5, 0.6, 0.55], rising), 2, 50).overfits == "", "within what 50 prompts can tell"
    assert signs_of(rows([0.5, 0.6, 0.2], falling), 2, 50).overfits == "", "training did not improve"
    losses = [{"step": i, "eval/loss": x} for i, x in enumerate([0.6, 0.5, 0.7])]
    assert "validation loss rose from 0.500 to 0.700" in signs_of([*rows([], rising), *losses], 2, 0).overfits


def test_signs_are_those_of_the_steps_up_to_the_one_that_was_kept() -> None:
    log = rows([], [0.5] * 8)
    assert signs_of(log, 8, 0).kl == pytest.approx(0.075)
    assert signs_of(log, 4, 0).kl == pytest.approx(0.04)
    assert signs_of(log, 0, 0).kl is None
    assert signs_of([], None, 0) == Signs()


# stopping


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    gained, lost = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    return Past("dpo-1", draw(st.booleans()), paired_difference(gained, lost, 100), draw(st.sampled_from(["", "why"])))


@settings(deadline=None)
@given(st.lists(pasts(), max_size=6), st.integers(1, 4), st.sampled_from([0.0, 0.05]))
def test_a_plateau_is_patience_rounds_without_a_gain(past: list[Past], patience: int, least: float) -> None:
    ruling = stop(past, LoopConfig(patience=patience, min_gain=least))
    last = past[-patience:]
    overfit = len(last) == patience and all(p.overfits for p in last)
    gains = [p.promoted and p.gain.low > least for p in last]  # type: ignore[operator]
    flat = len(last) == patience and not any(gains)
    assert (ruling is not None) == (overfit or flat)
    if ruling is not None:
        assert ruling.rules == (("overfitting",) if overfit else ("plateau",))
        assert ruling.action == "stop" and ruling.reason


@settings(deadline=None)
@given(st.integers(0, 100), st.floats(0.01, 1))
def test_the_target_is_the_share_that_the_kept_model_passes(passed: int, wanted: float) -> None:
    ruling = target_reached({"asm": wilson(passed, 100), "other": wilson(0, 9)}, LoopConfig(target={"asm": wanted}))
    assert (ruling is not None) == (passed / 100 >= wanted)
    assert target_reached({"asm": wilson(100, 100)}, LoopConfig()) is None, "no target, no stop"
    both = LoopConfig(target={"asm": wanted, "other": 0.5})
    assert target_reached({"asm": wilson(100, 100), "other": wilson(0, 9)}, both) is None, "every target counts"
    assert target_reached({"asm": wilson(0, 0)}, LoopConfig(target={"asm": wanted})) is None, "nothing scored"


def test_time_money_and_rounds_run_out() -> None:
    limits = LoopConfig(max_minutes=10, budget=2, price_per_hour=1, max_rounds=2)
    assert budget_spent(300, 299, 0.5, 0.5, limits) is None
    time, money = budget_spent(300, 301, 0, 0, limits), budget_spent(0, 0, 1.5, 0.6, limits)
    assert time is not None and time.rules == ("time",) and "5 min 00 s of 10 minutes" in time.reason
    assert money is not None and money.rules == ("money",) and "$1.50 of $2.00" in money.reason
    first = budget_spent(1e9, 0, 0, 0, limits)
    assert first is not None and "a round takes" not in first.reason, "no round was timed"
    assert budget_spent(1e9, 1e9, 1e9, 1e9, LoopConfig()) is None, "no limit, no stop"
    assert rounds_done(1, limits) is None and rounds_done(2, limits) is not None


# what the next round asks

shares = st.dictionaries(
    st.sampled_from("abcdefgh"), st.integers(1, 30).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
)


@settings(deadline=None)
@given(shares, st.integers(0, 300))
def test_prompts_go_where_answers_fail_and_more_answers_where_both_kinds_are_likely(
    failed: dict[str, tuple[int, int]], n: int
) -> None:
    known = {f: (k / m, m) for f, (k, m) in failed.items()}
    asks = plan(known, "abcdefgh", n, 4, 9)
    assert [a.family for a in asks] == list("abcdefgh") and sum(a.prompts for a in asks) == n
    assert asks == plan(dict(reversed(known.items())), "hgfedcba", n, 4, 9), "the order plays no part"
    for a in asks:
        drawn = (a.failed * a.n + 1) / (a.n + 2)
        assert a.candidates == (9 if 0.2 <= 1 - drawn <= 0.8 else 4)
        for b in asks:
            if a.n == b.n and a.failed > b.failed:
                assert a.prompts >= b.prompts
    solved = plan({"a": (0.0, 20), "b": (1.0, 20)}, "ab", 44, 4, 9)
    assert [(a.prompts, a.candidates) for a in solved] == [(2, 4), (42, 4)], "a solved family is still asked a little"


def test_the_name_of_the_reference_is_in_the_reason() -> None:
    before, after = planted(10, 30, 0, 10)
    ruling, _ = judge_round(replace(before, name="dpo-1"), replace(after, name="dpo-2"), Signs(kept=3), LIMITS)
    assert ruling.reason.startswith("DPO 2 passes 20.0% of 50 decision prompts, DPO 1 80.0%")
    assert "Rolled back to DPO 1: it is worse by the paired test" in ruling.reason
