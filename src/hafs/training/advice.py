"""Warnings in words: settings that depart from sound practice, and signs of trouble in a training log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hafs.config import DPOConfig, TrainConfig


def recipe_advice(config: TrainConfig, prompts: int) -> list[str]:
    """Where the settings leave the guide's ranges, with the reason to mind; empty for the defaults."""
    advice = []
    groups = config.batch_size * config.gradient_accumulation_steps
    if isinstance(config, DPOConfig):
        if not 0.1 <= config.beta <= 0.5:
            advice.append(
                f"beta {config.beta:g} is outside 0.1-0.5: below, the policy may drift far; above, it may overfit"
            )
        if config.learning_rate > 1e-5:
            advice.append(
                f"learning rate {config.learning_rate:g} is above the usual 5e-6 to 1e-5: adapters bear more than full"
                " weights, but watch the pass rate, not the pair accuracy"
            )
        if config.num_epochs > 1 and prompts < 10_000:
            advice.append(
                f"{config.num_epochs:g} epochs over {prompts} prompts: DPO overfits quickly, 1 is usually enough"
            )
        if not 16 <= groups <= 32:
            advice.append(f"{groups} prompts a step: 16 to 32 is the usual range")
    return advice


def signs_of_trouble(log: Path, best_step: int) -> list[str]:
    """What the log of a run says in figures and people overlook, in words with the remedy."""
    if not log.is_file():
        return []
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    trained = [r for r in rows if "loss" in r]
    checked = [r for r in rows if any(k.startswith("eval/") for k in r)]
    return [*_displacement(trained), *_length_exploitation(trained, checked), *_overfit(checked, best_step)]


Rows = Sequence[Mapping[str, float]]


def _last_quarter(rows: Rows, name: str) -> float | None:
    """The mean of a figure over the last quarter of the steps that have it; None for fewer than four."""
    values = [r[name] for r in rows if name in r]
    tail = values[-max(1, len(values) // 4) :]
    return sum(tail) / len(tail) if len(values) >= 4 else None


def _displacement(rows: Rows) -> list[str]:
    """The winners' log-probability fell over the run although their margin grew.

    Razin et al. 2024, "Unintentional Unalignment: Likelihood Displacement in DPO".
    """
    reward = _last_quarter(rows, "rewards/chosen")
    if reward is None or reward >= -0.5:
        return []
    return [
        "the winners themselves became less likely than under the reference (likelihood displacement): "
        "add an NLL term (nll_weight 0.1-0.5), lower the learning rate, or raise beta"
    ]


def _length_exploitation(rows: Rows, checked: Rows) -> list[str]:
    """Reward follows length (Park et al. 2024, "Disentangling Length from Quality in DPO"), or answers grow."""
    said = []
    follows = _last_quarter(rows, "length_preference")
    if follows is not None and abs(follows) >= 0.6:
        said.append(
            f"the {'longer' if follows > 0 else 'shorter'} answer gets the higher reward in most comparisons (sign"
            f" agreement {abs(follows):.2f}): match the lengths of winners and losers, or use the loss sigmoid_norm or"
            " ld_alpha 0.5"
        )
    lengths = [r["eval/tokens"] for r in checked if "eval/tokens" in r]
    if len(lengths) > 1 and lengths[-1] > 1.25 * lengths[0]:
        said.append(
            f"answers to the validation prompts grew from {lengths[0]:.0f} to {lengths[-1]:.0f} tokens: see whether"
            " they got better or only longer"
        )
    return said


def _overfit(checked: Rows, best_step: int) -> list[str]:
    """Validation was best before the end and has clearly worsened since."""
    losses = [(r["step"], r["eval/loss"]) for r in checked if "eval/loss" in r]
    said = []
    if len(losses) > 2:
        step, lowest = min(losses, key=lambda x: x[1])
        if step < losses[-1][0] and losses[-1][1] > 1.05 * lowest:
            said.append(
                f"validation loss was lowest at step {step:g} ({lowest:.3f}) and ended at {losses[-1][1]:.3f}: the run"
                f" overfits; fewer epochs or a lower learning rate (the weights of step {best_step} are kept)"
            )
    return said
