"""Warnings in words: settings that depart from sound practice, and signs of trouble in a training log."""

from __future__ import annotations

import json
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


def displacement(log: Path) -> list[str]:
    """Likelihood displacement: the winners' log-probability fell over the run although their margin grew.

    Razin et al. 2024, "Unintentional Unalignment: Likelihood Displacement in DPO".
    """
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    chosen = [r["rewards/chosen"] for r in rows if "rewards/chosen" in r]
    if len(chosen) < 4:
        return []
    tail = chosen[-max(1, len(chosen) // 4) :]
    if sum(tail) / len(tail) >= -0.5:
        return []
    return [
        "the winners themselves became less likely than under the reference (likelihood displacement): "
        "add an NLL term (nll_weight 0.1-0.5), lower the learning rate, or raise beta"
    ]
