"""Rows into the workspace: each is checked before anything is stored, bad ones are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.data import BadRow, Columns, Loaded, load, read_prompts
from hafs.files.jsonl import check_fields
from hafs.store.rows import KINDS
from hafs.types import Prompt, Score


@dataclass(frozen=True)
class Imported:
    """What an import did: usable rows read, how many of them were new, the bad ones, remarks, the prompts."""

    read: int
    added: int
    bad_rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)

    @property
    def bad(self) -> list[tuple[int, str]]:
        """The numbers of the bad rows, with the reasons."""
        return [(row.line, row.reason) for row in self.bad_rows]


@dataclass(frozen=True)
class Parent:
    """What rows of a kind belong to: the field that names it, what it is called, and the ids that exist."""

    field: str
    word: str
    ids: Collection[str]


def read_rows(path: str | Path, kind: str, parent: Parent | None = None, columns: Columns | None = None) -> Loaded[Any]:
    """Read rows of `kind` from a file; prompts in any shape. See `hafs.data.load` for what happens to bad rows."""
    if kind == "prompts":
        return read_prompts(path, columns)
    return load(path, _parser(kind, parent), columns)


def _parser(kind: str, parent: Parent | None) -> Callable[[dict[str, Any]], Any]:
    cls = KINDS[kind].cls

    def parse(row: dict[str, Any]) -> Any:
        check_fields(cls, row)
        item = cls.from_dict(row)
        if parent is not None and (of := getattr(item, parent.field)) not in parent.ids:
            word = parent.word
            raise ValueError(f"its {word} {of} is not in the workspace: import {word}s first")
        return item

    return parse


def value_problem(score: Score) -> str:
    """Why a score cannot be stored, or "": a value is a finite number or missing with a reason."""
    if score.value is not None and not math.isfinite(score.value):
        return f"{score.scorer} gave candidate {score.candidate_id} the value {score.value}"
    return ""
