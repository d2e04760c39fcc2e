"""Training: plain preference groups in, a better model out. Knows no store, scorer or backend.

`train_sft` and `train_dpo` load the model, put an adapter on it, go the one course of a run (`runner.py`) with the
objective's step, and save the result as a Hugging Face directory. A run that is repeated resumes, or returns at once
when it is done. Under `accelerate launch` or `torchrun` the same call trains in several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hafs.config import DPOConfig, RewardConfig, SFTConfig
from hafs.training.data import record_data
from hafs.training.objectives.reward import RewardObjective
from hafs.training.objectives.sft import SFTObjective
from hafs.training.run import objective_of, train
from hafs.training.runner import TrainResult, Validate
from hafs.types import PreferenceGroup

__all__ = ["TrainResult", "Validate", "train_dpo", "train_reward", "train_sft"]


def train_sft(
    model: str, groups: Sequence[PreferenceGroup], config: SFTConfig, output: Path, **hooks: Any
) -> TrainResult:
    """Fine-tune `model` on groups of one candidate each (prompt and right answer); the result is in `output`.

    `hooks` are `validate` and `progress` of `Trainer`. Raises UsageError for an unknown model or a changed run.
    """
    result = train("sft", model, groups, SFTObjective(), config, output, **hooks)
    record_data(output, model, groups)
    return result


def train_dpo(
    model: str, groups: Sequence[PreferenceGroup], config: DPOConfig, output: Path, **hooks: Any
) -> TrainResult:
    """Train `model` on preference groups, or on one-sided labels (loss `kto`), against itself, frozen, or the reference
    named; the result is in `output`.

    `hooks` as in `train_sft`, and `allow_uncalibrated`: take edges of a judge that no person's labels calibrated,
    which are refused otherwise. With `engine = "trl"` TRL's own trainer does it.
    """
    if config.engine == "trl":
        from hafs.training.trl import train_dpo_trl

        result = train_dpo_trl(model, groups, config, output, **hooks)
    else:
        result = train("dpo", model, groups, objective_of(config), config, output, **hooks)
    record_data(output, model, groups)
    return result


def train_reward(
    model: str, groups: Sequence[PreferenceGroup], config: RewardConfig, output: Path, **hooks: Any
) -> TrainResult:
    """Train a reward model on `model` and preference groups; a sequence-classification checkpoint is in `output`.

    `hooks` as in `train_sft`. The result's `report` says what it reached on the held-out prompts.
    """
    result = train("reward", model, groups, RewardObjective(config), config, output, **hooks)
    record_data(output, model, groups)
    return result
