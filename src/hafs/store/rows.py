"""Which dataclass each table holds, and how one becomes the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from sqlalchemy import Column, Table

from hafs.errors import UsageError
from hafs.store import schema
from hafs.types import Annotation, Candidate, PreferenceGroup, Prompt, Ranking, Score, Verdict, content_id


@dataclass(frozen=True)
class Run:
    """One doing of a verb: what it was given, how it went, what it left.

    `kind` is the verb ("sft", "dpo", "generate", "eval"), `inputs` and `outputs` name files with their
    hashes, `status` is "running", "finished" or "failed", `started` and `finished` are seconds since 1970
    (UTC), `model` is the hash of the model it used or made.
    """

    kind: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    status: str = "running"
    outputs: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    started: float = 0.0
    finished: float | None = None

    @property
    def id(self) -> str:
        """A run is what it was asked to do: the same kind, config and inputs are the same run."""
        return content_id("run", self.kind, self.config, self.inputs)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.id, **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Run:
        known = {f.name for f in fields(cls)}
        extra = sorted(set(row) - known - {"id"})
        if extra:
            raise ValueError(f"unknown key {extra[0]!r} for Run")
        return cls(**{k: v for k, v in row.items() if k in known})


@dataclass(frozen=True)
class Kind:
    """A kind of row: its table and its dataclass, whose fields are the table's columns in the same order."""

    table: Table
    cls: Any


KINDS: dict[str, Kind] = {
    "prompts": Kind(schema.prompts, Prompt),
    "candidates": Kind(schema.candidates, Candidate),
    "scores": Kind(schema.scores, Score),
    "rankings": Kind(schema.rankings, Ranking),
    "verdicts": Kind(schema.verdicts, Verdict),
    "annotations": Kind(schema.annotated, Annotation),
    "groups": Kind(schema.groups, PreferenceGroup),
    "runs": Kind(schema.runs, Run),
}


@cache
def columns(kind: str) -> tuple[Column[Any], ...]:
    """The columns that hold the dataclass's fields, in the order of the fields."""
    return tuple(c for c in KINDS[kind].table.c if c.name not in ("id", "added"))


@cache
def _names(kind: str) -> tuple[tuple[str, str], ...]:
    pairs = zip(columns(kind), fields(KINDS[kind].cls), strict=True)
    return tuple((column.name, field.name) for column, field in pairs)


def to_row(kind: str, item: Any, added: float) -> dict[str, Any]:
    """The column values of `item`, added at `added` seconds since 1970."""
    row = {column: getattr(item, name) for column, name in _names(kind)}
    if isinstance(item, PreferenceGroup):
        row["id"], row["candidates"], row["edges"] = item.encoded()  # once: it is most of the work
    else:
        row["id"] = item.id
    row["added"] = added
    return row


def check_kind(kind: str) -> None:
    """Raise UsageError for a kind that there is not."""
    if kind not in KINDS:
        raise UsageError(f"a workspace has no {kind!r}", f"use one of: {', '.join(KINDS)}")
