"""A user's command that judges an answer: what it names is found and made readable, and its verdict told from its own
failure.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hafs.errors import HafsError
from hafs.sandbox import Result

__all__ = ["Command", "command_of", "script_hashes", "verdict"]

ENV = "/usr/bin/env"
SCRIPTS = frozenset({".py", ".sh", ".bash", ".js", ".mjs", ".ts", ".rb", ".pl", ".lua", ".php", ".jl", ".r", ".R"})
PYTHON = re.compile(r"python(\d+(\.\d+)*)?")
ASK = (
    "import json, sys, sysconfig; p = sysconfig.get_paths(); print(json.dumps([getattr(sys, '_base_executable', '') or"
    " sys.executable, [p['stdlib'], p['platstdlib'], sysconfig.get_config_var('LIBDIR') or ''],"
    " [x for x in sys.path if x.endswith('-packages')]]))"
)
NOT_RUN = (126, 127)  # what a shell and env say of a program that cannot be started
CANNOT_OPEN = re.compile(r"can't open file|No such file or directory: '[^']*'\s*$|Fatal Python error: init")
SHOWN = 400


@dataclass(frozen=True)
class Command:
    """A command as the sandbox gets it: `argv` with {file} still in it, what it must be able to read, and which of it
    are the user's own scripts.
    """

    argv: tuple[str, ...]
    read: tuple[Path, ...]
    scripts: tuple[Path, ...]


def command_of(run: str, given: Collection[str] = ()) -> Command:
    """The command behind the text of a check. Relative paths are looked for in the current folder; those in `given` lie
    in the sandbox. Raises HafsError when the program or a script is not there.
    """
    program, *words = shlex.split(run) or [""]
    argv, read = _program(program)
    scripts: list[Path] = []
    for word in words:
        path = Path(word)
        if "{file}" in word or word in given or word.startswith("-"):
            argv.append(word)
        elif path.exists() and (path.is_file() or path.is_absolute()):
            scripts += [path.absolute()] if path.is_file() else []
            read.append(path.absolute())
            argv.append(str(path.absolute()))
        elif path.suffix in SCRIPTS:
            raise HafsError(f"the check's script {word} is not there (looked for in {Path.cwd()})", "correct its path")
        else:
            argv.append(word)
    return Command(tuple(argv), tuple(read), tuple(scripts))


def script_hashes(run: str, given: Collection[str] = ()) -> dict[str, str]:
    """The content hash of each script of the user that a command names; none when the command cannot be found."""
    try:
        scripts = command_of(run, given).scripts
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in scripts}
    except (HafsError, OSError):
        return {}


def _program(name: str) -> tuple[list[str], list[Path]]:
    """How a program is started in the sandbox, and what it has to read."""
    found = shutil.which(name) or (str(Path(name).absolute()) if Path(name).is_file() else None)
    if found is None:
        raise HafsError(f"there is no program {name!r}", "name it by its path, or install it")
    path = Path(found).absolute()
    if not PYTHON.fullmatch(path.name):
        return [str(path)], [path]
    base, libraries, packages = _python(str(path))
    read = [Path(base), *(Path(p) for p in (*libraries, *packages) if p and Path(p).is_dir())]
    return [ENV, f"PYTHONPATH={':'.join(packages)}", "PYTHONDONTWRITEBYTECODE=1", base], read


@cache
def _python(path: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """(the interpreter itself, its library folders, its package folders): a virtual environment's is a link to another,
    and a version manager's is a script that finds one. It is asked outside of the sandbox.
    """
    try:
        done = subprocess.run([path, "-c", ASK], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        base, libraries, packages = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as e:
        raise HafsError(f"the check's Python {path} cannot be started: {e}", "name another interpreter") from e
    return str(Path(base).resolve()), tuple(libraries), tuple(packages)


def verdict(result: Result, command: Command) -> dict[str, Any] | str:
    """What a command said of the code, or why that cannot be read: a failure of its own says nothing of the code."""
    if result.status == "sandbox broken":
        return f"the command could not be run: {result.reason}"
    output = (result.stdout + b"\n" + result.stderr).decode(errors="replace").strip()[-SHOWN:]
    if result.status in ("timed out", "killed"):
        cause = "timeout" if result.status == "timed out" or "time" in result.reason else f"killed: {result.reason}"
        return {"value": 0.0, "passed": False, "cause": cause, "details": {"output": output}}
    last = result.stdout.decode(errors="replace").strip().rpartition("\n")[2]
    if last.startswith("{"):
        return _told(last)
    if own := _own_failure(result, command):
        return f"the command itself failed: {own}"
    right = result.status == "finished"
    return {
        "value": float(right),
        "passed": right,
        "cause": "" if right else result.reason,
        "details": {} if right else {"output": output},
    }


def _told(last: str) -> dict[str, Any] | str:
    """The verdict in a command's last line of JSON."""
    try:
        row: Mapping[str, Any] = json.loads(last)
        value = float(row["value"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as e:
        return f"the command's result cannot be read: {e!r}"[:SHOWN]
    if isinstance(row["value"], str) or not (math.isfinite(value) and 0 <= value <= 1):
        return f"the command's value is {row['value']!r:.40}, not from 0 to 1"
    passed = row.get("passed")
    return {
        "value": value,
        "passed": passed if isinstance(passed, bool) else None,
        "cause": str(row.get("cause", ""))[:200],
        "details": {"said": row.get("details", {})},
    }


def _own_failure(result: Result, command: Command) -> str:
    """Why a command failed by itself, in the words of its standard error; "" when it judged the answer.

    It could not be started, or could not open its script; or its script raised an exception of its own: the innermost
    place of the traceback is the script, and it is no assertion, which is a verdict.
    """
    errors = result.stderr.decode(errors="replace").rstrip()
    last = errors.rpartition("\n")[2].strip()[:SHOWN]
    if result.returncode in NOT_RUN:
        return last or result.reason
    if result.status == "finished" or not command.scripts:
        return ""
    if CANNOT_OPEN.search(last):
        return last
    places = re.findall(r'^  File "([^"]+)", line \d+', errors, re.M)
    innermost = bool(places) and not any("answer." in place for place in places)
    mine = innermost and any(str(script) in places for script in command.scripts)
    return last if mine and not re.match(r"(AssertionError|SystemExit)\b", last) else ""
