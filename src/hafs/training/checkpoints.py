"""Checkpoints of a training run: atomic directories, exact resume, and a refusal when what is trained has changed.

A run's directory holds `run.json` (what is trained on what), `log.jsonl` (one line a step), `checkpoints/step-N` (the
trainable weights, the optimiser, the position, and a hash of each of these files), and at the end the model itself.
One process (or one group of them) trains in it at a time: `RunDirectory.held`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hafs.errors import HafsError, UsageError
from hafs.files.activity import record_folder
from hafs.files.jsonl import atomic_write

_LOCK, _HOLDER = ".lock", ".holder.json"
_WEIGHTS, _STATE, _HASHES = "weights.safetensors", "state.pt", "hashes.json"
_UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, SafetensorError)
"""What reading a checkpoint that is cut short, altered or not one raises."""


class RunDirectory:
    """The files of one training run. `damaged` says which checkpoints could not be used, and why."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.jsonl"
        self.damaged: list[str] = []
        self._run = path / "run.json"
        self._checkpoints = path / "checkpoints"

    @contextmanager
    def held(self, mine: bool = True) -> Iterator[None]:
        """Keep every other run out of the directory meanwhile (if this process is the one that holds it).

        The lock is the operating system's, so it ends with the process that holds it, however that ends. Raises
        HafsError naming who holds it.
        """
        if not mine:
            yield
            return
        made = not self.path.exists()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK)
            lock.acquire(timeout=1)
        except Timeout as e:
            raise HafsError(
                f"{self.path} is in use: {self._holder()} trains there",
                "wait until that run has ended, or stop it: the same command then goes on from its last checkpoint",
            ) from e
        except (OSError, ValueError) as e:
            raise HafsError(f"{self.path} cannot be written: {e}", "choose another --output_dir") from e
        try:
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), "command": sys.argv}
            with atomic_write(self.path / _HOLDER) as f:
                json.dump(about, f)
            record_folder(self.path)
            yield
            if result := self._ended():
                self._tidy(result)  # the process that ended it may have been killed before it did
        finally:
            (self.path / _HOLDER).unlink(missing_ok=True)
            if self._over():  # nobody will train here: nothing of this stays
                (self.path / _LOCK).unlink(missing_ok=True)
                if made:
                    with suppress(OSError):  # it holds something now
                        self.path.rmdir()
            lock.release()

    def _over(self) -> bool:
        """Whether the directory holds no run, or one that has ended."""
        return not self._run.is_file() or self._ended() is not None

    def _ended(self) -> dict[str, Any] | None:
        with suppress(HafsError):
            return self.finished()
        return None

    def _holder(self) -> str:
        """Who holds the directory, in words."""
        try:
            about = json.loads((self.path / _HOLDER).read_text(encoding="utf-8"))
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(about["since"]))
            words = " ".join(map(str, about["command"]))
            return f"process {about['pid']} on {about['host']} (since {since}: {words[:120]})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def claim(
        self, identity: Mapping[str, Any], writes: bool = True, defaults: Mapping[str, Any] | None = None
    ) -> None:
        """Make this the run of `identity` (if this process `writes`), or check that it already is.

        `defaults` are the settings' default values: a run begun before there was a setting had its default. Raises
        UsageError naming what differs (data, model, template, settings) from the run that is here.
        """
        if not self._run.is_file():
            own = (".*.part", _LOCK, _HOLDER)
            if self.path.is_dir() and any(not any(map(p.match, own)) for p in self.path.iterdir()):
                raise UsageError(f"{self.path} is not empty and holds no training run", "choose another --output_dir")
            if writes:
                with atomic_write(self._run) as f:
                    json.dump({"identity": dict(identity)}, f, indent=1)
            return
        before = self.about()["identity"]
        settings = {**(defaults or {}), **before.get("settings", {})}
        changed = list(_changes({**before, "settings": settings} if settings else before, identity))
        if changed:
            words = ", ".join(changed)
            raise UsageError(
                f"{self.path} holds a run that differs in: {words}",
                "choose another --output_dir, or delete that one to train anew",
            )

    def about(self) -> dict[str, Any]:
        """What `run.json` says: the identity of the run, and its result when it has ended."""
        try:
            data = json.loads(self._run.read_text(encoding="utf-8"))
            if not isinstance(data["identity"], dict):
                raise ValueError("it names no run")
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise HafsError(
                f"{self._run} is damaged: {e}", "choose another --output_dir, or delete that one to train anew"
            ) from e
        return dict(data)

    def recorded(self, setting: str) -> Any:
        """What the run that was begun here has for a setting; None without a run, or without such a setting."""
        return self.about()["identity"].get("settings", {}).get(setting) if self._run.is_file() else None

    def finished(self) -> dict[str, Any] | None:
        """The result of a run that has ended, or None."""
        result = self.about().get("result") if self._run.is_file() else None
        return dict(result) if result else None

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result; from now on the run is done, and only its best checkpoint is kept."""
        data = self.about()
        with atomic_write(self._run) as f:
            json.dump({**data, "result": dict(result)}, f, indent=1)
        self._tidy(result)

    def _tidy(self, result: Mapping[str, Any]) -> None:
        """Remove what a run that has ended needs no more."""
        for other in self.steps():
            if other != result.get("best_step"):
                shutil.rmtree(self._at(other))
        for left in (*self._checkpoints.glob(".step-*.damaged"), *self._checkpoints.glob(".step-*.part")):
            shutil.rmtree(left)

    def save(self, step: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], keep: set[int]) -> None:
        """Write the checkpoint of `step` whole or not at all; older ones go but for the one before and those to `keep`.

        It is on the disk, files and folder, before any other goes.
        """
        part = self._checkpoints / f".step-{step:06d}.part"
        shutil.rmtree(part, ignore_errors=True)
        before = [s for s in self.steps() if s < step]
        try:
            part.mkdir(parents=True)
            save_file({k: v.detach().cpu().contiguous() for k, v in weights.items()}, str(part / _WEIGHTS))
            torch.save(dict(state), part / _STATE)
            hashes = {name: _hash_of(part / name) for name in (_WEIGHTS, _STATE)}
            (part / _HASHES).write_text(json.dumps(hashes), encoding="utf-8")
            for written in (*part.iterdir(), part):
                _to_disk(written)
            shutil.rmtree(self._at(step), ignore_errors=True)
            part.replace(self._at(step))
            _to_disk(self._checkpoints)
        except (OSError, RuntimeError, SafetensorError) as e:
            shutil.rmtree(part, ignore_errors=True)
            raise HafsError(
                f"the checkpoint of step {step} could not be written: {e}",
                "free space and run the same command: training goes on from the last checkpoint",
            ) from e
        for other in self.steps():
            if other not in {step, *before[-1:], *keep}:
                shutil.rmtree(self._at(other))

    def weights(self, step: int) -> dict[str, torch.Tensor]:
        """The trainable weights of a checkpoint; raises HafsError if they are not what was written."""
        try:
            self._verify(step, _WEIGHTS)
            return load_file(str(self._at(step) / _WEIGHTS))
        except _UNREADABLE as e:
            raise HafsError(
                f"the checkpoint of step {step} in {self.path} is damaged: {_words(e)}",
                "delete that run's directory and train anew",
            ) from e

    def latest(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Weights and state of the newest checkpoint that is intact, or None before the first.

        Damaged ones, and those whose best weights are damaged, are put aside (`damaged` names them). Raises HafsError
        when there are checkpoints and none is intact.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                self._verify(step, _STATE)
                state = torch.load(self._at(step) / _STATE, weights_only=True)
                found = self.weights(step), state
                if (best := state.get("best_step", step)) != step:
                    self.weights(best)
                return found
            except (HafsError, *_UNREADABLE) as e:
                why = e.what if isinstance(e, HafsError) else _words(e)
                self.damaged.append(f"the checkpoint of step {step} is not usable ({why}): the one before was taken")
                self._at(step).replace(self._checkpoints / f".step-{step:06d}.damaged")
        if steps:
            raise HafsError(
                f"no checkpoint in {self._checkpoints} is intact: {'; '.join(self.damaged)}",
                "delete that run's directory and train anew",
            )
        return None

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are there."""
        return sorted(int(p.name[5:]) for p in self._checkpoints.glob("step-*") if p.name[5:].isdecimal())

    def _verify(self, step: int, name: str) -> None:
        """Raise ValueError if a file is not what was written; checkpoints from before there were hashes have none."""
        hashes = self._at(step) / _HASHES
        if not hashes.is_file():
            return
        if json.loads(hashes.read_text(encoding="utf-8"))[name] != _hash_of(self._at(step) / name):
            raise ValueError(f"{name} is not what was written")

    def _at(self, step: int) -> Path:
        return self._checkpoints / f"step-{step:06d}"


def _words(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


def _hash_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # a line that is none is lost
                row = json.loads(line)
                if row["step"] <= step:
                    rows.append(row)
        with atomic_write(path) as f:
            f.writelines(json.dumps(r) + "\n" for r in rows)
    return rows
