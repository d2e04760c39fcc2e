"""One way from a file of any kind to rows: good ones, bad ones by number, and what is to be said of the reading."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from hafs.data.columns import SAY_WHICH, Columns, ColumnsRow, listed, refuse_leftover, roles_said, without_system
from hafs.data.containers import file_rows
from hafs.errors import DataError
from hafs.files.jsonl import write_jsonl

T = TypeVar("T")

UNUSABLE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What a reader of a row may raise for one that it cannot use."""


class BadRow(NamedTuple):
    """A row that cannot be used: its number (of its file, when it is one of a directory), why, and the row itself."""

    line: int
    reason: str
    row: Any = None
    file: str = ""


@dataclass
class Loaded(Generic[T]):
    """The good rows of a file, the bad ones, and remarks: how it was read, and what of it was not."""

    rows: list[T]
    bad_rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[tuple[int, str]]:
        """The numbers of the bad rows, with the reasons."""
        return [(row.line, row.reason) for row in self.bad_rows]


def load(
    source: str | Path,
    parse: Callable[[ColumnsRow], T],
    columns: Columns | None = None,
    *,
    plain: bool = False,
    whole: bool = False,
    fix: str = "",
) -> Loaded[T]:
    """Read a file, a folder of `datasets` or a hub data set through `parse`, which raises for a row it cannot use.

    `columns` is the user's mapping; with `plain` a text file is one prompt a line; with `whole` a column that asks
    something and was not read makes the row a bad one, and other columns that were not read are named. Raises
    UsageError when there is no such file, DataError when no row is usable, with `fix` as the remedy.
    """
    out: Loaded[T] = Loaded([])
    mapping = columns or Columns()
    unused: Counter[str] = Counter()
    read_as: Counter[str] = Counter()
    empty = 0
    for row in file_rows(source, out.notes, plain):
        try:
            if row.problem:
                raise ValueError(row.problem)
            given = mapping.apply(row.value) if whole or columns else ColumnsRow(row.value)
            item = parse(given)
            if whole:
                refuse_leftover(given)
                unused.update(name for name in given.unused() if name not in UNSAID)
                empty += without_system(given)
                read_as[roles_said(given)] += 1
            out.rows.append(item)
            continue
        except KeyError as e:
            why = f"the column {e.args[0]!r} is missing"
        except UNUSABLE as e:
            why = str(e) or type(e).__name__
        out.bad_rows.append(BadRow(row.number, why, row.value, row.file))
    if not out.rows:
        raise no_row(source, out.bad_rows, fix)
    out.notes += [f"{source}: {n} rows are read as {what}" for what, n in read_as.items() if what]
    if empty:
        out.notes.append(f"{source}: {empty} rows have an empty system text: the template's own, if any, stands there")
    if unused:
        out.notes.append(f"{source}: columns that are not used: {listed(unused)}")
    return out


UNSAID = {"id", "prompt_id"}
"""Columns that name a row and that nobody misses."""


def no_row(source: str | Path, bad: list[BadRow], fix: str = "") -> DataError:
    """The error of a file without a usable row: the first reason, and how many rows have others."""
    if not bad:
        return DataError(f"{source} has no usable row (it is empty)", fix or _FIX)
    why, _, mapping = bad[0].reason.partition(SAY_WHICH)
    first = f"{bad[0].file} line {bad[0].line}: {why}".strip()
    return DataError(f"{source} has no usable row ({first})", mapping or fix or _FIX)


_FIX = "mend that row first; docs/how-to/data.md shows rows of every kind"


def set_aside(source: str | Path, bad_rows: Sequence[BadRow]) -> Path | None:
    """Write the bad rows of a file beside it, each with its number and what is wrong; returns where, None for none."""
    if not bad_rows:
        return None
    path = Path(source).expanduser()
    beside = path.with_name(f"{path.name}.bad.jsonl")
    write_jsonl(beside, (json.loads(json.dumps(_aside(row), default=str)) for row in bad_rows))
    return beside


def _aside(bad: BadRow) -> dict[str, Any]:
    file = {"file": bad.file} if bad.file else {}
    return {**file, "line": bad.line, "reason": bad.reason, "row": bad.row}
