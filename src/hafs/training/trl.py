"""`--engine trl`: the same preference groups through TRL's own DPOTrainer, for comparison and for those who want it.

A group becomes one pair for each of its edges, and TRL computes prompt and answer anew for each pair. Model, adapter,
loss, optimiser, schedule, split, reference (the start, computed once before training) and the run's directory are as
with hafs' own engine. What is TRL's:

- a step is `batch_size` x `gradient_accumulation_steps` *pairs*, in TRL's order, and every pair weighs alike; hafs'
  engine counts prompts, and a prompt with six edges weighs as much as one with one;
- `nll_weight` weighs the mean over all winners' tokens of a pass (hafs: the mean over the right, unbeaten winners of a
  prompt of their mean), and the logged `loss` has it in;
- checkpoints to go on from are TRL's own (`trl/` in the run's directory, until the run has ended).

TRL drops edge weights and probabilities without a word, and the settings that it does not know: here those are errors.
TRL is imported inside the functions, since the extra `trl` may not be installed.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig as PeftLora
from safetensors import SafetensorError
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, TrainerCallback

from hafs.config import DPOConfig
from hafs.errors import HafsError, MissingTool, UsageError
from hafs.models.chat import stop_ids
from hafs.models.loading import load_model, load_tokenizer, pick_precision
from hafs.models.naming import model_hash, resolve
from hafs.training.advice import recipe_advice, signs_of_trouble
from hafs.training.checkpoints import RunDirectory, trim_log
from hafs.training.data import check_calibrated
from hafs.training.left_out import LeftOut
from hafs.training.logprobs import CandidateLogps
from hafs.training.packing import TokenGroup
from hafs.training.run import check_weights, data_notes, identity, settings_of, split
from hafs.training.runner import TrainResult, Validate, learning_rate, result_dict
from hafs.training.saving import save_checked
from hafs.types import PreferenceGroup, Progress, silent

__all__ = ["LOSSES", "lora_of", "train_dpo_trl", "trl_arguments"]

LOSSES = ("sigmoid", "sigmoid_norm", "robust", "ipo", "hinge", "apo_zero")
"""The losses that TRL has under the same name and with the same meaning."""

_OURS = "train with --engine hafs"


class _Pair(NamedTuple):
    """One edge in token ids; both answers end with the end-of-turn token."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def train_dpo_trl(
    model: str,
    groups: Sequence[PreferenceGroup],
    config: DPOConfig,
    output: Path,
    *,
    validate: Validate | None = None,
    progress: Progress = silent,
    allow_uncalibrated: bool = False,
) -> TrainResult:
    """Train `model` on every edge of `groups` with TRL's DPOTrainer; the result is in `output`, as with `train_dpo`.

    A run that was killed goes on from TRL's last checkpoint; one that has ended is not repeated. Raises MissingTool
    without TRL, and UsageError for what TRL cannot do (a `validate` hook is such a thing), for texts that it would
    tokenise otherwise, for a changed run, and for edges of an uncalibrated judge unless `allow_uncalibrated`.
    """
    check_calibrated(groups, allow_uncalibrated)
    _need_packages("trl", "datasets", *config.trackers)
    if validate is not None:
        raise UsageError(
            "through TRL the weights are picked by validation loss alone", f"leave out --validate, or {_OURS}"
        )
    config = config.model_copy(update={"engine": "trl", "row_tokens": config.row_tokens or 512})
    _refuse(model, groups, config)
    path = resolve(model)
    tokenizer = load_tokenizer(path)
    run = RunDirectory(output)
    about = identity("dpo", path, tokenizer, groups, config)
    defaults = settings_of(DPOConfig.model_validate({}))
    with run.held():
        if (output / "run.json").is_file():
            run.claim(about, defaults=defaults)
            if done := run.finished():
                return TrainResult(**done)
        left = LeftOut(config.max_length)
        train, valid = split(groups, tokenizer, config, left)
        left.write(output)
        if not _pairs(train):
            raise UsageError("there is nothing to train on: no prompt has a pair of answers", "give preferences")
        theirs = load_tokenizer(path)
        theirs.eos_token = theirs.decode([stop_ids(tokenizer)[0]])  # what TRL puts at the end of an answer
        _same_tokens(_pairs([*train, *valid]), theirs)
        run.claim(about, defaults=defaults)
        result = _fit(path, tokenizer, theirs, train, valid, config, run, progress)
        result.dropped = left.long
        result.warnings = [
            *data_notes(tokenizer, groups, left, output),
            *_advice(train, config),
            *signs_of_trouble(run.log, result.best_step),
        ]
        run.finish(result_dict(result))
        folder = output / "trl"
        for done_with in folder.glob("checkpoint-*") if config.trackers else [folder]:  # trackers write in it, too
            shutil.rmtree(done_with, ignore_errors=True)
    return result


