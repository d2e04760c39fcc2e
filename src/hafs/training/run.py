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
from transformers.modeling_layers import GradientCheckpointingLayer

from hafs import registry
from hafs.config import DPOConfig, TrainConfig
from hafs.errors import UsageError
from hafs.files.fetch import cache_root
from hafs.models.chat import TemplateRefuses, chat_notes, check_rows, template_hash, tokenizer_hash
from hafs.models.loading import add_rows, load_model, load_tokenizer, pick_precision, touches_head, untie
from hafs.models.naming import model_hash, resolve
from hafs.training.advice import recipe_advice, signs_of_trouble
from hafs.training.checkpoints import RunDirectory
from hafs.training.data import check_calibrated
from hafs.training.heads import CandidateRewards, save_classifier
from hafs.training.left_out import LeftOut
from hafs.training.logprobs import CandidateLogps, self_test
from hafs.training.loop import Trainer
from hafs.training.objectives import Objective
from hafs.training.objectives.labels import LabelObjective, label_notes, mismatched
from hafs.training.objectives.preference import PreferenceObjective
from hafs.training.packing import TokenGroup, fit, tokenize
from hafs.training.reference import ReferenceCache, fill_reference
from hafs.training.reward import reward_report
from hafs.training.rows import with_rows
from hafs.training.runner import TrainResult, Validate, result_dict
from hafs.training.saving import save_checked
from hafs.training.sharding import all_finite, is_sharded
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
    if objective.name in ("dpo", "reward") and not isinstance(objective, LabelObjective):
        refuse_labels_alone(groups)
    path = resolve(model)
    tokenizer = load_tokenizer(path)
    run = RunDirectory(output)
    accelerator = _accelerator(config, output)
    with run.held(accelerator.is_main_process):
        with accelerator.main_process_first():
            config, rows = with_rows(config, run, path, tokenizer, groups, accelerator.device.type)
            about = identity(kind, path, tokenizer, groups, config)
            run.claim(about, accelerator.is_main_process, settings_of(type(config).model_validate({})))
            done = run.finished()
        if done is not None:
            return TrainResult(**done)
        left = LeftOut(config.max_length)
        train, valid = split(groups, tokenizer, config, left)
        left.write(output)
        mute = sum(not objective.takes(g) for g in (*train, *valid))
        train, valid = ([g for g in part if objective.takes(g)] for part in (train, valid))
        trainer = _trainer(path, tokenizer, train, valid, objective, config, run, accelerator, validate, progress)
        with tracked(kind, config, accelerator):
            result = trainer.fit()
        result.dropped, result.row_tokens = left.long, config.row_tokens
        if rows is not None and rows.tight:
            result.warnings.append(f"rows of {rows.tokens} tokens, the fewest that are tried, were {rows.why}")
        result.warnings += data_notes(tokenizer, groups, left, output)
        if mute:
            result.warnings.append(f"{mute} prompts have nothing that this objective learns from: left out")
        if isinstance(objective, LabelObjective):
            result.warnings += label_notes(train, objective.config)
        _report(result, trainer, config)
        if accelerator.is_main_process:
            _save(trainer, path, tokenizer, config, output / "model")
            run.finish(result_dict(result))
        accelerator.wait_for_everyone()
    return result


def _trainer(
    path: Path,
    tokenizer: Any,
    train: Sequence[TokenGroup],
    valid: Sequence[TokenGroup],
    objective: Objective,
    config: TrainConfig,
    run: RunDirectory,
    accelerator: Accelerator,
    validate: Validate | None,
    progress: Progress,
) -> Trainer:
    """The trainer on the model at `path`, with the reference's log-probabilities computed before it is changed."""
    seen = [*train, *valid]
    if isinstance(objective, LabelObjective):
        seen += [
            g for part in (train, valid) if part for g in mismatched(part, config.max_length, train) if g.candidates
        ]
    cache = _reference(path, objective, seen, config, accelerator, progress, tokenizer)
    network = _network(path, config, accelerator, [*train, *valid], tokenizer)
    if cache is not None and _other_reference(path, config) is None:
        fill_reference(cache, network, seen, config, accelerator, progress)
    found = network
    network = objective.network(with_adapter(found.net, config), found.shared)
    network.own_head = found.own_head
    network.balance_routers(config.router_weight)
    if found.own_head and isinstance(network, CandidateRewards):
        raise UsageError(f"a reward head cannot be put on {network.config.model_type}", "choose another model")
    return Trainer(
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
        words=lambda group: repr(tokenizer.decode(group.prompt)[-80:]),
    )


