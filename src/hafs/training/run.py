"""One training run from model and groups to a saved model: reference, adapter, loop, result.

The order keeps one copy of the model in memory: the reference's log-probabilities are computed on the model as it is
loaded (or on the one named, which is then let go), before it gets its adapter and is trained.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig as PeftLora
from peft import get_peft_model

from hafs.config import DPOConfig, TrainConfig
from hafs.errors import DataError, UsageError
from hafs.files.fetch import cache_root
from hafs.models.chat import template_hash, tokenizer_hash
from hafs.models.loading import load_model, load_tokenizer, pick_precision, save_model
from hafs.models.naming import model_hash, resolve
from hafs.training.advice import recipe_advice, signs_of_trouble
from hafs.training.checkpoints import RunDirectory
from hafs.training.data import check_calibrated
from hafs.training.heads import CandidateRewards, save_classifier
from hafs.training.logprobs import CandidateLogps, self_test
from hafs.training.loop import Trainer, TrainResult, Validate, result_dict
from hafs.training.objectives import Objective
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import TokenGroup, fit, tokenize
from hafs.training.reference import ReferenceCache, fill_reference
from hafs.training.reward import reward_report
from hafs.training.sharding import is_sharded
from hafs.types import PreferenceGroup, Progress, content_id, silent


def train(
    kind: str,
    model: str,
    groups: Sequence[PreferenceGroup],
    objective: Objective,
    config: TrainConfig,
    output: Path,
    *,
    validate: Validate | None = None,
    progress: Progress = silent,
    allow_uncalibrated: bool = False,
) -> TrainResult:
    """Train `model` on `groups`; the run's files and the result are in `output`. A finished run is returned at once.

    Raises UsageError for an unknown model, for a run in `output` that differs in what it is trained on, and for edges
    of a judge that was never calibrated on people's labels unless `allow_uncalibrated`.
    """
    check_calibrated(groups, allow_uncalibrated)
    path = resolve(model)
    tokenizer = load_tokenizer(path)
    run = RunDirectory(output)
    accelerator = _accelerator(config, output)
    with accelerator.main_process_first():
        run.claim(identity(kind, path, tokenizer, groups, config), writes=accelerator.is_main_process)
        done = run.finished()
    if done is not None:
        return TrainResult(**done)
    train, valid, dropped = split(groups, tokenizer, config)
    cache = _reference(path, objective, [*train, *valid], config, accelerator, progress)
    network = _network(path, config, accelerator, train)
    if cache is not None and _other_reference(path, config) is None:
        fill_reference(cache, network, [*train, *valid], config, accelerator, progress)
    network = objective.network(with_adapter(network.net, config), network.shared)
    trainer = Trainer(
        network,
        objective,
        train,
        valid,
        config,
        run,
        reference=cache,
        validate=validate,
        progress=progress,
        accelerator=accelerator,
    )
    with tracked(kind, config, accelerator):
        result = trainer.fit()
    result.dropped = dropped
    if isinstance(network, CandidateRewards):
        result.report = reward_report(network, valid, config.row_tokens)
    result.warnings = [*recipe_advice(config, len(train)), *signs_of_trouble(run.log, result.best_step)]
    if not network.shared:
        result.warnings.append(
            f"{network.config.model_type} does not take the shared layout: each candidate was"
            " computed with its own copy of the prompt"
        )
    if accelerator.is_main_process:
        _save(trainer, path, tokenizer, config, output / "model")
        run.finish(result_dict(result))
    accelerator.wait_for_everyone()
    return result


@contextmanager
def tracked(kind: str, config: TrainConfig, accelerator: Accelerator) -> Iterator[None]:
    """Trackers that take what `accelerator.log` is given meanwhile."""
    if config.trackers:
        accelerator.init_trackers("hafs", config={"kind": kind, **_flat(config.model_dump(mode="json"))})
    yield
    for tracker in accelerator.trackers:
        tracker.finish()


@contextmanager
def tracking(kind: str, config: TrainConfig, output: Path) -> Iterator[Callable[[Mapping[str, Any], int], None] | None]:
    """What takes a run's figures and their step, of one process; None without trackers."""
    if not config.trackers:
        yield None
        return
    accelerator = _accelerator(config, output)
    with tracked(kind, config, accelerator):
        yield lambda figures, step: accelerator.log(dict(figures), step=step)


def _accelerator(config: TrainConfig, output: Path) -> Accelerator:
    """The processes of this run, and its trackers. Without a GPU the processes talk over gloo."""
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(), log_with=config.trackers or None, project_dir=str(output / "trackers")
    )
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != started:
        raise UsageError(
            f"{started} processes were started and {accelerator.num_processes} found each other",
            "start them with torchrun or accelerate launch",
        )
    return accelerator