def _fit(
    path: Path,
    tokenizer: Any,
    theirs: Any,
    train: Sequence[TokenGroup],
    valid: Sequence[TokenGroup],
    config: DPOConfig,
    run: RunDirectory,
    progress: Progress,
) -> TrainResult:
    """Run TRL's trainer to the end (from its newest checkpoint if there is one) and save the best weights."""
    resume = _newest(run.path / "trl")
    rows = trim_log(run.log, int(resume.name.rpartition("-")[2]) if resume else -1)
    steps = math.ceil(len(_pairs(train)) / (config.batch_size * config.gradient_accumulation_steps))
    follower = _Follower(run, config, steps, bool(valid), rows, progress)
    trainer = _trainer(path, theirs, train, valid, config, run.path / "trl", follower, fresh=resume is None)
    total = math.ceil(steps * config.num_epochs)
    optimizer = trainer.create_optimizer()
    trainer.lr_scheduler = LambdaLR(optimizer, _schedule(config, total))
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    except (OSError, SafetensorError) as e:
        raise HafsError(
            f"TRL's trainer could not go on: {e}",
            "free space and run the same command: training goes on from TRL's last checkpoint",
        ) from e
    seconds, net = follower.seconds, trainer.model
    if not valid:
        follower.keep(total, float(total), {}, net)
    kept = run.weights(follower.best_step)
    with torch.no_grad():
        for name, parameter in _trained(net).items():
            parameter.copy_(kept[name])
    save_checked(net, tokenizer, config, run.path / "model", CandidateLogps(net), [*valid, *train])
    tokens = int(trainer.state.num_input_tokens_seen)
    return TrainResult(steps=total, best_step=follower.best_step, best=follower.best, seconds=seconds, tokens=tokens)


def _trainer(
    path: Path,
    tokenizer: Any,
    train: Sequence[TokenGroup],
    valid: Sequence[TokenGroup],
    config: DPOConfig,
    folder: Path,
    follower: TrainerCallback,
    fresh: bool,
) -> Any:
    """TRL's trainer on the pairs of the groups; building it computes the reference's log-probabilities."""
    import trl
    from datasets import Dataset

    held = Dataset.from_list(_texts(_pairs(valid), tokenizer)) if valid else None
    net = load_model(path, "fp32" if config.method == "full" else config.precision, config.attention)
    check_weights(net, path)
    arguments = trl_arguments(config, folder, precompute_ref_log_probs=True, eval_on_start=bool(valid) and fresh)
    with _no_bars():
        try:
            trainer: Any = trl.DPOTrainer(
                model=net,
                args=arguments,
                train_dataset=Dataset.from_list(_texts(_pairs(train), tokenizer)),
                eval_dataset=held,
                processing_class=tokenizer,
                peft_config=lora_of(config),
                callbacks=[follower],
            )
        except ValueError as e:
            raise UsageError(f"TRL's trainer refuses this: {e}", f"check lora.targets, or {_OURS}") from e
    trainer.remove_callback(PrinterCallback)
    _compare(
        _pairs(train),
        [(r["prompt_ids"] + r["chosen_ids"], r["prompt_ids"] + r["rejected_ids"]) for r in trainer.train_dataset],
        tokenizer,
    )
    return trainer


