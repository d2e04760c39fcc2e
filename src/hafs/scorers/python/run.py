"""Answers through the harness in the sandbox, several for each start; and what each of them did, compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hmac import compare_digest
from pathlib import Path
from secrets import token_hex
from typing import Any

from hafs.sandbox import Limits, Result, Sandbox, interpreter
from hafs.sandbox.seccomp import ALONE, FORBIDDEN, RESTRICTED, Rule, seccomp_filter
from hafs.scorers.python import harness
from hafs.scorers.python.check import PythonCase, PythonCheck
from hafs.scorers.python.harness import MOST_BYTES, OPEN_FILES, decode

__all__ = ["PythonReport", "Task", "same", "work"]

STARTUP_MB = 256  # what the harness and the interpreter take beside the answer
KEEPER_SECONDS = 15.0  # what whoever watches an answer may take beside it, on a busy machine
SHOWN = 3  # wrong cases that are kept in words


@dataclass(frozen=True)
class Task:
    """One answer's code and the check of its prompt."""

    check: PythonCheck
    code: str


@dataclass
class PythonReport:
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


@dataclass(frozen=True)
class _Run:
    """One start of the sandbox: what the harness said of the first answers, and how it ended.

    `whole` says that each line was the harness's own and that nothing is missing: it goes to the last answer, or to
    one after which the harness had to stop.
    """

    result: Result
    rows: tuple[dict[str, Any], ...]
    whole: bool


def work(sandbox: Sandbox, tasks: Sequence[Task]) -> list[PythonReport | str]:
    """A report for each task, in order; a text says why there is none.

    When a start is not whole, nothing it said counts: each of its answers is started by itself, so that the one that
    disturbed the harness harms no other.
    """
    out: dict[int, PythonReport | str] = {}
    waiting = [list(range(len(tasks)))] if tasks else []
    while waiting:
        part = waiting.pop(0)
        run = _start(sandbox, [tasks[i] for i in part])
        if run.result.status == "sandbox broken":
            return [out.get(i, f"the sandbox is broken: {run.result.reason}") for i in range(len(tasks))]
        if run.whole:
            out |= {i: _report(tasks[i], row) for i, row in zip(part, run.rows, strict=False)}
            waiting[:0] = [rest] if (rest := part[len(run.rows) :]) else []
        elif len(part) == 1:
            out[part[0]] = _lost(tasks[part[0]], run.result)
        else:
            waiting[:0] = [[i] for i in part]
    return [out[i] for i in range(len(tasks))]


def _start(sandbox: Sandbox, tasks: Sequence[Task]) -> _Run:
    limits = Limits(
        seconds=20.0 + sum(_wall(t.check) for t in tasks),
        memory_mb=max(t.check.memory_mb for t in tasks) * 2 + STARTUP_MB,
        processes=24,
        output_bytes=2 * MOST_BYTES * len(tasks) + 4096,
        file_bytes=8 * MOST_BYTES,
        open_files=OPEN_FILES,
    )
    program, read = interpreter()
    longest = max(_wall(t.check) for t in tasks) + KEEPER_SECONDS
    argv = ["/usr/bin/env", "PYTHONHASHSEED=0", program, "-sPSB", "-c", _source(), _filter(), f"{longest:g}"]
    secrets = [token_hex(16) for _ in tasks]
    frames = [_frames(task, i, secret) for i, (task, secret) in enumerate(zip(tasks, secrets, strict=True))]
    result = sandbox.run(argv, read=read, stdin=b"".join(frames), limits=limits)
    rows, whole = _rows(result.stdout, tasks, secrets)
    return _Run(result, rows, whole and result.status == "finished")


def _rows(stdout: bytes, tasks: Sequence[Task], secrets: Sequence[str]) -> tuple[tuple[dict[str, Any], ...], bool]:
    """The lines of the harness, and whether they are all its own and complete."""
    *lines, rest = stdout.split(b"\n")
    rows: list[dict[str, Any]] = []
    for i, line in enumerate(lines):
        row = _row(line)
        if i >= len(tasks) or not _own(row, i, secrets[i]) or (rows and rows[-1]["last"]):
            return (), False
        rows.append(row)
    return tuple(rows), bool(rows) and not rest and (len(rows) == len(tasks) or rows[-1]["last"])


FIELDS = {
    "number": int,
    "secret": str,
    "status": str,
    "said": list,
    "tests": str,
    "signal": int,
    "cpu": float,
    "left over": bool,
    "last": bool,
}


