"""Answers through the harness in the sandbox, several for each start; and what each of them did, compared."""

from __future__ import annotations

import json
import math
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hafs.sandbox import Limits, Result, Sandbox
from hafs.scorers.python import harness
from hafs.scorers.python.check import Case, Check
from hafs.scorers.python.harness import MOST_BYTES, decode

__all__ = ["Report", "Task", "same", "work"]

STARTUP_MB = 256  # what the harness and the interpreter take beside the answer
SHOWN = 3  # wrong cases that are kept in words


@dataclass(frozen=True)
class Task:
    """One answer's code and the check of its prompt."""

    check: Check
    code: str


@dataclass
class Report:
    """What became of an answer. `cause` is "" when every case or test came out right."""

    cause: str = ""
    correct: int = 0
    total: int = 0
    parses: bool = False
    loads: bool = False
    size: int = 0
    complexity: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def work(sandbox: Sandbox, tasks: Sequence[Task]) -> list[Report | str]:
    """A report for each task, in order; a text says why the sandbox could not run it."""
    out: list[Report | str] = []
    alone = False
    while len(out) < len(tasks):
        left = tasks[len(out) :][: 1 if alone else None]
        result = _start(sandbox, left)
        if result.status == "sandbox broken":
            return [*out, *[f"the sandbox is broken: {result.reason}"] * (len(tasks) - len(out))]
        lines = result.stdout.split(b"\n")[:-1]
        out += [_report(task, json.loads(line)) for task, line in zip(left, lines, strict=False)]
        if not lines and len(left) == 1:
            out.append(_lost(left[0], result))
        alone = not lines and not alone  # the one that brought the harness down is tried by itself
    return out


def _start(sandbox: Sandbox, tasks: Sequence[Task]) -> Result:
    limits = Limits(
        seconds=20.0 + sum(_wall(t.check) for t in tasks),
        memory_mb=max(t.check.memory_mb for t in tasks) * 2 + STARTUP_MB,
        processes=24,
        output_bytes=2 * MOST_BYTES * len(tasks) + 4096,
        file_bytes=8 * MOST_BYTES,
    )
    program, read = _interpreter()
    argv = ["/usr/bin/env", "PYTHONHASHSEED=0", program, "-sPSB", "-c", _source()]
    return sandbox.run(argv, read=read, stdin=b"".join(_frames(t) for t in tasks), limits=limits)


@cache
def _source() -> str:
    return Path(harness.__file__).read_text(encoding="utf-8")


@cache
def _interpreter() -> tuple[str, list[Path]]:
    """The interpreter itself, not a link of a virtual environment, and what it has to read."""
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    places = [sysconfig.get_paths()["stdlib"], sysconfig.get_config_var("LIBDIR") or ""]
    return str(program), [program, *(Path(p) for p in places if p and Path(p).is_dir())]


def _wall(check: Check) -> float:
    """Seconds on the clock: an answer that sleeps is stopped too, one on a busy machine is not."""
    return 3 * check.seconds + 1.0


