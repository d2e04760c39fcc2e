"""What the loop decides after each round, as pure functions: promote or roll back, go on or stop, always with why.

A round is promoted when its model answers the decision prompts at least as well as the model it began with (the rules
are those of `hafs.evals.compare`), and neither its answers' length nor its distance from the reference has run away.
The loop stops at its target, when rounds bring no gain, when they overfit, or when time or money is spent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hafs.config import LoopConfig
from hafs.evals import Comparison, EvalResult, compare
from hafs.evals.words import interval, model_title, percent, points, seconds, title
from hafs.statistics import Estimate, wilson
from hafs.tasks.domain import build_verb

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Signs:
    """What a round's training log says up to the step whose weights were `kept` (of `steps`); None where it is silent.

    `kl` (nats a token) and `margin` (nats) are means over the last quarter of those steps; `chosen` and `rejected`
    the log-probabilities of the answers (nats, summed over tokens) there. `overfits` says in words how validation fell
    while training improved, or is empty.
    """

    kept: int | None = None
    steps: int = 0
    kl: float | None = None
    margin: float | None = None
    chosen: float | None = None
    rejected: float | None = None
    overfits: str = ""


@dataclass(frozen=True)
class Ruling:
    """What was decided: the action, the rules that decided it, and the reason in words."""

    action: Literal["promote", "roll back", "stop"]
    rules: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Past:
    """What stopping looks at in a round that is over.

    `gain` is the paired change of the pass rate on the decision prompts, `overfits` as in `Signs`.
    """

    name: str
    promoted: bool
    gain: Estimate
    overfits: str = ""


def signs_of(rows: Rows, kept: int | None, checkpoint_prompts: int) -> Signs:
    """The signs in a training log; `checkpoint_prompts` is how many prompts its "eval/pass_rate" rests on."""
    trained = [r for r in rows if "loss" in r]
    until = [r for r in trained if kept is None or r["step"] <= kept]

    def late(name: str) -> float | None:
        values = [float(r[name]) for r in until if name in r]
        tail = values[-max(1, len(values) // 4) :]
        return sum(tail) / len(tail) if tail else None

    return Signs(
        kept,
        int(trained[-1]["step"]) if trained else 0,
        late("kl"),
        late("rewards/margins"),
        late("logps/chosen"),
        late("logps/rejected"),
        _overfits(rows, checkpoint_prompts),
    )


def _overfits(rows: Rows, n: int) -> str:
    """Validation fell clearly below its best while pairs of the training data were ordered better and better."""
    ordered = [float(r["rewards/accuracies"]) for r in rows if "rewards/accuracies" in r]
    quarter = max(1, len(ordered) // 4)
    first, last = sum(ordered[:quarter]) / quarter, sum(ordered[-quarter:]) / quarter
    if not ordered or last < first:
        return ""
    better = f"training pairs ordered right went from {percent(first)} to {percent(last)}"
    rates = [float(r["eval/pass_rate"]) for r in rows if "eval/pass_rate" in r]
    if len(rates) > 1 and n:
        low = wilson(round(max(rates) * n), n).low
        if low is not None and rates[-1] < low:
            return (
                f"{better}, while the pass rate on {n} validation prompts fell from {percent(max(rates))} to "
                f"{percent(rates[-1])}"
            )
    losses = [float(r["eval/loss"]) for r in rows if "eval/loss" in r]
    if not rates and len(losses) > 2 and losses[-1] > 1.05 * min(losses):
        return f"{better}, while the validation loss rose from {min(losses):.3f} to {losses[-1]:.3f}"
    return ""


def judge_round(
    before: EvalResult, after: EvalResult, signs: Signs, limits: LoopConfig, level: float = 0.95
) -> tuple[Ruling, Comparison]:
    """Promote the round's model or roll back to the one it began with; both evaluated on the decision prompts.

    Every rule that speaks against the round is named. Raises what `compare` raises.
    """
    comparison = compare({before.name: [before], after.name: [after]}, before.name, level=level)
    pair, new, old = comparison.overall[after.name], model_title(after.name), model_title(before.name)
    figures = (
        f"{new} passes {percent(pair.rate.value)} of {pair.rate.n} decision prompts, {old} "
        f"{percent(pair.reference_rate.value)}: {points(pair.difference.value)} points "
        f"({interval(pair.difference, change=True)})"
    )
    against: dict[str, str] = {}
    if signs.kept == 0:
        against["no better step"] = "no step of its training was better than the model it began with"
    if pair.builds.below_zero:
        against[f"fewer {build_verb()}"] = f"fewer of its answers {build_verb()} ({points(pair.builds.value)} points)"
    if pair.difference.below_zero:
        against["worse"] = "it is worse by the paired test"
    if length := _length_drift(before, after, comparison, limits.max_length_growth):
        against["length"] = length
    if signs.kl is not None and signs.kl > limits.max_kl:
        against["KL"] = f"it moved {signs.kl:.2f} nats a token from its reference (limit {limits.max_kl:g})"
    if not against and not comparison.promote:
        against["not as good"] = comparison.reason.partition(", so ")[0]
    if against:
        return Ruling(
            "roll back", tuple(against), f"{figures}. Rolled back to {old}: {'; '.join(against.values())}."
        ), comparison
    proven = "the whole interval is above zero" if pair.verdict == "better" else "at least as good, not proven better"
    return Ruling("promote", ("at least as good",), f"{figures}. Promoted: {proven}."), comparison


def _length_drift(before: EvalResult, after: EvalResult, comparison: Comparison, limit: float) -> str:
    """How answers grew or shrank beyond the limit, the whole interval of the change being on that side; or ""."""
    change = comparison.overall[after.name].tokens
    known = [r.n_tokens for r in before.results if r.n_tokens is not None]
    if not known or change.value is None or change.low is None or change.high is None:
        return ""
    mean = max(1.0, sum(known) / len(known))
    if abs(change.value) <= limit * mean or change.low <= 0 <= change.high:
        return ""
    word = "longer" if change.value > 0 else "shorter"
    return f"its answers are {percent(abs(change.value) / mean)} {word} (limit {percent(limit)})"


def target_reached(rates: Mapping[str, Estimate], limits: LoopConfig) -> Ruling | None:
    """Stop when the promoted model's pass rate is at every target; `rates` has one for each benchmark named there."""
    wanted = limits.target
    missed = [b for b, share in wanted.items() if (value := rates[b].value) is None or value < share]
    if not wanted or missed:
        return None
    said = "; ".join(
        f"{percent(rates[b].value)} on {title(b)} ({interval(rates[b])}) against {percent(share)} wanted"
        for b, share in wanted.items()
    )
    return Ruling("stop", ("target reached",), f"The target is reached: {said}.")