def _own(row: dict[str, Any], number: int, secret: str) -> bool:
    """Whether a line is the harness's about the answer of this number."""
    return (
        row.keys() == FIELDS.keys()
        and all(type(row[name]) is kind for name, kind in FIELDS.items())
        and row["number"] == number
        and compare_digest(row["secret"].encode(), secret.encode())
        and all(isinstance(text, str) for text in row["said"])
    )


@cache
def _source() -> str:
    return Path(harness.__file__).read_text(encoding="utf-8")


@cache
def _filter() -> str:
    """What answers and tests may not do to other processes, for the harness."""
    return seccomp_filter({**dict.fromkeys(FORBIDDEN, Rule()), **RESTRICTED, **ALONE}).hex()


def _wall(check: PythonCheck) -> float:
    """Seconds on the clock: an answer that sleeps is stopped too, one on a busy machine is not."""
    return 3 * check.seconds + 1.0


def _frames(task: Task, number: int, secret: str) -> bytes:
    check = task.check
    job = {
        "number": number,
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
    parts = [json.dumps(part).encode() for part in (job, {"tests": tests, "secret": secret})]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _lost(task: Task, result: Result) -> PythonReport | str:
    """What a limit says of an answer that ran by itself; why there is no report when it was no limit."""
    if result.status not in ("timed out", "killed"):
        why = result.reason or "its lines are not whole, or not all its own"
        return f"the harness did not report as it should: {why}"
    report = PythonReport(total=len(task.check.cases or task.check.tests))
    report.cause = "memory" if "memory" in result.reason else "timeout" if result.status == "timed out" else "crash"
    report.problems = [result.reason]
    return report


def _report(task: Task, found: dict[str, Any]) -> PythonReport | str:
    check = task.check
    if found["status"] == "broken":
        return "the answer's process could not be confined, so it was not run"
    if found["status"] == "timeout" and not found["said"] and found["cpu"] < check.seconds / 2:
        return "the machine was too busy to begin with the answer"  # what stops a parser has used its processor time
    report = PythonReport(total=len(check.cases or check.tests), seconds=found["cpu"])
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
    ended = _ended(task, found)
    if ended == "timeout":
        report.correct = min(report.correct, report.total - 1)
    if report.correct < report.total:
        report.cause = ended if ended and (not wrong or wrong[0][0] == "gone") else wrong[0][0] if wrong else "exit"
    if found["left over"]:
        report.cause, report.correct = "forbidden: leaves processes behind", 0
    report.problems = [words for _, words in wrong][:SHOWN]
    return report


def _row(text: str | bytes) -> dict[str, Any]:
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
    if found["cpu"] > math.ceil(task.check.seconds) + 0.5:  # spread over processes, none of which was too slow
        return "timeout"
    if found["status"] == "called":
        return ""
    return {0: "exit", 9: "memory"}.get(found["signal"], "crash")


def _called(check: PythonCheck, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(cause or "", words) for each case that was answered."""
    return [_compared(check, case, row) for case, row in zip(check.cases, rows, strict=False)]


def _compared(check: PythonCheck, case: PythonCase, row: dict[str, Any]) -> tuple[str, str]:
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
    """Whether two plain values are equal as Python says and of the same type, down to the last element.

    A wanted float is met by any number (no bool) within `tolerance`, relative or absolute; 0 asks for the same number.
    Elements of sets and keys are compared without tolerance; the order of a dict does not count.
    """
    if isinstance(wanted, float):
        return _close(value, wanted, tolerance) if type(value) in (int, float) else False
    if type(value) is not type(wanted):
        return False
    if isinstance(wanted, list | tuple):
        alike = len(value) == len(wanted)
        return alike and all(same(a, b, tolerance) for a, b in zip(value, wanted, strict=True))
    if isinstance(wanted, set | frozenset):
        return bool(_typed(value) == _typed(wanted))
    if isinstance(wanted, dict):
        given = {_typed(k): v for k, v in value.items()}
        needed = {_typed(k): v for k, v in wanted.items()}
        return given.keys() == needed.keys() and all(same(given[k], v, tolerance) for k, v in needed.items())
    return bool(value == wanted)


def _close(value: float, wanted: float, tolerance: float) -> bool:
    if value == wanted or (math.isnan(wanted) and value != value):
        return True
    try:
        return tolerance > 0 and math.isclose(value, wanted, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond all floats
        return False


def _typed(value: Any) -> Any:
    """A hashable stand-in for a hashable value, which is equal to another one's only where the types are, too."""
    if isinstance(value, tuple):
        return (tuple, tuple(map(_typed, value)))
    if isinstance(value, set | frozenset):
        return (type(value), frozenset(map(_typed, value)))
    return (type(value), value)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a very large number"
    return text if len(text) <= 80 else f"{text[:77]}..."
