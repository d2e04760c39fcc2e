"""JSON lines into the workspace: each line is checked before anything is stored, bad ones are named."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from hafs.jsonl import Loaded, read_jsonl
from hafs.store.rows import KINDS
from hafs.types import Score

_NONE = type(None)
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "int | None": (int, _NONE),
    "float": (int, float),
    "float | None": (int, float, _NONE),
    "bool | None": (bool, _NONE),
    "Mapping[str, Any]": (dict,),
}


@dataclass(frozen=True)
class Imported:
    """What an import did: usable rows read, how many of them were new, and the bad lines (number, reason)."""

    read: int
    added: int
    bad: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Parent:
    """What rows of a kind belong to: the field that names it, what it is called, and the ids that exist."""

    field: str
    word: str
    ids: Collection[str]


def read_rows(path: str | Path, kind: str, parent: Parent | None = None) -> Loaded[Any]:
    """Read rows of `kind` from JSON lines; see `hafs.jsonl.read_jsonl` for what happens to bad lines."""
    return read_jsonl(path, _parser(kind, parent))


def _parser(kind: str, parent: Parent | None) -> Callable[[dict[str, Any]], Any]:
    cls = KINDS[kind].cls

    def parse(row: dict[str, Any]) -> Any:
        _check_fields(cls, row)
        item = cls.from_dict(row)
        if isinstance(item, Score) and (problem := value_problem(item)):
            raise ValueError(problem)
        if parent is not None and (of := getattr(item, parent.field)) not in parent.ids:
            word = parent.word
            raise ValueError(f"its {word} {of} is not in the workspace: import {word}s first")
        return item

    return parse


def _check_fields(cls: Any, row: Mapping[str, Any]) -> None:
    """Raise KeyError for a missing column, ValueError for a value of the wrong JSON type."""
    for f in fields(cls):
        if f.name not in row:
            if f.default is MISSING and f.default_factory is MISSING:
                raise KeyError(f.name)
        elif not isinstance(row[f.name], _JSON_TYPES.get(str(f.type), (list,))):
            raise ValueError(f"the column {f.name!r} is {type(row[f.name]).__name__}, not {f.type}")


def value_problem(score: Score) -> str:
    """Why a score cannot be stored, or "": a value is a finite number or missing with a reason."""
    if score.value is not None and not math.isfinite(score.value):
        return f"{score.scorer} gave candidate {score.candidate_id} the value {score.value}"
    return ""