def identity(
    kind: str, path: Path, tokenizer: Any, groups: Sequence[PreferenceGroup], config: TrainConfig
) -> dict[str, Any]:
    """What makes a run the run it is; where one of these has changed, it cannot go on."""
    settings = config.model_dump(mode="json", exclude={"trackers"})
    if name := settings.get("reference"):
        settings["reference"] = model_hash(resolve(name))
    return {
        "kind": kind,
        "model": model_hash(path),
        "tokenizer": tokenizer_hash(tokenizer),
        "template": template_hash(tokenizer),
        "data": content_id(sorted(g.id for g in groups)),
        "settings": settings,
    }


def _network(path: Path, config: TrainConfig, accelerator: Accelerator, groups: Sequence[TokenGroup]) -> CandidateLogps:
    """The model at `path` on this process's device, with the layout that it takes."""
    precision = "fp32" if config.method == "full" else config.precision  # weights in training are kept exact
    net = load_model(path, precision, config.attention, config.quantize, accelerator.device)
    network = CandidateLogps(net)
    self_test(network, groups, 1e-3 if pick_precision(precision) == "fp32" else 0.1)
    return network


def _reference(
    path: Path,
    objective: Objective,
    groups: Sequence[TokenGroup],
    config: TrainConfig,
    accelerator: Accelerator,
    progress: Progress,
) -> ReferenceCache | None:
    """The cache of the run's reference, filled when the reference is a model of its own."""
    if not objective.uses_reference:
        return None
    other = _other_reference(path, config)
    about = [model_hash(other or path), pick_precision(config.precision), config.attention, config.quantize]
    cache = ReferenceCache(cache_root() / "reference", about, objective.reference_by_token)
    if other is not None and any(cache.get(g) is None for g in groups):
        network = _network(other, config, accelerator, groups)
        fill_reference(cache, network, groups, config, accelerator, progress)
        del network
        gc.collect()
    return cache


def _other_reference(path: Path, config: TrainConfig) -> Path | None:
    """The reference, when it is another model than the one at `path` that training starts from."""
    name = getattr(config, "reference", "")
    other = resolve(name) if name else path
    return None if other.samefile(path) else other


def with_adapter(net: Any, config: TrainConfig) -> Any:
    """`net` with what is trained: a new LoRA or DoRA adapter in float32 on the frozen base, or all of its weights.

    LoRA: Hu et al. 2021; DoRA: Liu et al. 2024; on a 4-bit base, QLoRA: Dettmers et al. 2023.
    """
    torch.manual_seed(config.seed)
    if config.method == "full":
        net.requires_grad_(True)
    else:
        net = _adapted(net, config)
    if config.activation_checkpointing:
        net.gradient_checkpointing_enable({"use_reentrant": False})
    return net


def adapter_config(config: TrainConfig) -> PeftLora:
    """The adapter that the settings describe."""
    lora = config.lora
    targets = lora.targets if lora.targets == "all-linear" else lora.targets.split(",")
    return PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_dora=config.method == "dora",
        task_type="CAUSAL_LM",
    )


def _adapted(net: Any, config: TrainConfig) -> Any:
    try:
        return get_peft_model(net, adapter_config(config))
    except ValueError as e:
        raise UsageError(f"no adapter could be put on the model: {e}", "check lora.targets") from e


def _save(trainer: Trainer, path: Path, tokenizer: Any, config: TrainConfig, output: Path) -> None:
    """Write the trained model: merged into its base, or as an adapter on it."""
    network, head = trainer.network, isinstance(trainer.network, CandidateRewards)
    if is_sharded(trainer.parameters.values()) or (head and config.quantize != "none"):
        # this process holds a part, or a base that nothing can be merged into: the whole is in the checkpoint
        base = load_model(path, config.precision, device="cpu")
        network = type(network)(with_adapter(base, config), network.shared)
        weights = trainer.run.weights(trainer.best_step)
        with torch.no_grad():
            for name, parameter in network.net.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])
    net = network.net
    if isinstance(network, CandidateRewards):
        score = net.score
        save_classifier(net.merge_and_unload() if config.method != "full" else net, score, tokenizer, output)
        return
    merge = config.method != "full" and config.save == "merged" and config.quantize == "none"
    save_model(net.merge_and_unload() if merge else net, tokenizer, output)


def split(
    groups: Sequence[PreferenceGroup], tokenizer: Any, config: TrainConfig
) -> tuple[list[TokenGroup], list[TokenGroup], int]:
    """Token groups for training and validation, and how many were dropped as too long; split by prompt.

    Groups marked "validation" validate; where none are, a share of the prompts chosen by hash does. Raises DataError
    when a group is marked "test".
    """
    tests = sum(g.split == "test" for g in groups)
    if tests:
        raise DataError(f"{tests} of {len(groups)} prompts are of the test split", "train on other prompts")
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


def token_groups(model: str, groups: Sequence[PreferenceGroup], config: TrainConfig) -> tuple[list[TokenGroup], bool]:
    """The groups that `train` would train on, and whether it would need a reference; only the tokenizer is loaded."""
    train, _, _ = split(groups, load_tokenizer(resolve(model)), config)
    return train, isinstance(config, DPOConfig) and PreferenceObjective(config).uses_reference


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as one level of plain values, which is what trackers take."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return out
