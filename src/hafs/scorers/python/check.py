"""The check data of a prompt for the `python` scorer.

    {"entry": "scale", "cases": [{"args": "[1, 2], 3", "returns": "[3, 6]"}, {"args": "1, 2", "raises": "TypeError"}]}
    {"entry": "scale", "setup": "import math", "tests": ["assert candidate([1], 3) == [3]"]}

Values are written as Python literals. `cases` are compared outside of the sandbox; `tests` are code that calls
`candidate` (or the entry by its name), run in a process that the answer cannot reach.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hafs.errors import DataError
from hafs.scorers.python.harness import NotPlain, encode

__all__ = ["Case", "Check", "parse_check"]

KEYS = {"entry", "cases", "tests", "setup", "support", "call", "prefix", "seconds", "memory_mb", "tolerance"}
TEXTS = ("setup", "support", "call", "prefix")


@dataclass(frozen=True)
class Case:
    """One call: the arguments as text and as data for the harness, and the value or the exception it must give."""

    text: str
    args: Any
    returns: Any = None
    raises: str = ""


@dataclass(frozen=True)
class Check:
    """How an answer is checked.

    `entry` is the name that the answer must define. `cases` or `tests` decide. `setup` runs before the tests in their
    process, `support` after the answer in the answer's (a driver for a class, say), where `call` names the function
    that is called instead of `entry`. `prefix` is put before an answer that does not define `entry` (a completion).
    `seconds` of processor time and `memory_mb` (MiB of address space) are for one answer, `tolerance` (relative or
    absolute) is for numbers where a float is wanted; without it, such a number must be the same.
    """

    entry: str
    cases: tuple[Case, ...] = ()
    tests: tuple[str, ...] = ()
    setup: str = ""
    support: str = ""
    call: str = ""
    prefix: str = ""
    seconds: float = 5.0
    memory_mb: int = 512
    tolerance: float = 0.0


def parse_check(data: Mapping[str, Any]) -> Check:
    """The check of a row; raises DataError that names what is wrong with it."""
    if unknown := sorted(set(data) - KEYS):
        raise _wrong(f"unknown key {unknown[0]!r}")
    entry = data.get("entry")
    if not isinstance(entry, str) or not entry.isidentifier():
        raise _wrong("'entry' names the function or class that the answer must define")
    texts = {name: data.get(name, "") for name in TEXTS}
    tests = data.get("tests", ())
    tests = (tests,) if isinstance(tests, str) else tuple(tests)
    for name, text in (*texts.items(), *(("tests", t) for t in tests)):
        if not isinstance(text, str):
            raise _wrong(f"{name!r} is no text")
    cases = tuple(_case(row) for row in data.get("cases", ()))
    if bool(cases) == bool(tests):
        raise _wrong("give either 'cases' or 'tests'")
    for name, most in (("seconds", 600), ("memory_mb", 65536), ("tolerance", 1)):
        value = data.get(name, getattr(Check, name))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise _wrong(f"{name!r} is no number from 0 to {most}")
    numbers = {name: data[name] for name in ("seconds", "memory_mb", "tolerance") if name in data}
    return Check(entry, cases, tests, **texts, **numbers)


def _case(row: Any) -> Case:
    if (
        not isinstance(row, Mapping)
        or ("returns" in row) == ("raises" in row)
        or set(row) - {"args", "returns", "raises"}
    ):
        raise _wrong("a case has 'args' and either 'returns' or 'raises'")
    text = row.get("args", "")
    args = literal(f"({text},)" if str(text).strip() else "()", "args")
    if "raises" in row:
        if not isinstance(row["raises"], str):
            raise _wrong("'raises' names an exception")
        return Case(text, _encoded(list(args)), raises=row["raises"])
    return Case(text, _encoded(list(args)), returns=literal(row["returns"], "returns"))


def literal(text: Any, name: str) -> Any:
    """The value of a Python literal; raises DataError."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as e:
        raise _wrong(f"{name!r} is no Python literal ({json.dumps(text)[:60]}): {e}") from None


def _encoded(args: list[Any]) -> Any:
    try:
        return encode(args)
    except NotPlain as e:
        raise _wrong(str(e)) from None


def _wrong(what: str) -> DataError:
    return DataError(f"the check of a python prompt: {what}", "docs/how-to/tasks.md lists the keys")
