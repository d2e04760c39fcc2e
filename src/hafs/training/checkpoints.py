"""Checkpoints of a training run: atomic directories, exact resume, and a refusal when what is trained has changed.

A run's directory holds `run.json` (what is trained on what), `log.jsonl` (one line a step), `checkpoints/step-N` (the
trainable weights, the optimiser, the random state, the position), and at the end the model itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hafs.errors import HafsError, UsageError
from hafs.files.jsonl import atomic_write


class RunDirectory:
    """The files of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.jsonl"
        self._run = path / "run.json"
        self._checkpoints = path / "checkpoints"

    def claim(self, identity: Mapping[str, Any], writes: bool = True) -> None:
        """Make this the run of `identity` (if this process `writes`), or check that it already is.

        Raises UsageError naming what differs (data, model, template, settings) from the run that is here.
        """
        if not self._run.is_file():
            if self.path.is_dir() and any(not p.match(".*.part") for p in self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and holds no training run", "choose another --output_dir")
            if writes:
                with atomic_write(self._run) as f:
                    json.dump({"identity": dict(identity)}, f, indent=1)
            return
        before = json.loads(self._run.read_text(encoding="utf-8"))["identity"]
        changed = list(_changes(before, identity))
        if changed:
            words = ", ".join(changed)
            raise UsageError(
                f"{self.path} holds a run that differs in: {words}",
                "choose another --output_dir, or delete that one to train anew",
            )

    def finished(self) -> dict[str, Any] | None:
        """The result of a run that has ended, or None."""
        result = json.loads(self._run.read_text(encoding="utf-8")).get("result")
        return dict(result) if result else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result; from now on the run is done, and only its best checkpoint is kept."""
        data = json.loads(self._run.read_text(encoding="utf-8"))
        with atomic_write(self._run) as f:
            json.dump({**data, "result": dict(result)}, f, indent=1)
        for other in self._steps():
            if other != result.get("best_step"):
                shutil.rmtree(self._at(other))

    def save(self, step: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], keep: set[int]) -> None:
        """Write the checkpoint of `step` whole or not at all; older ones not in `keep` go."""
        part = self._checkpoints / f".step-{step:06d}.part"
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, str(part / "weights.safetensors"))
            torch.save(dict(state), part / "state.pt")
            shutil.rmtree(self._at(step), ignore_errors=True)
            part.replace(self._at(step))
        except (OSError, RuntimeError, SafetensorError) as e:
            shutil.rmtree(part, ignore_errors=True)
            raise HafsError(
                f"the checkpoint of step {step} could not be written: {e}",
                "free space and run the same command: training goes on from the last checkpoint",
            ) from e
        for other in self._steps():
            if other != step and other not in keep:
                shutil.rmtree(self._at(other))

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        """The trainable weights of a checkpoint."""
        return load_file(str(self._at(step) / "weights.safetensors"))

    def latest(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Weights and state of the newest checkpoint, or None before the first."""
        steps = self._steps()
        if not steps:
            return None
        state = torch.load(self._at(steps[-1]) / "state.pt", weights_only=True)
        return self.weights(steps[-1]), state

    def _at(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:06d}"

    def _steps(self) -> list[int]:
        return sorted(int(p.name[5:]) for p in self._checkpoints.glob("step-*"))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """What differs, in words: "data (was 'a', is 'b')"; of the settings, which."""
    for key in sorted({*before, *now}):
        was, is_ = before.get(key), now.get(key)
        if isinstance(was, dict) and isinstance(is_, dict):
            yield from _changes(was, is_, f"{prefix}{key}.")
        elif was != is_:
            yield f"{prefix}{key} (was {was!r}, is {is_!r})"


def trim_log(path: Path, step: int) -> list[dict[str, Any]]:
    """Drop the log's lines after `step` (they will be written again) and return the ones that stay."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                rows.append(row)
        with atomic_write(path) as f:
            f.writelines(json.dumps(r) + "\n" for r in rows)
    return rows