def stop(past: Sequence[Past], limits: LoopConfig) -> Ruling | None:
    """Stop when the last `patience` rounds overfit, or brought no gain; None to go on."""
    last = past[-limits.patience :]
    if len(last) < limits.patience:
        return None
    n = f"{limits.patience} rounds in a row" if limits.patience > 1 else "one round"
    if all(p.overfits for p in last):
        return Ruling(
            "stop", ("overfitting",), f"Training overfits, {n}: in {model_title(last[-1].name)}, {last[-1].overfits}."
        )
    if any(p.promoted and p.gain.low is not None and p.gain.low > limits.min_gain for p in last):
        return None
    said = "; ".join(
        f"{model_title(p.name)} {points(p.gain.value)} points ({interval(p.gain, change=True)})"
        + ("" if p.promoted else ", rolled back")
        for p in last
    )
    above = f"{points(limits.min_gain)} points" if limits.min_gain else "zero"
    return Ruling("stop", ("plateau",), f"A plateau: {n} whose gain has no lower bound above {above}: {said}.")


def budget_spent(elapsed: float, next_round: float, cost: float, next_cost: float, limits: LoopConfig) -> Ruling | None:
    """Stop when another round, expected to take `next_round` seconds and `next_cost` dollars, would be too much."""
    if limits.max_minutes and elapsed + next_round > 60 * limits.max_minutes:
        about = f", and a round takes about {seconds(next_round)}" if next_round else ""
        return Ruling(
            "stop",
            ("time",),
            f"The time is spent: {seconds(elapsed)} of {limits.max_minutes:g} minutes are used{about}.",
        )
    if limits.budget and cost + next_cost > limits.budget:
        return Ruling(
            "stop",
            ("money",),
            f"The money is spent: ${cost:.2f} of ${limits.budget:.2f} are used, and a"
            f" round costs about ${next_cost:.2f}.",
        )
    return None


def rounds_done(done: int, limits: LoopConfig) -> Ruling | None:
    """Stop after the last round that was asked for."""
    if done < limits.max_rounds:
        return None
    said = {0: "No round was asked for.", 1: "The round is done."}.get(done, f"All {done} rounds asked for are done.")
    return Ruling("stop", ("rounds done",), said)