def trl_arguments(config: DPOConfig, folder: Path, **changes: Any) -> Any:
    """`config` as a `trl.DPOConfig` that writes into `folder`; `changes` are TRL's arguments as TRL names them.

    The learning rate's schedule is not in it: TRL's starts at 0 and would waste a step.
    """
    import trl

    losses = {config.loss: 1.0} | ({"sft": config.nll_weight} if config.nll_weight else {})
    cuda = torch.cuda.is_available()
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": not cuda,
        "dataloader_pin_memory": cuda,
        "loss_type": list(losses),
        "loss_weights": list(losses.values()),
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "ld_alpha": None if config.ld_alpha == 1 else config.ld_alpha,
        "num_train_epochs": config.num_epochs,
        "learning_rate": config.learning_rate,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "max_grad_norm": config.max_grad_norm,
        "weight_decay": config.weight_decay,
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": pick_precision(config.precision) == "bf16",
        "gradient_checkpointing": config.activation_checkpointing,
        "disable_dropout": False,
        "max_length": None,
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 1,
        "logging_steps": 1,
        "include_num_input_tokens_seen": "all",
        "router_aux_loss_coef": None if config.router_weight < 0 else config.router_weight,
        "disable_tqdm": True,
        "report_to": list(config.trackers) or "none",
    }
    return trl.DPOConfig(**settings | changes)


def lora_of(config: DPOConfig) -> PeftLora | None:
    """The adapter of `config` for TRL, or None where every weight is trained."""
    if config.method == "full":
        return None
    lora = config.lora
    return PeftLora(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=config.method == "dora",
        target_modules=lora.targets if lora.targets == "all-linear" else lora.targets.split(","),
        task_type="CAUSAL_LM",
    )


def _schedule(config: DPOConfig, total: int) -> Callable[[int], float]:
    """The rate of each step (0-based) as a share of the highest: the schedule of hafs' engine."""
    return lambda done: learning_rate(config, min(done + 1, total), total) / config.learning_rate


class _Follower(TrainerCallback):
    """Walks along TRL's trainer: says when to validate and save, writes the run's log, keeps the best weights.

    What it has to know of the past of a resumed run stands in the log (`rows`).
    """

    def __init__(
        self,
        run: RunDirectory,
        config: DPOConfig,
        steps_per_epoch: int,
        validates: bool,
        rows: Sequence[Mapping[str, Any]],
        progress: Progress,
    ) -> None:
        self.best_step, self.best = 0, dict[str, float]()
        self._run, self._validates, self._progress = run, validates, progress
        self._every, self._save = config.eval_steps or steps_per_epoch, config.save_steps
        self._before = max((float(r.get("seconds", 0)) for r in rows), default=0.0)
        self._started = time.monotonic()
        for row in rows:
            if "eval/loss" in row and self._is_best(-row["eval/loss"]):
                self._remember(row["step"], -row["eval/loss"], row)

    @property
    def seconds(self) -> float:
        """How long the run has trained, earlier starts included (s)."""
        return self._before + time.monotonic() - self._started

    def keep(self, step: int, score: float, metrics: Mapping[str, float], net: Any) -> None:
        """Put the weights of `step` on disk if they are the best so far (of equals the earlier ones)."""
        if self._is_best(score):
            before = self.best_step
            self._remember(step, score, metrics)
            self._run.save(step, _trained(net), {"step": step}, keep={before})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        step = state.global_step
        due = step % self._every == 0 or step == state.max_steps
        control.should_evaluate = due and self._validates
        control.should_save = due or step % self._save == 0
        return control

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs: Mapping[str, Any] = kwargs["logs"]
        if "loss" not in logs and "eval_loss" not in logs:
            return  # TRL's summary of the whole run
        step, seconds = state.global_step, round(self.seconds, 2)
        row = {"step": step, **{k.replace("eval_", "eval/", 1): v for k, v in logs.items()}, "seconds": seconds}
        for name in ("loss", "grad_norm", "eval/loss"):
            if not math.isfinite(float(row.get(name, 0.0))):
                raise HafsError(
                    f"training stopped at step {step}: {name} is {row[name]}; the checkpoints before it are kept",
                    "a lower learning rate or another precision (--precision fp32) with another --output_dir",
                )
        with self._run.log.open("a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")
        self._progress("training" if "loss" in logs else "validated", step, state.max_steps, logs)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        figures = {k.replace("eval_", "eval/", 1): v for k, v in kwargs["metrics"].items()}
        self.keep(state.global_step, -figures["eval/loss"], figures, kwargs["model"])

    def _is_best(self, score: float) -> bool:
        return not self.best or score > self.best["score"]

    def _remember(self, step: int, score: float, metrics: Mapping[str, float]) -> None:
        figures = {k: v for k, v in metrics.items() if k.startswith("eval/")}
        self.best_step, self.best = step, {"score": score, **figures}