def _frames(task: Task) -> bytes:
    check = task.check
    job = {
        "code": task.code,
        "entry": check.entry,
        "support": check.support,
        "call": check.call or check.entry,
        "cases": [case.args for case in check.cases],
        "wall": _wall(check),
        "seconds": math.ceil(check.seconds),
        "memory": check.memory_mb << 20,
    }
    tests = {"setup": check.setup, "tests": check.tests, "entry": check.entry} if check.tests else {}
    parts = [json.dumps(part).encode() for part in (job, tests)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _lost(task: Task, result: Result) -> Report:
    """What took the harness itself down."""
    report = Report(total=len(task.check.cases or task.check.tests))
    report.cause = "memory" if "memory" in result.reason else "timeout" if result.status == "timed out" else "crash"
    report.problems = [result.reason or "it ended the process that watches it"]
    return report


def _report(task: Task, found: dict[str, Any]) -> Report:
    check = task.check
    report = Report(total=len(check.cases or check.tests), seconds=found["cpu"])
    rows = [_row(text) for text in found["said"]]
    first = rows[0] if rows else {}
    if isinstance(first.get("size"), int) and isinstance(first.get("complexity"), int):
        report.parses, report.size, report.complexity = True, first["size"], first["complexity"]
    second = rows[1] if report.parses and len(rows) > 1 else {}
    report.loads = "loaded" in second
    if report.loads:
        problems = _tested(found["tests"]) if check.tests else _called(check, rows[2:])
    elif "syntax" in first:
        problems = [("syntax error", str(first["syntax"]))]
    elif "missing" in second:
        problems = [("missing function", f"{check.entry} is not defined")]
    elif "raised" in second:
        problems = [(_exception(second), str(second.get("words", "")))]
    else:
        problems = []
    report.correct = sum(not kind for kind, _ in problems) if report.loads else 0
    wrong = [p for p in problems if p[0]]
    if report.correct < report.total:
        ended = _ended(task, found)
        report.cause = ended if ended and (not wrong or wrong[0][0] == "gone") else wrong[0][0] if wrong else "exit"
    if found["left over"]:
        report.cause, report.correct = "forbidden: leaves processes behind", 0
    report.problems = [words for _, words in wrong][:SHOWN]
    return report


def _row(text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _ended(task: Task, found: dict[str, Any]) -> str:
    """The cause that how the process ended is, or ""."""
    if found["status"] in ("timeout", "output"):
        return {"timeout": "timeout", "output": "too much output"}[found["status"]]
    if found["signal"] and found["cpu"] >= math.ceil(task.check.seconds) - 0.1:
        return "timeout"
    if found["status"] == "called":
        return ""
    return {0: "exit", 9: "memory"}.get(found["signal"], "crash")


def _called(check: Check, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(cause or "", words) for each case that was answered."""
    return [_compared(check, case, row) for case, row in zip(check.cases, rows, strict=False)]


def _compared(check: Check, case: Case, row: dict[str, Any]) -> tuple[str, str]:
    call = f"{check.call or check.entry}({case.text})"
    if "raised" in row:
        kind, words = _exception(row), f"{call} raised {row['raised']}: {row.get('words', '')}"
        return ("", "") if case.raises and row["raised"] == case.raises else (kind, words)
    try:
        value = decode(row["value"])
    except (ValueError, KeyError, RecursionError, OverflowError):
        return "wrong result", f"{call} gave something unreadable"
    if case.raises:
        return "wrong result", f"{call} gave {_short(value)}, not {case.raises}"
    if same(value, case.returns, check.tolerance):
        return "", ""
    return "wrong result", f"{call} gave {_short(value)}, not {_short(case.returns)}"


def _tested(verdicts: str) -> list[tuple[str, str]]:
    """(cause or "", words) for each test that was run."""
    rows = json.loads(verdicts) if verdicts else [{"gone": ""}]
    out = []
    for row in rows:
        if "passed" in row:
            out.append(("", ""))
        elif "raised" in row:
            out.append((_exception(row), f"{row['raised']}: {row['words']}"))
        elif "broken" in row:
            out.append(("broken tests", row["broken"]))
        else:
            out.append((row["gone"] or "gone", "") if "gone" in row else ("wrong result", row["wrong"]))
    return out


def _exception(row: dict[str, Any]) -> str:
    name = str(row["raised"])
    if not name:
        return "not plain data"
    if name == "MemoryError":
        return "memory"
    if name == "PermissionError":
        return "forbidden: the sandbox refused it"
    return f"exception: {name}" if name.isidentifier() and len(name) < 40 else "exception: Exception"


def same(value: Any, wanted: Any, tolerance: float) -> bool:
    """Whether two plain values are equal: as `==` says, but for floats within a relative tolerance (nan equals nan),
    and containers must be of the same kind.
    """
    if isinstance(value, float) or isinstance(wanted, float):
        try:
            both = float(value), float(wanted)
        except (TypeError, ValueError, OverflowError):
            return bool(value == wanted)
        return all(map(math.isnan, both)) or math.isclose(*both, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(value, list | tuple):
        alike = type(value) is type(wanted) and len(value) == len(wanted)
        return alike and all(same(a, b, tolerance) for a, b in zip(value, wanted, strict=True))
    if isinstance(value, dict):
        alike = isinstance(wanted, dict) and value.keys() == wanted.keys()
        return alike and all(same(v, wanted[k], tolerance) for k, v in value.items())
    return bool(value == wanted)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a very large number"
    return text if len(text) <= 80 else f"{text[:77]}..."
