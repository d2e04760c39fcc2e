"""Training: plain preference groups in, a better model out. Knows no store, scorer or backend.

`train_sft` and `train_dpo` load the model, put an adapter on it, run the one loop (`loop.py`) with the objective, and
save the result as a Hugging Face directory. A run that is repeated resumes, or returns at once when it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model

from hafs.chat import template_hash
from hafs.config import DPOConfig, SFTConfig, TrainConfig
from hafs.errors import UsageError
from hafs.loading import load_model, load_tokenizer, pick_precision, save_model
from hafs.models import model_hash, resolve
from hafs.tools import cache_root
from hafs.training.advice import displacement, recipe_advice
from hafs.training.checkpoints import RunDirectory
from hafs.training.logprobs import CandidateLogps, ReferenceCache, self_test
from hafs.training.loop import Trainer, TrainResult, Validate, result_dict
from hafs.training.objectives import Objective
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.objectives.sft import SFTObjective
from hafs.training.packing import TokenGroup, fit, tokenize
from hafs.types import PreferenceGroup, Progress, content_id, silent

__all__ = ["TrainResult", "Validate", "train_dpo", "train_sft"]


def train_sft(
    model: str, groups: Sequence[PreferenceGroup], config: SFTConfig, output: Path, **hooks: Any
) -> TrainResult:
    """Fine-tune `model` on groups of one candidate each (prompt and right answer); the result is in `output`.

    `hooks` are `validate` and `progress` of `Trainer`. Raises UsageError for an unknown model or a changed run.
    """
    return _run("sft", model, groups, SFTObjective(), config, output, **hooks)


def train_dpo(
    model: str, groups: Sequence[PreferenceGroup], config: DPOConfig, output: Path, **hooks: Any
) -> TrainResult:
    """Train `model` on preference groups against itself, frozen (the adapter switched off); the result is in `output`.

    `hooks` as in `train_sft`.
    """
    objective = PreferenceObjective(
        config.loss, config.beta, config.label_smoothing, config.nll_weight, config.reference_free
    )
    return _run("dpo", model, groups, objective, config, output, **hooks)


def _run(
    kind: str, model: str, groups: Sequence[PreferenceGroup], objective: Objective, config: TrainConfig, output: Path,
    *, validate: Validate | None = None, progress: Progress = silent,
) -> TrainResult:  # fmt: skip
    path = resolve(model)
    tokenizer = load_tokenizer(path)
    base = model_hash(path)
    run = RunDirectory(output)
    run.claim({
        "kind": kind, "model": base, "template": template_hash(tokenizer),
        "data": content_id(sorted(g.id for g in groups)), "settings": config.model_dump(mode="json"),
    })  # fmt: skip
    done = run.finished()
    if done is not None:
        return TrainResult(**done)
    train, valid, dropped = _split(groups, tokenizer, config)
    network = CandidateLogps(adapted(path, config))
    shared = self_test(network, train, 1e-3 if pick_precision(config.precision) == "fp32" else 0.1)
    layout = "shared" if shared else "unshared"
    identity = [base, pick_precision(config.precision), layout, config.row_tokens]
    cache = ReferenceCache(cache_root() / "reference" / f"{content_id(identity)}.jsonl", identity)
    trainer = Trainer(
        network, objective, train, valid, config, run, reference=cache, validate=validate, progress=progress
    )
    result = trainer.fit()
    result.dropped = dropped
    result.warnings = [*recipe_advice(config, len(train)), *displacement(run.log)]
    if not shared:
        result.warnings.append(f"{network.config.model_type} does not take the shared layout: each candidate was"
                               " computed with its own copy of the prompt")  # fmt: skip
    net = trainer.model.net
    save_model(net.merge_and_unload() if config.save == "merged" else net, tokenizer, output / "model")
    run.finish(result_dict(result))
    return result


def adapted(path: str | Path, config: TrainConfig) -> Any:
    """The model at `path` with a new adapter; the base is frozen in the run's precision, the adapter is fp32."""
    torch.manual_seed(config.seed)
    lora = config.lora
    targets = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    net = load_model(path, config.precision)
    try:
        return get_peft_model(net, PeftLora(
            r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, task_type="CAUSAL_LM"
        ))  # fmt: skip
    except ValueError as e:
        raise UsageError(f"no adapter could be put on {path}: {e}", "check lora.targets") from e


def _split(
    groups: Sequence[PreferenceGroup], tokenizer: Any, config: TrainConfig
) -> tuple[list[TokenGroup], list[TokenGroup], int]:
    """Token groups for training and validation, and how many were dropped as too long; split by prompt.

    Groups marked "validation" validate; where none are, a share of the prompts chosen by hash does.
    """
    marked = any(g.split == "validation" for g in groups)
    limit = round(config.validation_share * 1000)
    train: list[TokenGroup] = []
    valid: list[TokenGroup] = []
    dropped = 0
    for group in groups:
        tokens = fit(tokenize(tokenizer, group), config.max_length)
        if tokens is None:
            dropped += 1
            continue
        held = int(content_id("validation", group.system, group.prompt)[:8], 16) % 1000 < limit
        (valid if (group.split == "validation" if marked else held) else train).append(tokens)
    return train, valid, dropped