def _trained(net: Any) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in net.named_parameters() if p.requires_grad}


def _newest(folder: Path) -> Path | None:
    """TRL's newest whole checkpoint in `folder`; one that a kill cut short is removed."""
    for found in sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.rpartition("-")[2])):
        try:
            json.loads((found / "trainer_state.json").read_text(encoding="utf-8"))  # what is written last
            return found
        except (OSError, ValueError):
            shutil.rmtree(found)
    return None


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep the bars of TRL and datasets off the screen; hafs shows its own progress."""
    import datasets

    before, shown = os.environ.get("TQDM_DISABLE"), not datasets.are_progress_bars_disabled()
    os.environ["TQDM_DISABLE"] = "1"
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before
        if shown:
            datasets.enable_progress_bars()


def _pairs(groups: Sequence[TokenGroup]) -> list[_Pair]:
    """One pair for each edge, in order."""
    return [_Pair(g.prompt, g.candidates[e.winner], g.candidates[e.loser]) for g in groups for e in g.edges]


def _texts(pairs: Sequence[_Pair], tokenizer: Any) -> list[dict[str, str]]:
    """The pairs as TRL takes them; it puts the end-of-turn token, and what the tokenizer starts with, on itself."""
    front = list(tokenizer("")["input_ids"])

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    def prompt(ids: Sequence[int]) -> str:
        return text(ids[len(front) :] if list(ids[: len(front)]) == front else ids)

    def answer(ids: Sequence[int]) -> str:
        return text(ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids)

    return [{"prompt": prompt(p), "chosen": answer(c), "rejected": answer(r)} for p, c, r in pairs]


def _same_tokens(pairs: Sequence[_Pair], tokenizer: Any) -> None:
    """Check, before anything is loaded, that TRL will train on these token ids: it tokenises prompt + answer at once.

    `_trainer` checks the same on what TRL's trainer really holds.
    """

    def ids(prompt: str, answer: str) -> list[int]:
        end = "" if answer.endswith(tokenizer.eos_token) else tokenizer.eos_token
        return list(tokenizer(prompt + answer + end)["input_ids"])

    rows = _texts(pairs, tokenizer)
    theirs = [(ids(r["prompt"], r["chosen"]), ids(r["prompt"], r["rejected"])) for r in rows]
    _compare(pairs, theirs, tokenizer)


def _compare(pairs: Sequence[_Pair], theirs: Sequence[tuple[list[int], list[int]]], tokenizer: Any) -> None:
    """Raise UsageError unless `theirs` (ids of prompt + chosen, prompt + rejected) are the ids of `pairs`."""
    wrong = [
        p.prompt + mine
        for p, other in zip(pairs, theirs, strict=True)
        for mine, found in zip((p.chosen, p.rejected), other, strict=True)
        if list(p.prompt + mine) != list(found)
    ]
    if wrong:
        raise UsageError(
            f"TRL would read {len(wrong)} of {2 * len(pairs)} answers as other tokens than those that the model"
            f" generates, since it tokenises prompt and answer in one (most often, the answer begins with white space);"
            f" the first ends in {tokenizer.decode(wrong[0])[-60:]!r}",
            f"{_OURS}, which takes the tokens as they are, or leave those answers out",
        )


def _need_packages(*names: str) -> None:
    for name in names:
        if importlib.util.find_spec(name) is None:
            extra = "'hafs[trl]'" if name in ("trl", "datasets") else name
            raise MissingTool(f"training through TRL as asked needs the package {name}", f"pip install {extra}")


def _refuse(model: str, groups: Sequence[PreferenceGroup], config: DPOConfig) -> None:
    """Raise UsageError for the first thing that TRL's trainer, as it is used here, would not do as asked."""
    other = bool(config.reference) and model_hash(config.reference) != model_hash(model)
    processes = int(os.environ.get("WORLD_SIZE", "1")) > 1 or torch.cuda.device_count() > 1
    bare = "the loss of TRL that smooths labels is robust; the others would ignore it"
    for asked, what, fix in (
        (config.loss not in LOSSES, f"TRL has no loss {config.loss!r}", f"use one of {', '.join(LOSSES)}, or {_OURS}"),
        (config.label_smoothing and config.loss != "robust", bare, f'set loss = "robust", or {_OURS}'),
        (config.reference_free, "TRL always trains against a reference", f"reference_free = false, or {_OURS}"),
        (other, "through TRL the reference is the model that training starts from", f"no reference, or {_OURS}"),
        (config.quantize != "none", "through TRL the base is not held in 4 bits", f'quantize = "none", or {_OURS}'),
        (config.two_pass, "TRL does not split a step in two passes", f"a smaller batch_size, or {_OURS}"),
        (config.attention == "flex", "TRL does not pack pairs for FlexAttention", f'attention = "auto", or {_OURS}'),
        (config.paged_optimizer, "through TRL the optimiser is not paged", f"leave it out, or {_OURS}"),
        (config.checkpointed_layers, "TRL computes all layers again or none", f"checkpointed_layers = 0, or {_OURS}"),
        (processes, "the engine trl runs in one process on one GPU", "start it alone, with CUDA_VISIBLE_DEVICES=0"),
    ):
        if asked:
            raise UsageError(what, fix)
    wrong = sum(g.candidates[e.winner].wrong for g in groups for e in g.edges)
    if config.nll_weight and wrong:
        raise UsageError(
            f"TRL's NLL term teaches the winner of every pair, and {wrong} of the winners are wrong",
            f"build the groups without wrong_over_wrong, set nll_weight = 0, or {_OURS}",
        )
    edges = [e for g in groups for e in g.edges]
    unsure = sum(e.p != 1 for e in edges)
    uneven = sum(any(e.weight != edges[0].weight for e in g.edges) for g in groups)
    if unsure or uneven:
        raise UsageError(
            f"TRL takes every pair as certain and of weight 1: {unsure} of {len(edges)} pairs have another probability,"
            f" {uneven} of {len(groups)} prompts have edges of another weight",
            f"{_OURS}, or give edges without p and weight",
        )


def _advice(train: Sequence[TokenGroup], config: DPOConfig) -> list[str]:
    """The advice of hafs' engine, and what it means for these prompts that TRL counts pairs."""
    counts = [len(g.edges) for g in train if g.edges]
    step = min(config.batch_size * config.gradient_accumulation_steps, sum(counts))
    prompts = step * len(counts) / sum(counts)
    in_prompts = config.model_copy(update={"batch_size": max(1, round(prompts)), "gradient_accumulation_steps": 1})
    said = recipe_advice(in_prompts, len(train))
    if max(counts) > 1:
        said.append(f"TRL counts pairs: a step was {step} of them, about {prompts:.3g} prompts")
    if min(counts) != max(counts):
        said.append(
            f"prompts have {min(counts)} to {max(counts)} pairs and every pair weighs alike: the ones with more pull"
            f" harder (--engine hafs weighs prompts alike)"
        )
    return said
