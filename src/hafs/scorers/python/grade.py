"""From a report to a score: a value, an order among answers to one prompt, and the cause of failure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hafs.scorers.python.run import PythonReport

__all__ = ["CAUSES", "KEY", "TIME_TOLERANCE", "grade"]

CAUSES = {
    "": "passed",
    "no code": "nothing in the answer is code",
    "syntax error": "Python cannot parse it",
    "missing function": "it does not define the name that is asked for",
    "exception: TYPE": "it raised an exception of that built-in type, when defined or when called",
    "wrong result": "it returned another value, or none where an exception is due",
    "not plain data": "it returned something that is not made of numbers, texts and containers",
    "timeout": "it used more time than allowed",
    "memory": "it used more memory than allowed, or was killed as one that does",
    "too much output": "it returned more than a mebibyte",
    "exit": "it ended its process",
    "crash": "it brought its process down",
    "forbidden: the sandbox refused it": "it asked for a file or for the network",
    "forbidden: leaves processes behind": "something that it started still ran at the end",
}
KEY = ("parses", "loads", "correct", "-findings", "-complexity", "-size", "-log2 seconds")
TIME_TOLERANCE = 1.0  # the last part of the key is a logarithm to base 2: what is not twice as fast ties
LEAST_SECONDS = 0.05  # below this, the clock says nothing of the code


def grade(report: PythonReport, findings: Sequence[str], extracted: str) -> dict[str, Any]:
    """The parts of a Score that depend on the answer.

    Value: 0 when it does not parse; else 0.1, + 0.1 when it loads, + 0.6 times the share of right cases, + 0.1 when
    all are right, + 0.1 / (1 + findings) then.

    Key: parses, loads, share right, fewer findings; then, for right answers only, lower complexity, fewer nodes of the
    syntax tree, less processor time (a factor of two, from 0.05 s on).
    """
    share = report.correct / report.total if report.total else 0.0
    passed = not report.cause and report.total > 0 and report.correct == report.total
    value = 0.0
    if report.parses:
        value = 0.1 + 0.1 * report.loads + 0.6 * share + passed * (0.1 + 0.1 / (1 + len(findings)))
    ease = (-report.complexity, -report.size, -math.log2(max(report.seconds, LEAST_SECONDS))) if passed else (0, 0, 0)
    key = tuple(map(float, (report.parses, report.loads, share, -len(findings), *ease)))
    return {
        "value": round(value, 6),
        "key": tuple(part + 0.0 for part in key),
        "tolerance": TIME_TOLERANCE,
        "passed": passed,
        "cause": report.cause,
        "details": {
            "extracted": extracted,
            "correct": report.correct,
            "total": report.total,
            "problems": report.problems,
            "findings": list(findings[:12]),
            "complexity": report.complexity,
            "size": report.size,
            "seconds": round(report.seconds, 4),
            "key": dict(zip(KEY, key, strict=True)),
        },
    }
