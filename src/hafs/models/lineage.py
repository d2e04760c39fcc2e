"""Where a model comes from: the training runs on disk, what each began with and was trained on.

A training directory holds `run.json` (what was trained on what, with hashes), `data.jsonl` (the groups it saw) and
`model`. Models are known by their content hash, so a directory may be moved or copied.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hafs.errors import HafsError
from hafs.models.naming import model_hash

__all__ = ["DATA_FILE", "Trained", "TrainingRun", "ancestry", "training_runs"]

DATA_FILE = "data.jsonl"
DEPTH = 5  # levels of directories below a root in which runs are looked for
_SKIP = {"checkpoints", "model", "trackers", "node_modules", "__pycache__"}


@dataclass(frozen=True)
class Trained:
    """One group that a run was trained on: its prompt, its candidates' ids, and where its edges came from."""

    group: str
    prompt_id: str
    prompt: str
    system: str
    split: str
    candidates: tuple[str, ...]
    sources: tuple[str, ...]
    edges: int


@dataclass(frozen=True)
class TrainingRun:
    """A training directory. `parent` is the hash of the model it began with, `data` that of its groups."""

    directory: Path
    kind: str
    parent: str
    data: str
    settings: Mapping[str, Any]
    template: str = ""
    tokenizer: str = ""
    result: Mapping[str, Any] | None = None

    @cached_property
    def model(self) -> str:
        """The hash of the model it made; "" when there is none (yet)."""
        try:
            return model_hash(self.directory / "model")
        except HafsError:
            return ""

    @cached_property
    def began_at(self) -> str:
        """Where the model it began with lay; "" when that was not recorded."""
        return str(next(self._lines(), {}).get("model", ""))

    @property
    def recorded(self) -> bool:
        """Whether it says what it was trained on."""
        return (self.directory / DATA_FILE).is_file()

    def trained_on(self) -> Iterator[Trained]:
        """The groups it was trained on; nothing where that was not recorded."""
        for row in self._lines():
            if "group" in row:
                listed = {k: tuple(row.get(k, ())) for k in ("candidates", "sources")}
                yield Trained(**{**row, **listed})

    def _lines(self) -> Iterator[dict[str, Any]]:
        if self.recorded:
            with (self.directory / DATA_FILE).open(encoding="utf-8") as f:
                yield from map(json.loads, f)


def training_runs(roots: Iterable[Path], models: Iterable[str | Path] = ()) -> list[TrainingRun]:
    """The training directories at and below `roots`, each once, in the order of their paths.

    `models` are directories of models that may lie elsewhere: the run around each is taken too, and the runs around the
    models that those began with.
    """
    found: dict[Path, TrainingRun] = {}

    def take(directory: Path) -> None:
        while directory not in found and (run := _read(directory)) is not None:
            found[directory] = run
            directory = Path(run.began_at).parent

    for root in roots:
        for directory in _directories(root.expanduser().resolve(), DEPTH):
            take(directory)
    for model in models:
        take(Path(model).expanduser().resolve().parent)
    return [found[d] for d in sorted(found)]


def ancestry(model: str, runs: Sequence[TrainingRun]) -> list[TrainingRun]:
    """The runs that made the model with this hash, the last one first, back to a model that no run made.

    A run that kept the model it began with made none.
    """
    made = {run.model: run for run in reversed(runs) if run.model and run.model != run.parent}
    out: list[TrainingRun] = []
    while (run := made.get(model)) is not None and run not in out:
        out.append(run)
        model = run.parent
    return out


def _directories(root: Path, depth: int) -> Iterator[Path]:
    if not root.is_dir():
        return
    yield root
    if depth:
        try:
            inner = sorted(
                e.path
                for e in os.scandir(root)
                if e.is_dir(follow_symlinks=False) and e.name not in _SKIP and e.name[0] != "."
            )
        except OSError:
            return
        for path in inner:
            yield from _directories(Path(path), depth - 1)


def _read(directory: Path) -> TrainingRun | None:
    try:
        data = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        about = data["identity"]
        return TrainingRun(
            directory,
            about["kind"],
            about["model"],
            about["data"],
            about["settings"],
            about.get("template", ""),
            about.get("tokenizer", ""),
            data.get("result"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
