"""From a report to a score: a value, an order among answers to one prompt, and the cause of failure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hafs_snes.scorer.check import Check
from hafs_snes.scorer.run import Report

__all__ = ["CAUSES", "CLOCK_TOLERANCE", "Grade", "grade", "grade_value"]

CLOCK_TOLERANCE = 40.0  # master clocks: what the memory refresh and the position in a line can add to the same code

CAUSES = {
    "": "passed",
    "no code": "nothing in the answer is code",
    "screened: file access": "names a file directive or function (incsrc, incbin, table, readfile1, …)",
    "screened: directive": "uses a directive that is not allowed (if, while, macro, org in a routine, …)",
    "screened: function": "calls an assembler function that is not allowed",
    "screened: define": "a define or macro stands for a command, or holds more than numbers and operators",
    "screened: operand": "an operand that is not made of numbers, labels and operators",
    "screened: unreadable": "characters outside of plain ASCII in code",
    "screened: too long": "more code than any routine needs",
    "does not assemble: unknown instruction": "no such instruction, or not with this operand",
    "does not assemble: addressing mode": "an addressing mode that the instruction lacks",
    "does not assemble: bad operand": "an operand asar cannot read",
    "does not assemble: unknown label": "a label or define that is not there",
    "does not assemble: label defined twice": "the same label at two places",
    "does not assemble: branch too far": "a branch target out of reach",
    "does not assemble: too large": "more than the bank holds",
    "does not assemble: limits": "the assembler ran into the sandbox's limits",
    "does not assemble: other": "another error of asar",
    "protected ROM": "a patch that changes bytes it may not change",
    "hang": "did not return in the frames given",
    "crash": "ran into BRK, COP or the harness's memory",
    "wrong return": "RTL where RTS is due, or the other way round",
    "stack": "pushes and pulls do not match",
    "wrong register width": "8-bit and 16-bit mixed up, or M/X left changed",
    "wrong mode": "data bank, direct page, decimal or emulation mode left changed",
    "hardware not ready": "a multiply or divide result read before it is there",
    "truncated operand": "an operand too wide for its suffix, which asar cuts silently",
    "raw branch offset": "a branch to a number, which asar takes as a distance and not as an address",
    "off by one": "results one too high or low, or a block that misses its first or last byte",
    "wrong result": "returns well, with other results",
    "clobber": "right results, but memory or a kept register changed that must not",
    "not smaller": "correct, but no fewer bytes than the code to improve",
    "not faster": "correct, but not at least 40 clocks faster than the code to improve",
    "no answer": "no number in the answer to a question",
    "wrong answer": "another number than the right one",
}

PRIORITY = (
    "hang",
    "crash",
    "wrong return",
    "stack",
    "wrong register width",
    "wrong mode",
    "wrong result",
    "off by one",
)
LOST = frozenset({"hang", "crash", "wrong return"})
WRONG = frozenset({"wrong result", "off by one"})
EXPLAINS = {  # a finding explains these failures better than the failure's own name
    "stack": ("stack", LOST),
    "register width": ("wrong register width", LOST | WRONG),
    "hardware not ready": ("hardware not ready", WRONG),
    "truncated": ("truncated operand", LOST | WRONG),
    "raw offset": ("raw branch offset", LOST | WRONG | {"stack"}),
}


@dataclass(frozen=True)
class Grade:
    """The parts of a Score that depend on the answer; see hafs.types.Score."""

    value: float
    key: tuple[float, ...]
    tolerance: float
    passed: bool
    cause: str
    details: dict[str, Any]


def grade(check: Check, report: Report, baseline: Report | None = None) -> Grade:
    """Grade a routine or a patch. `baseline` is the report of the code to improve, when there is one.

    Value: 0 when it does not assemble; else 0.1, + 0.1 when every vector returns, + 0.6 times the fraction of
    correct vectors, + 0.1 when all are and nothing is clobbered, + 0.1 when it also beats the baseline (if
    any).

    Key: assembles, runs, fraction correct, nothing clobbered; then, for solved answers only, -clocks when
    clocks decide, else -bytes and -clocks. The last part is -clocks in both and has a tolerance of 40.
    """
    fraction = report.correct / report.total if report.total else 0.0
    short = _shortfall(check, report, baseline) if report.solved and baseline else ""
    passed = report.solved and not short
    value = 0.0
    if report.assembles:
        value = 0.1 + 0.1 * report.returned + 0.6 * fraction + 0.1 * report.solved + 0.1 * passed
    clean = report.returned and not report.clobbers
    key = (float(report.assembles), float(report.returned), fraction, float(clean), *_efficiency(check, report))
    return Grade(
        value=round(value, 6),
        key=key,
        tolerance=CLOCK_TOLERANCE,
        passed=passed,
        cause=report.stopped or short or _cause(report),
        details=_details(report, baseline),
    )


def grade_value(check: Check, report: Report) -> Grade:
    """Grade the answer to a question with a number: right or wrong."""
    right = report.answer == check.answer
    cause = "" if right else "no answer" if report.answer is None else "wrong answer"
    return Grade(float(right), (float(right),), 0.0, right, cause, {"answer": report.answer, "right": check.answer})


def _efficiency(check: Check, report: Report) -> tuple[float, ...]:
    size, clocks = (0.0 - (report.size or 0), 0.0 - (report.clocks or 0)) if report.solved else (0.0, 0.0)
    return (clocks,) if check.decide == "clocks" else (size, clocks)


def _shortfall(check: Check, report: Report, baseline: Report) -> str:
    if check.decide == "bytes":
        return "" if (report.size or 0) < (baseline.size or 0) else "not smaller"
    return "" if (report.clocks or 0) <= (baseline.clocks or 0) - CLOCK_TOLERANCE else "not faster"


def _cause(report: Report) -> str:
    """The most frequent first problem of a vector (the graver on a tie), or the finding that explains it."""
    first = Counter(min((kind for kind, _ in v.problems), key=PRIORITY.index) for v in report.verdicts if v.problems)
    if not first:
        return "clobber" if report.clobbers else ""
    if "wrong result" in first:  # off by one by chance
        first["wrong result"] += first.pop("off by one", 0)
    kind = min(first, key=lambda k: (-first[k], PRIORITY.index(k)))
    for finding in report.findings:
        better, failures = EXPLAINS.get(finding.kind, ("", frozenset()))
        if kind in failures:
            return better
    return kind


def _details(report: Report, baseline: Report | None) -> dict[str, Any]:
    problems = list(dict.fromkeys(text for v in report.verdicts for _, text in v.problems))
    out: dict[str, Any] = {
        "extracted": report.extracted,
        "bytes": report.size,
        "clocks": report.clocks,
        "correct": report.correct,
        "total": report.total,
        "failures": dict(sorted(report.failures().items())),
        "clobbers": report.clobbers[:8],
        "lint": [f"{f.kind}: {f.text}" for f in report.findings[:8]],
        "errors": (report.errors or problems)[:5],
    }
    if baseline:
        out["baseline"] = {"bytes": baseline.size, "clocks": baseline.clocks}
    return out