def _report(result: TrainResult, trainer: Trainer, config: TrainConfig) -> None:
    """Put into `result` what is to be said of the run."""
    network = trainer.network
    if isinstance(network, CandidateRewards):
        result.report = reward_report(network, trainer.valid, config.row_tokens)
    result.warnings += [
        *recipe_advice(config, len(trainer.train)),
        *signs_of_trouble(trainer.run.log, result.best_step),
    ]
    if not network.shared:
        result.warnings.append(
            f"{network.config.model_type} does not take the shared layout: each candidate was"
            " computed with its own copy of the prompt"
        )


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


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """The settings that a run's result depends on."""
    return config.model_dump(mode="json", exclude={"trackers", "save_minutes"})


def check_weights(net: Any, path: Path) -> None:
    """Raise UsageError when a weight of the model read from `path` is no number: nothing can be learnt from there."""
    bad = [n for n, p in net.named_parameters() if p.is_floating_point() and not all_finite([p])]
    if bad:
        raise UsageError(
            f"{path} holds weights that are no numbers (NaN or infinite): {bad[0]}"
            + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""),
            "fetch the model again, or take the checkpoint before",
        )


def identity(
    kind: str, path: Path, tokenizer: Any, groups: Sequence[PreferenceGroup], config: TrainConfig
) -> dict[str, Any]:
    """What makes a run the run it is; where one of these has changed, it cannot go on."""
    settings = settings_of(config)
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


def _network(
    path: Path, config: TrainConfig, accelerator: Accelerator, groups: Sequence[TokenGroup], tokenizer: Any
) -> CandidateLogps:
    """The model at `path` on this process's device, with the layout that it takes.

    Raises UsageError for a token in `groups` that it has no embedding for, unless the settings give it one.
    """
    precision = "fp32" if config.method == "full" else config.precision  # weights in training are kept exact
    net = load_model(path, precision, config.attention, config.quantize, accelerator.device)
    check_weights(net, path)
    if config.resize_vocab:
        add_rows(net, tokenizer)
    used = [max(max(ids) for ids in (g.prompt, *g.candidates)) for g in groups]
    check_rows(tokenizer, used, net.get_input_embeddings().weight.shape[0])
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
    tokenizer: Any,
) -> ReferenceCache | None:
    """The cache of the run's reference, filled when the reference is a model of its own."""
    if not objective.uses_reference:
        return None
    other = _other_reference(path, config)
    about = [model_hash(other or path), pick_precision(config.precision), config.attention, config.quantize]
    if config.resize_vocab:
        about.append("resized")
    cache = ReferenceCache(cache_root() / "reference", about, objective.reference_by_token)
    if other is not None and any(cache.get(g) is None for g in groups):
        network = _network(other, config, accelerator, groups, tokenizer)
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
        if config.checkpointed_layers:
            _keep_activations(net, config.checkpointed_layers)
    return net


