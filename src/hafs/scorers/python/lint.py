"""What ruff finds in answers: lint rules and format, for many answers in one start of the program.

Ruff reads code and does not run it, so it needs no sandbox. `# noqa` in an answer is ignored.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from hafs.errors import HafsError, MissingTool

__all__ = ["RULES", "findings", "ruff_version"]

RULES = "E4,E7,E9,F,W,B,C4,SIM"
UNFORMATTED = "format: ruff would write it differently"
UNREADABLE = "ruff cannot read it"
SECONDS = 60.0
K = TypeVar("K")


@cache
def _ruff() -> str:
    if find_spec("ruff") is None:
        raise MissingTool("ruff is not installed", "pip install 'hafs[code]'")
    from ruff import find_ruff_bin

    return str(find_ruff_bin())


@cache
def ruff_version() -> str:
    """The version of ruff, such as "0.17.6"; raises MissingTool."""
    return (_run(["--version"], ".") or "unknown").split()[-1]


def findings(codes: Mapping[K, str]) -> dict[K, list[str]]:
    """What ruff says of each code ("F401 `os` imported but unused"), by the keys of `codes`.

    A code that brings ruff down has that as its finding. Raises MissingTool, and HafsError when ruff does not run.
    """
    if not codes:
        return {}
    _ruff()
    found = _lint(list(codes.values()))
    if found is None:
        found = [(_lint([code]) or [[UNREADABLE]])[0] for code in codes.values()]
    return dict(zip(codes, found, strict=True))


def _lint(codes: Sequence[str]) -> list[list[str]] | None:
    """The findings in each code; None when ruff fails."""
    found: list[list[str]] = [[] for _ in codes]
    names = [f"answer_{i}.py" for i in range(len(codes))]
    common = ["--isolated", "--no-cache", "--target-version", "py311"]
    with tempfile.TemporaryDirectory(prefix=f"hafs-lint-{os.getpid()}-") as folder:
        for name, code in zip(names, codes, strict=True):
            Path(folder, name).write_text(code, encoding="utf-8", errors="replace")
        check = ["check", *common, "--select", RULES, "--ignore-noqa", "--output-format", "json", "--exit-zero"]
        said, unformatted = _run([*check, *names], folder), _run(["format", *common, "--check", *names], folder)
    if said is None or unformatted is None:
        return None
    for row in json.loads(said):
        found[names.index(Path(row["filename"]).name)].append(f"{row['code']} {row['message']}")
    for line in unformatted.splitlines():
        if line.startswith("Would reformat: "):
            found[names.index(Path(line.removeprefix("Would reformat: ")).name)].append(UNFORMATTED)
    return found


def _run(arguments: list[str], folder: str) -> str | None:
    """What ruff printed; None when it crashed. Raises HafsError when it cannot be started."""
    try:
        done = subprocess.run([_ruff(), *arguments], cwd=folder, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None
    except OSError as e:
        raise HafsError(f"ruff did not run: {e}", "pip install --force-reinstall ruff") from e
    return done.stdout.decode(errors="replace") if done.returncode in (0, 1) else None
