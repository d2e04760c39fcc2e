"""One training loop for every objective: step, clip, log, validate, checkpoint, exact resume.

A step takes `batch_size` x `gradient_accumulation_steps` groups in a seeded order, packs them into rows, and sums
their losses, so the result does not depend on how the step was split. On one CPU in fp32 a run that was killed and
started again ends bit for bit like one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from peft.helpers import disable_input_dtype_casting

from hafs.config import TrainConfig
from hafs.errors import UsageError
from hafs.loading import pick_precision
from hafs.training.checkpoints import RunDirectory, trim_log
from hafs.training.logprobs import CandidateLogps, ReferenceCache
from hafs.training.objectives import Objective, Sums, add, means
from hafs.training.packing import Row, TokenGroup, pack
from hafs.types import Progress, silent

Validate = Callable[[int, Any], Mapping[str, float]]
"""(step, network in evaluation mode) -> metrics; "score" (higher is better) picks the checkpoint."""


@dataclass
class TrainResult:
    """How a run ended: the step whose weights are kept, its validation metrics, and the whole log."""

    steps: int
    best_step: int
    best: dict[str, float]
    seconds: float
    tokens: int
    dropped: int = 0
    warnings: list[str] = field(default_factory=list)


class Trainer:
    """Trains `model` on token groups and keeps the best checkpoint by validation score."""

    def __init__(
        self,
        model: CandidateLogps,
        objective: Objective,
        train: Sequence[TokenGroup],
        valid: Sequence[TokenGroup],
        config: TrainConfig,
        run: RunDirectory,
        *,
        reference: ReferenceCache | None = None,
        validate: Validate | None = None,
        progress: Progress = silent,
    ) -> None:
        if not train:
            raise UsageError("there is nothing to train on", "check the data and max_length")
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            raise UsageError("training runs in one process", "start it without accelerate launch or torchrun")
        self.objective, self.train, self.valid, self.config, self.run = objective, train, valid, config, run
        self._reference, self._validate, self._progress = reference, validate, progress
        self.parameters = {n: p for n, p in model.net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.groups_per_step = config.batch_size * config.gradient_accumulation_steps
        self.steps_per_epoch = math.ceil(len(train) / self.groups_per_step)
        self.total = max(1, math.ceil(self.steps_per_epoch * config.num_epochs))
        self._state: dict[str, Any] = {"step": 0, "best_step": 0, "best": {}, "seconds": 0.0, "tokens": 0}

    def fit(self) -> TrainResult:
        """Train to the end (from the newest checkpoint if there is one); leaves the best weights in the model."""
        torch.manual_seed(self.config.seed)
        self._prepare_reference()
        if not self._resume():
            self._check(0)
            self._save()
        started = time.monotonic() - self._state["seconds"]
        while self._state["step"] < self.total:
            step = self._state["step"] = self._state["step"] + 1
            metrics = self._step(step)
            self._state["seconds"] = time.monotonic() - started
            self._log({"step": step, **metrics, "seconds": round(self._state["seconds"], 2)})
            self._progress("training", step, self.total, metrics)
            checked = self._due(step)
            if checked:
                self._check(step)
            if checked or step % self.config.save_steps == 0:
                self._save()
        self._load(self.run.weights(self._state["best_step"]))
        return TrainResult(
            self.total,
            self._state["best_step"],
            self._state["best"],
            self._state["seconds"],
            self._state["tokens"],
        )

    def _step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its mean metrics."""
        groups = self._batch(step)
        normaliser = self.objective.normaliser(groups)
        rate = learning_rate(self.config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        sums: Sums = {}
        for members in pack(groups, self.config.row_tokens):
            row = self.model.row(members)
            with self._autocast():
                logps = self.model(row)
                loss, metrics = self.objective.loss(logps, self._reference_of(row), row)
            self.accelerator.backward(loss / normaliser)
            add(sums, metrics)
            self._state["tokens"] += row.input_ids.numel()
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        epoch = step / self.steps_per_epoch
        return {**means(sums), "grad_norm": float(norm), "learning_rate": rate, "epoch": round(epoch, 4)}

    def _batch(self, step: int) -> list[TokenGroup]:
        """The groups of a step: a slice of the epoch's seeded permutation."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.train), generator=generator).tolist()
        first = position * self.groups_per_step
        return [self.train[i] for i in order[first : first + self.groups_per_step]]

    def _due(self, step: int) -> bool:
        every = self.config.eval_steps or self.steps_per_epoch
        return step % every == 0 or step == self.total

    def _check(self, step: int) -> None:
        """Validate and remember the step when it is the best so far (of equals the earlier one)."""
        self.model.eval()
        metrics = {f"eval/{k}": v for k, v in self._held_out().items()}
        if self._validate is not None:
            metrics |= {f"eval/{k}": float(v) for k, v in self._validate(step, self.model.net).items()}
        score = metrics.get("eval/score", -metrics.get("eval/loss", -float(step)))
        best = self._state["best"].get("score")
        if best is None or score > best:
            self._state["best_step"], self._state["best"] = step, {"score": score, **metrics}
        self._log({"step": step, **metrics})
        self._progress("validated", step, self.total, metrics)

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        sums: Sums = {}
        for members in pack(self.valid, self.config.row_tokens):
            row = self.model.row(members)
            with self._autocast():
                add(sums, self.objective.loss(self.model(row), self._reference_of(row), row)[1])
        return means(sums)

    @torch.no_grad()
    def _prepare_reference(self) -> None:
        """Reference log-probabilities of all groups into the cache, row by row in a fixed plan."""
        if not self.objective.uses_reference or self._reference is None:
            return
        self.model.eval()
        rows = pack([*self.train, *self.valid], self.config.row_tokens)
        for done, members in enumerate(rows, 1):
            if any(self._reference.get(g) is None for g in members):
                with self.model.net.disable_adapter(), self._autocast():
                    self._reference.put(members, self.model(self.model.row(members)).tolist())
            self._progress("reference", done, len(rows), {})

    def _reference_of(self, row: Row) -> torch.Tensor:
        """[candidates] reference log-probabilities of a row; zeros for an objective without a reference."""
        if not self.objective.uses_reference or self._reference is None:
            return torch.zeros(len(row.lengths), device=row.lengths.device)
        sums: list[float] = []
        for group in row.groups:
            sums += self._reference.get(group) or []
        return torch.tensor(sums, device=row.lengths.device)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        """Compute in the run's precision; an adapter then needs no float32 copy of its input."""
        if pick_precision(self.config.precision) != "bf16":
            yield
            return
        device = self.accelerator.device.type
        with torch.autocast(device, dtype=torch.bfloat16), disable_input_dtype_casting(self.model):
            yield

    def _log(self, row: Mapping[str, Any]) -> None:
        with self.run.log.open("a", encoding="utf-8") as f:
            f.write(json.dumps(dict(row)) + "\n")

    def _save(self) -> None:
        state = {**self._state, "optimizer": self.optimizer.state_dict(), "rng": torch.get_rng_state()}
        if torch.cuda.is_available():
            state["cuda_rng"] = torch.cuda.get_rng_state_all()
        self.run.save(self._state["step"], self.parameters, state, keep={self._state["best_step"]})

    def _resume(self) -> bool:
        found = self.run.latest()
        trim_log(self.run.log, found[1]["step"] if found else -1)
        if found is None:
            return False
        weights, state = found
        self._load(weights)
        self.optimizer.load_state_dict(state.pop("optimizer"))
        torch.set_rng_state(state.pop("rng"))
        if "cuda_rng" in state:
            torch.cuda.set_rng_state_all(state.pop("cuda_rng"))
        self._state = state
        return True

    @torch.no_grad()
    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(weights[name])


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The rate of a step (1-based): linear warm-up, then the schedule down to 0 after the last step."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step <= warmup:
        return config.learning_rate * step / warmup
    share = (step - warmup) / max(1, total - warmup + 1)
    factor = {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "constant": 1.0}
    return config.learning_rate * factor[config.schedule]


def result_dict(result: TrainResult) -> dict[str, Any]:
    """A result as JSON."""
    return asdict(result)
