"""Running the command line in tests: `hafs` in this process (torch is imported once), `hafs_process` in its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest
import typer.main

typer.main.get_command = cache(typer.main.get_command)  # building all verbs takes longer than most calls of one

SETTINGS = """\
[generate]
candidates = 3
max_new_tokens = 12
batch_size = 8
[preferences]
references = "always"
[sft]
precision = "fp32"
batch_size = 2
gradient_accumulation_steps = 1
learning_rate = 1e-3
lora = {rank = 4, alpha = 8}
[dpo]
precision = "fp32"
lora = {rank = 4, alpha = 8}
[reward]
precision = "fp32"
batch_size = 2
lora = {rank = 4, alpha = 8}
[ppo]
precision = "fp32"
batch_size = 4
rollouts = 2
max_new_tokens = 8
lora = {rank = 4, alpha = 8}
[eval]
max_new_tokens = 12
"""
"""A `hafs.toml` for the tiny model: few tokens, small adapters, references as winners (it never answers right)."""


@dataclass(frozen=True)
class Ran:
    """How a command ended: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What --json printed; standard output must be one JSON object on one line and nothing else."""
        assert self.out.endswith("\n") and self.out.count("\n") == 1, self.out
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found

    def ok(self) -> Ran:
        """Itself, when the command succeeded."""
        assert self.code == 0, f"exit code {self.code}\n{self.err}\n{self.out}"
        return self

    def failed(self, code: int, *words: str) -> Ran:
        """Itself, when the command ended with this code, a message with all `words`, and no traceback."""
        assert self.code == code, f"exit code {self.code}\n{self.err}\n{self.out}"
        assert "Traceback" not in self.err and "Traceback" not in self.out, self.err
        missing = [w for w in words if w not in self.err]
        assert not missing, f"{missing} not in: {self.err}"
        assert "rror: " in self.err
        return self


@contextmanager
def _into(fd: int, file: IO[bytes]) -> Iterator[IO[str]]:
    """Everything written to a file descriptor goes to `file`, whoever writes it."""
    saved = os.dup(fd)
    os.dup2(file.fileno(), fd)
    try:
        with open(fd, "w", encoding="utf-8", closefd=False) as text:
            yield text
    finally:
        os.dup2(saved, fd)
        os.close(saved)


def hafs(*args: str | Path) -> Ran:
    """Run a command in this process."""
    from hafs.cli import main

    argv, sys.argv = sys.argv, ["hafs", *map(str, args)]
    code = 0
    try:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with _into(1, out) as o, _into(2, err) as e, redirect_stdout(o), redirect_stderr(e):
                try:
                    main()
                except SystemExit as stop:
                    code = int(stop.code or 0)
            texts = [f.seek(0) or f.read().decode() for f in (out, err)]
    finally:
        sys.argv = argv
    return Ran(code, *texts)


def hafs_process(*args: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> Ran:
    """Run a command in a process of its own."""
    argv = [sys.executable, "-m", "hafs", *map(str, args)]
    done = subprocess.run(argv, env={**os.environ, **(env or {})}, capture_output=True, text=True, **options)
    return Ran(done.returncode, done.stdout, done.stderr)


@contextmanager
def own_cache(path: Path) -> Iterator[Path]:
    """A cache of the test's own, with the installed assembler and emulator reached by their overrides."""
    from hafs.errors import MissingTool
    from hafs_snes import tools

    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("HAFS_ASAR", str(tools.asar()))
            patch.setenv("HAFS_BSNES_CORE", str(tools.bsnes_core()))
        except MissingTool:
            pass  # only the tests marked `tools` need them
        patch.setenv("HAFS_CACHE", str(path))
        patch.delenv("HAFS_WORKSPACE", raising=False)
        yield path


def workspace(path: Path, settings: str = SETTINGS) -> Path:
    """A workspace with the settings for the tiny model."""
    hafs("init", path).ok()
    (path / "hafs.toml").write_text(settings)
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
