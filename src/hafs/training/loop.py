"""The step of every objective that learns from groups: forward, backward, clip, update; the course is runner.py's.

A step takes `batch_size` x `gradient_accumulation_steps` groups, packs them into rows, and sums their losses, so the
result does not depend on how the step was split, nor over how many processes (started by `accelerate launch` or
`torchrun`).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from hafs.config import TrainConfig
from hafs.errors import MissingTool, UsageError
from hafs.training.checkpoints import RunDirectory
from hafs.training.logprobs import CandidateLogps, autocast
from hafs.training.objectives import Objective, Sums, add, means
from hafs.training.objectives.labels import LabelObjective, mismatched
from hafs.training.packing import PackedRow, Piece, StepRows, TokenGroup
from hafs.training.reference import ReferenceCache
from hafs.training.router import token_weights
from hafs.training.runner import Runner, Validate, found_in, seed_of
from hafs.training.sharding import is_sharded, whole
from hafs.types import Progress, silent


def optimizer_of(parameters: Iterable[torch.nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; paged (Dettmers et al. 2023, "QLoRA", section 3), its states lie in memory that CUDA moves by itself.

    Raises UsageError for paging without a CUDA device, MissingTool without bitsandbytes.
    """
    mine = list(parameters)
    if not config.paged_optimizer:
        return torch.optim.AdamW(mine, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    if not any(p.is_cuda for p in mine):
        raise UsageError("a paged optimiser moves what a card has no room for: there is no card here", _NOT_PAGED)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingTool("a paged optimiser needs the package bitsandbytes", "pip install 'hafs[quant]'")
    from bitsandbytes.optim import PagedAdamW

    return PagedAdamW(mine, lr=config.learning_rate, weight_decay=config.weight_decay)


_NOT_PAGED = "leave out --paged-optimizer"


class Trainer(Runner):
    """Trains `model` on token groups by an objective; SFT, preferences and rewards differ in that alone."""

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
        words: Callable[[TokenGroup], str] | None = None,
    ) -> None:
        """`words` name a group in an error."""
        if not train:
            raise UsageError("there is nothing to train on: every prompt validates", "lower validation_share")
        crew = accelerator or Accelerator()
        track = (lambda figures, step: crew.log(dict(figures), step=step)) if config.trackers else None
        super().__init__(config, run, len(train), validate=validate, progress=progress, accelerator=crew, track=track)
        self.crew, self.network, self.objective, self.train, self.valid = crew, model, objective, train, valid
        self._step_tokens = 0
        self._mismatched: dict[int, TokenGroup] = {}
        if isinstance(objective, LabelObjective):
            for part in (train, valid):
                if part:
                    others = mismatched(part, config.max_length, train)
                    self._mismatched |= {id(g): other for g, other in zip(part, others, strict=True)}
        self._reference, self._words = reference, words or (lambda group: f"of {len(group.candidates)} candidates")
        trained = {n: p for n, p in model.net.named_parameters() if p.requires_grad}
        optimizer = optimizer_of(trained.values(), config)
        self.model, self.optimizer = crew.prepare(model, optimizer)
        self.parameters = {n: p for n, p in model.net.named_parameters() if p.requires_grad}  # FSDP has replaced them

    @contextmanager
    def validating(self) -> Iterator[Any]:
        """The network in evaluation mode."""
        self.model.eval()
        yield self.network.net

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its mean metrics."""
        groups = [self.train[i] for i in self.drawn(step)]
        rate = self.set_rate(step)
        self._set_kl(groups)
        self.model.train()
        rows = self._rows(groups)
        self._step_tokens = sum(len(g.prompt) + len(c) - 1 for g in groups for c in g.candidates)
        scale = self.crew.num_processes / self.objective.normaliser(groups)  # processes' gradients are averaged
        work = rows.of(self.crew.process_index)
        sums = (self._two_passes if rows.split else self._one_pass)(work, scale, step)
        sums["tokens"] = (float(sum(r.tokens for r in work if r.counts)), 0.0)
        sums = self._of_all(sums)
        self._state["tokens"] += int(sums.pop("tokens")[0])
        norm = float(whole(self.crew.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm)))
        if not math.isfinite(norm):
            raise self.unsound(f"the gradient is {norm}; the step's groups: {self._named(groups)}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        epoch = step / self.steps_per_epoch
        return {**means(sums), "grad_norm": norm, "learning_rate": rate, "epoch": round(epoch, 4)}

    def _finite(self, loss: torch.Tensor, values: torch.Tensor, row: PackedRow) -> torch.Tensor:
        """`loss`, if it is a number; else the error that names the groups of the row that it came from."""
        value = float(loss.detach())
        if math.isfinite(value):
            return loss
        by_answer = (row.sums(values) if len(values) == len(row.labels) else values).detach().tolist()
        bad = found_in(by_answer, [len(g.candidates) for g in row.groups])
        groups = [row.groups[i] for i in bad] or row.groups
        raise self.unsound(f"the loss is {value}, from {self._named(self._alone(groups) or groups)}")

    @torch.no_grad()
    def _alone(self, groups: Sequence[TokenGroup]) -> list[TokenGroup]:
        """Those of `groups` that give no numbers by themselves: in a row, one may spoil its neighbours."""
        if len(groups) == 1 or is_sharded(self.parameters.values()):  # the other processes would have to compute along
            return list(groups)
        with autocast(self.network, self.config.precision):
            return [g for g in groups if not self.network(self.network.row([g])).isfinite().all()]

    def _named(self, groups: Sequence[TokenGroup]) -> str:
        """Groups in words: their place in the data (1 is the first) and what they are about; four of them at most."""
        place = {g.prompt: f"group {i}" for i, g in enumerate(self.train, 1)}
        said = [f"{place.get(g.prompt, 'a validation group')} ({self._words(g)})" for g in groups[:4]]
        return ", ".join(said) + (f" and {len(groups) - 4} more" if len(groups) > 4 else "")

    def _one_pass(self, work: Sequence[Piece], scale: float, step: int) -> Sums:
        """Forward and backward, row by row."""
        sums: Sums = {}
        for i, piece in enumerate(work):
            row = self.network.row(piece.groups)
            with self._gradients(last=i + 1 == len(work)):
                values = self._logps(row, piece, step)
                loss, metrics = self.objective.loss(values, self._reference_of(row), row)
                total = self._finite(loss, values, row) * (scale if piece.counts else 0.0)
                self.crew.backward(self._with_routers(total, row, piece, metrics))
            if piece.counts:
                add(sums, metrics)
            self.tick()
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
                row = self.network.row(piece.groups)
                loss = (self._logps(row, piece, step) * slope).sum() * scale
                self.crew.backward(self._with_routers(loss, row, piece, sums))
            self.tick()
        return sums

    def _with_routers(self, loss: torch.Tensor, row: PackedRow, piece: Piece, sums: Sums) -> torch.Tensor:
        """`loss` with the router loss of a mixture of experts: the mean over the step's rows by what they hold."""
        balance, router = self.network.balance, self.network.router
        if balance is None or router is None:
            return loss
        tokens = int(token_weights(row).sum())
        if piece.counts:
            add(sums, {"router_loss": (float(balance.detach()) * tokens, tokens)})
        share = tokens / self._step_tokens if piece.counts else 0.0
        return loss + self.crew.num_processes * router.weight * share * balance

    @torch.no_grad()
    def _forward(self, work: Sequence[Piece], step: int) -> list[torch.Tensor]:
        """Each piece's log-probabilities [labels], without gradients."""
        found = []
        for piece in work:
            found.append(self._logps(self.network.row(piece.groups), piece, step))
            self.tick("training" if step else "validating")
        return found

    def _loss_of(self, work: Sequence[Piece], parts: Sequence[torch.Tensor]) -> tuple[torch.Tensor, Sums]:
        """The loss of the pieces that count, taken together, and its metrics."""
        mine = [(piece, part) for piece, part in zip(work, parts, strict=True) if piece.counts]
        if not mine:
            return torch.zeros(()), {}
        whole_row = self.network.row([g for piece, _ in mine for g in piece.whole])
        values = torch.cat([part for _, part in mine])
        loss, sums = self.objective.loss(values, self._reference_of(whole_row), whole_row)
        return self._finite(loss, values, whole_row), sums

    def _logps(self, row: PackedRow, piece: Piece, step: int) -> torch.Tensor:
        """[labels] of the model in training. Dropout is a matter of seed, step and row alone: not of what ran before,
        nor of which process computes the row."""
        torch.manual_seed(seed_of(self.config.seed, step, piece.index))
        with autocast(self.network, self.config.precision):
            return self.model(row)

    @contextmanager
    def _gradients(self, last: bool) -> Iterator[None]:
        """Processes exchange their gradients once a step, with the last row."""
        with nullcontext() if last else self.crew.no_sync(self.model):
            yield

    def _of_all(self, sums: Sums) -> Sums:
        """The metric sums of all processes together."""
        total: Sums = {}
        for part in gather_object([sums]):
            add(total, part)
        return total

    @torch.no_grad()
    def _set_kl(self, groups: Sequence[TokenGroup]) -> None:
        """Tell an objective of labels how far the policy is from the reference, by answers to other prompts."""
        if not isinstance(self.objective, LabelObjective) or not self.objective.uses_reference:
            return
        self.model.eval()
        others = [other for g in groups if (other := self._mismatched[id(g)]).candidates]
        sums: Sums = {}
        for piece in self._rows(others).of(self.crew.process_index) if others else []:
            row = self.network.row(piece.groups)
            with autocast(self.network, self.config.precision):
                ratio = row.sums(self.model(row)) - self._reference_of(row)
            if piece.counts:
                add(sums, {"kl": (float(ratio.sum()), len(ratio))})
            self.tick()
        self.objective.kl = max(0.0, means(self._of_all(sums)).get("kl", 0.0))

    @torch.no_grad()
    def held_out(self) -> dict[str, float]:
        """The objective on the validation groups."""
        self._set_kl(self.valid)
        work = self._rows(self.valid).of(self.crew.process_index)
        return means(self._of_all(self._loss_of(work, self._forward(work, 0))[1]))

    def _rows(self, groups: Sequence[TokenGroup]) -> StepRows:
        config, processes = self.config, self.crew.num_processes
        return StepRows(groups, config.row_tokens, config.two_pass, processes, self.network.shared)

    def _reference_of(self, row: PackedRow) -> torch.Tensor:
        """The row's reference log-probabilities from the cache; zeros for an objective without a reference."""
        by_token = self.objective.reference_by_token
        if not self.objective.uses_reference or self._reference is None:
            return torch.zeros(len(row.labels if by_token else row.lengths), device=row.lengths.device)
        found: list[float] = []
        for group in row.groups:
            found += self._reference.get(group) or []
        return torch.tensor(found, device=row.lengths.device)
