"""The course of a training run, the same for every objective: order, seeds, check, keep the best, save, resume, log.

A subclass has the step and nothing else of this: `Trainer` (loop.py) for SFT, preferences and rewards, `PPOTrainer`
(ppo.py). On one CPU in fp32 a run that was killed and started again ends bit for bit like one that was not.
"""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from hafs.config import TrainConfig
from hafs.errors import HafsError
from hafs.training.checkpoints import RunDirectory, trim_log
from hafs.training.sharding import all_finite, is_sharded, like, like_parameters, whole
from hafs.types import Progress, silent

Validate = Callable[[int, Any], Mapping[str, float]]
"""(step, network in evaluation mode) -> metrics; "score" (higher is better) picks the checkpoint.

Without a "score" nothing could be told of the step, and it is not picked."""


RARELY = 20.0
"""Checkpoints due by the clock come at least so many times what the last one took apart: they take 5 % of the time."""


@dataclass
class TrainResult:
    """How a run ended: the step whose weights are kept, its validation metrics, warnings in words.

    `report` is what a reward model reached on the held-out prompts; `stopped` why a run ended before its last step;
    `gpu_mb` the most MiB of a GPU that the process held; `row_tokens` the tokens of a row (0: not of this engine).
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
    row_tokens: int = 0


class Runner(ABC):
    """Takes a run from its first step, or from its newest checkpoint, to its end; keeps the best by validation."""

    parameters: dict[str, Any]
    """What is trained, by name; the subclass sets it and `optimizer`."""
    optimizer: Any

    def __init__(
        self,
        config: TrainConfig,
        run: RunDirectory,
        items: int,
        *,
        validate: Validate | None,
        progress: Progress,
        accelerator: Accelerator | None = None,
        track: Callable[[Mapping[str, Any], int], None] | None = None,
        more_state: Mapping[str, Any] | None = None,
    ) -> None:
        """`items` is the number of groups or prompts of an epoch; `track` is given every line of the log and its step.

        `more_state` is what a subclass remembers in `_state` beside the common things, with its first values.
        """
        self.config, self.run, self.accelerator, self._items = config, run, accelerator, items
        self.main = accelerator is None or accelerator.is_main_process
        self._validate, self._track = validate, track
        self._progress = progress if self.main else silent
        self.items_per_step = config.batch_size * config.gradient_accumulation_steps
        self.steps_per_epoch = math.ceil(items / self.items_per_step)
        self.total = max(1, math.ceil(self.steps_per_epoch * config.num_epochs))
        self._state: dict[str, Any] = {
            "step": 0,
            "best_step": 0,
            "best": {},
            "seconds": 0.0,
            "tokens": 0,
            "checks": 0,
            "unjudged": 0,
            "stopped": "",
            **(more_state or {}),
        }
        self._times: dict[str, list[float]] = {"step": [], "check": []}
        self._shown = self._saved = time.monotonic()
        self._save_took, self._checked = 0.0, -1

    # ---- what a subclass has

    @abstractmethod
    def step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns its metrics."""

    @abstractmethod
    def validating(self) -> AbstractContextManager[Any]:
        """The network in evaluation mode meanwhile; yields what `validate` is given."""

    def held_out(self) -> dict[str, float]:
        """The objective's metrics on held-out data; "loss" picks the checkpoint where no `validate` does."""
        return {}

    def trouble(self, metrics: Mapping[str, float]) -> str:
        """What has gone wrong with the model, so that training must stop, in words; or nothing."""
        return ""

    def enough(self) -> str:
        """That the minutes are used, where the settings limit them; or nothing."""
        limit = getattr(self.config, "max_minutes", 0.0)
        over = limit and self._state["seconds"] > 60 * limit
        return f"the {limit:g} minutes it was given are used" if over else ""

    def judged(self, metrics: Mapping[str, float], score: float | None, best: bool) -> str:
        """Hears of every validation; returns why training should stop, in words, or nothing."""
        return ""

    def track(self, figures: Callable[[Mapping[str, Any], int], None] | None) -> None:
        """Give every line of the log, and its step, to `figures` too."""
        self._track = figures

    # ---- the course

    @property
    def best_step(self) -> int:
        """The step whose weights are the best so far."""
        return int(self._state["best_step"])

    def fit(self) -> TrainResult:
        """Train to the end or to a reason to stop; leaves the best weights in the network.

        Raises HafsError at once for a loss, a gradient or a weight that is no number; the last checkpoint stays.
        """
        self._begin()
        started = time.monotonic() - self._state["seconds"]
        while self._state["step"] < self.total and not self._state["stopped"]:
            step = self._state["step"] = self._state["step"] + 1
            with self._timed("step"):
                metrics = self.step(step)
            if not all_finite(self.parameters.values()):
                raise self.unsound(f"the weights after step {step} are no numbers any more")
            self._state["seconds"] = time.monotonic() - started
            self._log({"step": step, **metrics, "seconds": round(self._state["seconds"], 2)})
            self._show("training", step, metrics)
            trouble = self.trouble(metrics)
            self._state["stopped"] = trouble or self.enough()
            checked = bool(self._state["stopped"]) or self._due(step)
            if checked:
                self._check(step, sound=not trouble)
            if checked or step % self.config.save_steps == 0 or self._long_unsaved():
                self._save()
        self._load(self.run.weights(self.best_step))
        return self._result()

    def _begin(self) -> None:
        """Step 0, or where the newest intact checkpoint stands."""
        found = self.run.latest() if self.main or not self._many else None
        if self._many:
            self._wait()
            found = self.run.latest()  # damaged ones have been put aside by the main process
        if found is None:
            if self.main:
                trim_log(self.run.log, -1)
            self._check(0)
            self._save()
            return
        if self._validate is not None:
            with self.validating() as net:
                self._asked(0, net)  # what later steps are compared with, while the model is still the one it began as
        self._resume(*found)

    def _result(self) -> TrainResult:
        s = self._state
        warnings = [f"{self.run.path}: {said}" for said in self.run.damaged]
        if s["unjudged"]:
            warnings.append(
                f"{s['unjudged']} of {s['checks']} validations had no score (too few answers could be scored): their"
                " steps could not be picked"
            )
        return TrainResult(
            s["step"], self.best_step, s["best"], s["seconds"], s["tokens"], warnings=warnings, stopped=s["stopped"]
        )

    # ---- order and seeds

    def drawn(self, step: int) -> list[int]:
        """Which items a step takes: a slice of the epoch's seeded permutation."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, epoch))
        order = torch.randperm(self._items, generator=generator).tolist()
        return order[position * self.items_per_step : (position + 1) * self.items_per_step]

    def set_rate(self, step: int) -> float:
        """Give the optimiser the learning rate of a step; returns it."""
        rate = learning_rate(self.config, step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    # ---- soundness

    def unsound(self, what: str) -> HafsError:
        """The error for something that is no number; the last checkpoint is sound and stays."""
        kept = [s for s in self.run.steps() if s < self._state["step"]]
        where = f"; the checkpoint of step {kept[-1]} is kept" if kept else ""
        return HafsError(
            f"training stopped at step {self._state['step']}: {what}{where}",
            "a lower learning rate or another precision (--precision fp32) with another --output_dir; if it is always"
            " the same group, look at that row of the data",
        )

    # ---- check, keep the best

    def _due(self, step: int) -> bool:
        every = self.config.eval_steps or self.steps_per_epoch
        return step % every == 0 or step == self.total

    def _check(self, step: int, sound: bool = True) -> None:
        """Validate and remember the step when it is the best so far (of equals the earlier one)."""
        s = self._state
        with self._timed("check"), self.validating() as net:
            metrics = {f"eval/{k}": v for k, v in self.held_out().items()}
            if self._validate is not None:
                metrics |= {f"eval/{k}": float(v) for k, v in self._asked(step, net).items()}
        if "eval/loss" in metrics and not math.isfinite(metrics["eval/loss"]):
            raise self.unsound(f"the loss on the validation groups is {metrics['eval/loss']}")
        s["checks"] += 1
        self._checked = step
        score = metrics.get("eval/score") if self._validate is not None else _negative(metrics.get("eval/loss"))
        if score is not None and not math.isfinite(score):
            score = None
        better = score is not None and ("score" not in s["best"] or score > s["best"]["score"])
        s["stopped"] = self.judged(metrics, score, better) or s["stopped"]
        if better and score is not None:
            s["best_step"], s["best"] = step, {"score": score, **metrics}
        elif score is None and (self._validate is not None or "eval/loss" in metrics):
            s["unjudged"] += 1  # missing is missing: it picks nothing
        elif score is None and sound:
            s["best_step"] = step  # nothing is held out to choose by: the newest
        self._log({"step": step, **metrics})
        self._show("validated", step, metrics)

    def _asked(self, step: int, net: Any) -> Mapping[str, float]:
        """What the caller's validation says; one process asks, unless each holds only a part of the model."""
        assert self._validate is not None
        if not self._many:
            return self._validate(step, net)
        said: list[Any] = [None]
        if self.main or is_sharded(self.parameters.values()):
            said = [dict(self._validate(step, net))]
        return broadcast_object_list(said)[0]

    # ---- progress and log

    def tick(self, what: str = "training") -> None:
        """Show, once a second, that something moves inside a long step."""
        if time.monotonic() - self._shown >= 1:
            self._show(what, max(0, self._state["step"] - (what == "training")), {})

    def _show(self, what: str, done: int, figures: Mapping[str, float]) -> None:
        self._shown = time.monotonic()
        left = self._left()
        more = {} if left is None else {"seconds_left": left}
        self._progress(what, done, self.total, {**figures, **more})

    def _left(self) -> float | None:
        """Seconds to the end, validations included; None before the first step."""
        if not self._times["step"]:
            return None
        recent = self._times["step"][-20:]
        checks = sum(map(self._due, range(self._checked + 1, self.total + 1)))
        each = sum(self._times["check"]) / max(1, len(self._times["check"]))
        return sum(recent) / len(recent) * (self.total - self._state["step"]) + checks * each

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._times[kind].append(time.monotonic() - began)

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.main:
            with self.run.log.open("a", encoding="utf-8") as f:
                f.write(json.dumps(dict(row)) + "\n")
        if self._track is not None:
            self._track({k: v for k, v in row.items() if k != "step"}, row["step"])

    # ---- save and resume

    @property
    def _many(self) -> bool:
        return self.accelerator is not None and self.accelerator.num_processes > 1

    def _wait(self) -> None:
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def _long_unsaved(self) -> bool:
        """Whether the last checkpoint is minutes old; where saving takes long, it is done less often."""
        since = time.monotonic() - self._saved
        due = since > max(60 * self.config.save_minutes, RARELY * self._save_took)
        return bool(broadcast_object_list([due])[0]) if self._many else due

    def _save(self) -> None:
        """A checkpoint: whole tensors, whichever way the processes have shared them, so any number of them resumes."""
        began = time.monotonic()
        weights = {n: whole(p) for n, p in self.parameters.items()}
        state = {**self._state, "optimizer": whole(self.optimizer.state_dict())}
        if self.main:
            self.run.save(self._state["step"], weights, state, keep={self.best_step})
        self._wait()
        self._saved = time.monotonic()
        self._save_took = self._saved - began

    def _resume(self, weights: Mapping[str, torch.Tensor], state: dict[str, Any]) -> None:
        if self.main:
            trim_log(self.run.log, state["step"])
        self._load(weights)
        self.optimizer.load_state_dict(like_parameters(state.pop("optimizer"), list(self.parameters.values())))
        self._state |= state

    @torch.no_grad()
    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(like(weights[name], parameter))


def _negative(loss: float | None) -> float | None:
    return None if loss is None else -loss


def seed_of(seed: int, *numbers: int) -> int:
    """A seed for one draw of a run: of `seed` and the numbers of epoch, step or row, in torch's range for any seed."""
    mixed = seed
    for number, factor in zip(numbers, (1_000_003, 100_003), strict=False):
        mixed = mixed * factor + number
    return mixed % 2**63


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


def found_in(values: Sequence[float], groups: Sequence[int]) -> list[int]:
    """Which groups, of so many candidates each, hold a value that is no number."""
    found, first = [], 0
    for i, n in enumerate(groups):
        if not all(math.isfinite(v) for v in values[first : first + n]):
            found.append(i)
        first += n
    return found
