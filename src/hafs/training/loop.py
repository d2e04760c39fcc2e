"""One training loop for every objective: step, clip, log, validate, checkpoint, exact resume.

A step takes `batch_size` x `gradient_accumulation_steps` groups in a seeded order, packs them into rows, and sums
their losses, so the result does not depend on how the step was split, nor over how many processes (started by
`accelerate launch` or `torchrun`). On one CPU in fp32 a run that was killed and started again ends bit for bit like
one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from hafs.config import TrainConfig
from hafs.errors import UsageError
from hafs.training.checkpoints import RunDirectory, trim_log
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.objectives import Objective, Sums, add, means
from hafs.training.packing import Piece, Row, StepRows, TokenGroup
from hafs.training.reference import ReferenceCache
from hafs.training.sharding import is_sharded, like, like_parameters, whole
from hafs.types import Progress, silent

Validate = Callable[[int, Any], Mapping[str, float]]
"""(step, network in evaluation mode) -> metrics; "score" (higher is better) picks the checkpoint."""


@dataclass
class TrainResult:
    """How a run ended: the step whose weights are kept, its validation metrics, warnings in words.

    `report` is what a reward model reached on the held-out prompts; `stopped` why a run ended before its last step;
    `gpu_mb` the most MiB of a GPU that the process held.
    """

    steps: int
    best_step: int
    best: dict[str, float]
    seconds: float
    tokens: int
    dropped: int = 0
    warnings: list[str] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    stopped: str = ""
    gpu_mb: float = 0.0


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
        accelerator: Accelerator | None = None,
    ) -> None:
        if not train:
            raise UsageError("there is nothing to train on", "check the data and max_length")
        self.accelerator = accelerator or Accelerator()
        self.network, self.objective, self.train, self.valid = model, objective, train, valid
        self.config, self.run, self._reference = config, run, reference
        self._validate, self._progress = validate, progress if self.accelerator.is_main_process else silent
        trained = {n: p for n, p in model.net.named_parameters() if p.requires_grad}
        optimizer = torch.optim.AdamW(
            trained.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.parameters = {n: p for n, p in model.net.named_parameters() if p.requires_grad}  # FSDP has replaced them
        self.groups_per_step = config.batch_size * config.gradient_accumulation_steps
        self.steps_per_epoch = math.ceil(len(train) / self.groups_per_step)
        self.total = max(1, math.ceil(self.steps_per_epoch * config.num_epochs))
        self._state: dict[str, Any] = {"step": 0, "best_step": 0, "best": {}, "seconds": 0.0, "tokens": 0}

    @property
    def best_step(self) -> int:
        """The step whose weights are the best so far."""
        return int(self._state["best_step"])

    def fit(self) -> TrainResult:
        """Train to the end (from the newest checkpoint if there is one); leaves the best weights in the model."""
        if self.run.latest() is None:
            if self.accelerator.is_main_process:
                trim_log(self.run.log, -1)
            self._check(0)
            self._save()
        else:
            if self._validate is not None:
                self.model.eval()
                self._asked(0)  # what later steps are compared with, while the model is still the one it began as
            self._resume()
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
            self.total, self._state["best_step"], self._state["best"], self._state["seconds"], self._state["tokens"]
        )

    def _step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its mean metrics."""
        groups = self._batch(step)
        rate = learning_rate(self.config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        rows = self._rows(groups)
        scale = self.accelerator.num_processes / self.objective.normaliser(groups)  # processes' gradients are averaged
        work = rows.of(self.accelerator.process_index)
        sums = (self._two_passes if rows.split else self._one_pass)(work, scale, step)
        sums["tokens"] = (float(sum(r.tokens for r in work if r.counts)), 0.0)
        sums = self._of_all(sums)
        self._state["tokens"] += int(sums.pop("tokens")[0])
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        epoch = step / self.steps_per_epoch
        return {**means(sums), "grad_norm": float(whole(norm)), "learning_rate": rate, "epoch": round(epoch, 4)}

    def _one_pass(self, work: Sequence[Piece], scale: float, step: int) -> Sums:
        """Forward and backward, row by row."""
        sums: Sums = {}
        for i, piece in enumerate(work):
            row = self.network.row(piece.groups)
            with self._gradients(last=i + 1 == len(work)):
                loss, metrics = self.objective.loss(self._logps(row, piece, step), self._reference_of(row), row)
                self.accelerator.backward(loss * (scale if piece.counts else 0.0))
            if piece.counts:
                add(sums, metrics)
        return sums

    def _two_passes(self, work: Sequence[Piece], scale: float, step: int) -> Sums:
        """First every log-probability without gradients, then row by row the gradient that the loss has for its part.

        The activations of one row are all that is kept, however many candidates a group has. (Gao et al. 2021,
        "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", do so for contrastive losses.)
        """
        parts = self._forward(work, step)
        leaves = [part.requires_grad_() for part in parts]
        loss, sums = self._loss_of(work, leaves)
        if sums:
            loss.backward()
        for i, (leaf, piece) in enumerate(zip(leaves, work, strict=True)):
            slope = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            with self._gradients(last=i + 1 == len(work)):
                self.accelerator.backward(
                    (self._logps(self.network.row(piece.groups), piece, step) * slope).sum() * scale
                )
        return sums

    @torch.no_grad()
    def _forward(self, work: Sequence[Piece], step: int) -> list[torch.Tensor]:
        """Each piece's log-probabilities [labels], without gradients."""
        return [self._logps(self.network.row(piece.groups), piece, step) for piece in work]

    def _loss_of(self, work: Sequence[Piece], parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Sums]:
        """The loss of the pieces that count, taken together, and its metrics."""
        mine = [(piece, part) for piece, part in zip(work, parts, strict=True) if piece.counts]
        if not mine:
            return torch.zeros(()), {}
        whole_row = self.network.row([g for piece, _ in mine for g in piece.whole])
        return self.objective.loss(torch.cat([part for _, part in mine]), self._reference_of(whole_row), whole_row)

    def _logps(self, row: Row, piece: Piece, step: int) -> torch.Tensor:
        """[labels] of the model in training. Dropout is a matter of seed, step and row alone: not of what ran before,
        nor of which process computes the row."""
        torch.manual_seed((self.config.seed * 1_000_003 + step) * 100_003 + piece.index)
        with autocast(self.network, self.config.precision):
            return self.model(row)

    @contextmanager
    def _gradients(self, last: bool) -> Iterator[None]:
        """Processes exchange their gradients once a step, with the last row."""
        with nullcontext() if last else self.accelerator.no_sync(self.model):
            yield

    def _of_all(self, sums: Sums) -> Sums:
        """The metric sums of all processes together."""
        total: Sums = {}
        for part in gather_object([sums]):
            add(total, part)
        return total

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
            metrics |= {f"eval/{k}": float(v) for k, v in self._asked(step).items()}
        score = metrics.get("eval/score", -metrics.get("eval/loss", -float(step)))
        best = self._state["best"].get("score")
        if best is None or score > best:
            self._state["best_step"], self._state["best"] = step, {"score": score, **metrics}
        self._log({"step": step, **metrics})
        self._progress("validated", step, self.total, metrics)

    def _asked(self, step: int) -> Mapping[str, float]:
        """What the caller's validation says; one process asks, unless each holds only a part of the model."""
        assert self._validate is not None
        said: list[Any] = [None]
        if self.accelerator.is_main_process or is_sharded(self.parameters.values()):
            said = [dict(self._validate(step, self.network.net))]
        return broadcast_object_list(said)[0]

    @torch.no_grad()
    def _held_out(self) -> dict[str, float]:
        """The objective on the validation groups."""
        work = self._rows(self.valid).of(self.accelerator.process_index)
        return means(self._of_all(self._loss_of(work, self._forward(work, 0))[1]))

    def _rows(self, groups: Sequence[TokenGroup]) -> StepRows:
        config, processes = self.config, self.accelerator.num_processes
        return StepRows(groups, config.row_tokens, config.two_pass, processes, self.network.shared)

    def _reference_of(self, row: Row) -> torch.Tensor:
        """The row's reference log-probabilities from the cache; zeros for an objective without a reference."""
        by_token = self.objective.reference_by_token
        if not self.objective.uses_reference or self._reference is None:
            return torch.zeros(len(row.labels if by_token else row.lengths), device=row.lengths.device)
        found: list[float] = []
        for group in row.groups:
            found += self._reference.get(group) or []
        return torch.tensor(found, device=row.lengths.device)

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.run.log.open("a", encoding="utf-8") as f:
                f.write(json.dumps(dict(row)) + "\n")
        if self.config.trackers:
            figures = {k: v for k, v in row.items() if k != "step"}
            self.accelerator.log(figures, step=row["step"])

    def _save(self) -> None:
        """A checkpoint: whole tensors, whichever way the processes have shared them, so any number of them resumes."""
        weights = {n: whole(p) for n, p in self.parameters.items()}
        state = {**self._state, "optimizer": whole(self.optimizer.state_dict())}
        if self.accelerator.is_main_process:
            self.run.save(self._state["step"], weights, state, keep={self._state["best_step"]})
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        found = self.run.latest()
        assert found is not None
        weights, state = found
        if self.accelerator.is_main_process:
            trim_log(self.run.log, state["step"])
        self._load(weights)
        self.optimizer.load_state_dict(like_parameters(state.pop("optimizer"), list(self.parameters.values())))
        self._state = state

    @torch.no_grad()
    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(like(weights[name], parameter))


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """The rate of a step (1-based): linear warm-up, then the schedule down to 0 after the last step."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step <= warmup:
        return config.learning_rate * step / warmup
    share = (step - warmup) / max(1, total - warmup + 1)
    factor = {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "constant": 1.0}
    return config.learning_rate * factor[config.schedule]


def result_dict(result: TrainResult) -> dict[str, Any]:
    """A result as JSON, at the end of the run's process: with what it held of a GPU."""
    if torch.cuda.is_available():
        result.gpu_mb = torch.cuda.max_memory_allocated() / 2**20
    return asdict(result)