def _keep_activations(net: Any, first: int) -> None:
    """Keep the activations of all layers but the `first` ones. Raises UsageError for a model whose layers are alike."""
    layers = [m for m in net.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise UsageError("this model computes all its layers again or none", "leave checkpointed_layers at 0")
    for layer in layers[first:]:
        layer.gradient_checkpointing = False


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
    """`net` with an adapter; tokens that it was given are trained whole, and a head that the adapter changes is untied
    from the input embeddings, which it must not change with it."""
    adapter = adapter_config(config)
    targets = adapter.target_modules
    if touches_head(net, [] if isinstance(targets, str) else list(targets or ())):
        untie(net)
    if rows := list(getattr(net, "new_rows", ())):
        embeddings = net.get_input_embeddings()
        name = next(n for n, m in net.named_modules() if m is embeddings)
        adapter.trainable_token_indices = {name.rpartition(".")[2]: rows}
    try:
        return get_peft_model(net, adapter)
    except ValueError as e:
        raise UsageError(f"no adapter could be put on the model: {e}", "check lora.targets") from e


def _save(trainer: Trainer, path: Path, tokenizer: Any, config: TrainConfig, output: Path) -> None:
    """Write the trained model: merged into its base, or as an adapter on it."""
    network, head = trainer.network, isinstance(trainer.network, CandidateRewards)
    if is_sharded(trainer.parameters.values()) or (head and config.quantize != "none"):
        # this process holds a part, or a base that nothing can be merged into: the whole is in the checkpoint
        base = load_model(path, config.precision, device="cpu")
        if config.resize_vocab:
            add_rows(base, tokenizer)
        network = type(network)(with_adapter(base, config), network.shared)
        weights = trainer.run.weights(trainer.best_step)
        with torch.no_grad():
            for name, parameter in network.net.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(weights[name])
    net, groups = network.net, [*trainer.valid, *trainer.train]
    if isinstance(network, CandidateRewards):
        score = net.score
        save_classifier(net.merge_and_unload() if config.method != "full" else net, score, tokenizer, output)
        return
    save_checked(net, tokenizer, config, output, network, groups)


def split(
    groups: Sequence[PreferenceGroup], tokenizer: Any, config: TrainConfig, left: LeftOut | None = None
) -> tuple[list[TokenGroup], list[TokenGroup]]:
    """Token groups for training and validation, split by prompt.

    Groups marked "validation" validate; where none are, a share of the prompts chosen by hash does. What the model's
    chat template does not take, what is too long, and what is of the test split is left out and noted in `left`. Raises
    DataError when nothing is left.
    """
    left = left or LeftOut(config.max_length)
    marked = any(g.split == "validation" for g in groups)
    limit = round(config.validation_share * 1000)
    train: list[TokenGroup] = []
    valid: list[TokenGroup] = []
    for number, group in enumerate(groups, 1):
        if group.split == "test":
            left.test(number, group)
            continue
        try:
            whole = tokenize(tokenizer, group, config.thinking)
        except TemplateRefuses as e:
            left.refuse(number, group, e.what)
            continue
        tokens = fit(whole, config.max_length)
        left.compare(number, group, whole, tokens)
        if tokens is None:
            continue
        opening = next((str(m.get("content")) for m in group.context if m.get("role") == "user"), group.prompt)
        held = int(content_id("validation", group.system, opening)[:8], 16) % 1000 < limit  # a conversation is one
        (valid if (group.split == "validation" if marked else held) else train).append(tokens)
    left.check(len(groups), len(train) + len(valid))
    return train, valid


def objective_of(config: DPOConfig) -> Objective:
    """The objective that the settings' loss is of: one of pairs and rankings, or of one-sided labels."""
    one_sided = registry.load("losses", config.loss).kind == "one-sided"
    return LabelObjective(config) if one_sided else PreferenceObjective(config)


def refuse_labels_alone(groups: Sequence[PreferenceGroup]) -> None:
    """Raise UsageError where labels of single answers are all there is, for an objective that needs pairs."""
    if not any(g.edges for g in groups) and any(c.label for g in groups for c in g.candidates):
        raise UsageError(
            "the data has labels of single answers and not one pair of them to compare",
            "train on labels: hafs train dpo --loss kto",
        )


def data_notes(tokenizer: Any, groups: Sequence[PreferenceGroup], left: LeftOut, output: Path) -> list[str]:
    """What became of the data on its way through the chat template."""
    notes = [*chat_notes(tokenizer, any(g.system for g in groups)), *left.notes(len(groups), output)]
    if cut := sum(c.cut for g in groups for c in g.candidates):
        notes.append(f"{cut} answers were cut at the token limit: they are trained without an end of the turn")
    return notes


def token_groups(
    model: str, groups: Sequence[PreferenceGroup], config: TrainConfig, left: LeftOut | None = None
) -> tuple[list[TokenGroup], bool]:
    """The groups that `train` would train on, and whether it would need a reference; only the tokenizer is loaded."""
    train, _ = split(groups, load_tokenizer(resolve(model)), config, left)
    return train, isinstance(config, DPOConfig) and objective_of(config).uses_reference


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings as one level of plain values, which is what trackers take."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return out
