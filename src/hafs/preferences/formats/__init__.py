"""Preferences from files of any format, detected row by row, and into a format that is chosen.

`hafs.data` opens what holds the rows, `shapes.py` has what a row of each format says. What a format cannot hold is
named by `lost`; a row that cannot be used is kept with its number and the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs.data import ROLES, Columns, ColumnsRow, asks, column_of, is_chat, load, unknown, write_rows
from hafs.errors import DataError, UsageError
from hafs.preferences.formats import shapes
from hafs.preferences.formats.shapes import Said
from hafs.preferences.pairs import Pair, Preferences, said
from hafs.types import PreferenceGroup

__all__ = ["FORMATS", "Format", "Written", "detect", "lost", "read_preferences", "write_preferences"]

FEATURES: dict[str, Callable[[PreferenceGroup], int]] = {
    "weights": lambda g: sum(e.weight != 1 for e in g.edges),
    "probabilities": lambda g: sum(e.p != 1 for e in g.edges),
    "sources": lambda g: sum(bool(e.source) for e in g.edges),
    "annotators": lambda g: sum(e.source.startswith("human:") for e in g.edges),
    "margins": lambda g: sum(e.margin is not None for e in g.edges),
    "system texts": lambda g: int(bool(g.system)),
    "earlier turns": lambda g: int(bool(g.context)),
    "tools": lambda g: int(bool(g.tools)),
    "labels": lambda g: sum(c.label is not None for c in g.candidates),
    "families and splits": lambda g: int(bool(g.family or g.split != "train")),
    "off-policy marks": lambda g: sum(c.off_policy for c in g.candidates),
}
"""What a group may say beyond texts and edges, and in how many places it does."""
_COLUMNS = {"weights", "probabilities", "sources", "annotators", "margins", "system texts", "earlier turns", "tools"}
_CHAT = {"system texts", "earlier turns", "tools"}


@dataclass(frozen=True)
class Format:
    """A format of rows: how to know one, to read one and to write a group; `keeps` names FEATURES that it can hold."""

    about: str
    knows: Callable[[ColumnsRow], bool]
    read: Callable[[ColumnsRow], Said]
    write: Callable[[PreferenceGroup], list[dict[str, Any]]]
    keeps: frozenset[str]


def _has(*columns: str) -> Callable[[ColumnsRow], bool]:
    return lambda row: all(c in row for c in columns)


def _roles(*roles: str) -> Callable[[ColumnsRow], bool]:
    return lambda row: all(any(name in row for name in ROLES[role]) for role in roles)


def _label(row: ColumnsRow) -> bool:
    """Whether a row has one answer and a label of it."""
    return _roles("label")(row) and (_roles("completion")(row) or _roles("messages")(row))


def _is_implicit(row: ColumnsRow) -> bool:
    """Whether the prompt can only be inside the answers: no column is left that could be it."""
    return "chosen" in row and "rejected" in row and not asks(row) and not set(row) - _IMPLICIT


_IMPLICIT = {
    "chosen",
    "rejected",
    "weight",
    "source",
    "p",
    "margin",
    "calibrated",
    "system",
    "tools",
    "id",
    "prompt_id",
}


FORMATS: dict[str, Format] = {
    "groups": Format(
        "hafs' own preference groups",
        lambda r: "edges" in r or "candidates" in r,
        shapes.read_group,
        shapes.write_group,
        frozenset(FEATURES),
    ),
    "ranked": Format(
        "ranked lists (NeMo-RL)",
        _has("context", "completions"),
        shapes.read_ranked,
        shapes.write_ranked,
        frozenset({"system texts", "earlier turns"}),
    ),
    "openai": Format(
        "OpenAI's and Together's preference data",
        _has("input", "preferred_output"),
        shapes.read_openai,
        shapes.write_openai,
        frozenset(_CHAT),
    ),
    "sharegpt": Format(
        "ShareGPT ranking (LLaMA-Factory)",
        _has("conversations", "chosen"),
        shapes.read_pair,
        shapes.write_sharegpt,
        frozenset(_CHAT),
    ),
    "argilla": Format(
        "records of Argilla",
        lambda r: ("fields" in r and "responses" in r) or any(name.endswith(".responses") for name in r),
        shapes.read_argilla,
        shapes.write_argilla,
        frozenset({"annotators", "system texts", "earlier turns"}),
    ),
    "label-studio": Format(
        "tasks of Label Studio's JSON export",
        _has("data", "annotations"),
        shapes.read_labelstudio,
        shapes.write_labelstudio,
        frozenset({"annotators", "system texts", "earlier turns"}),
    ),
    "unpaired": Format(
        "TRL unpaired preference (KTO): prompt, completion, label; or messages, label",
        lambda r: _label(r) and not _roles("chosen", "rejected")(r),
        shapes.read_unpaired,
        shapes.write_unpaired,
        frozenset({*_CHAT, "labels"}),
    ),
    "ms-swift": Format(
        "ms-swift: messages with the better answer last, rejected_response",
        lambda r: "messages" in r and _roles("rejected")(r) and not _roles("chosen")(r),
        shapes.read_swift,
        shapes.write_swift,
        frozenset(_CHAT),
    ),
    "ultrafeedback": Format(
        "UltraFeedback, binarised: messages with score_chosen and score_rejected",
        lambda r: _has("chosen", "rejected", "score_chosen")(r) and is_chat(r.get("chosen")),
        shapes.read_ultrafeedback,
        shapes.write_ultrafeedback,
        frozenset({"system texts", "earlier turns", "margins"}),
    ),
    "hh-rlhf": Format(
        "transcripts of HH-RLHF",
        lambda r: "prompt" not in r and str(r.get("chosen", "")).startswith("\n\nHuman:"),
        shapes.read_hh,
        shapes.write_hh,
        frozenset({"earlier turns"}),
    ),
    "trl-implicit": Format(
        "TRL preference, the prompt inside the answers",
        _is_implicit,
        shapes.read_implicit,
        shapes.write_implicit,
        frozenset(_COLUMNS),
    ),
    "trl-chat": Format(
        "TRL preference, conversational",
        lambda r: is_chat(r.get("prompt")),
        shapes.read_pair,
        shapes.write_chat,
        frozenset(_COLUMNS),
    ),
    "trl": Format(
        "TRL preference: prompt (or instruction + input, question, messages), chosen, rejected",
        lambda r: True,
        shapes.read_pair,
        shapes.write_pair,
        frozenset(_COLUMNS),
    ),
}
"""Formats by name, in the order in which they are tried."""


def detect(row: ColumnsRow) -> str:
    """The name of the first format that knows a row."""
    return next(name for name, f in FORMATS.items() if f.knows(row))


def read_preferences(path: str | Path, format: str = "", columns: Columns | None = None) -> Preferences:
    """Read a file, folder or hub data set of preferences in any of FORMATS, several mixed if need be.

    `columns` is a mapping by the user. Bad rows are named by number and kept; the rest is used. Raises UsageError when
    there is no such file or format, DataError when no row of it is usable.
    """
    if format:
        _known(format)

    def parse(row: ColumnsRow) -> tuple[str, Said]:
        name = format or detect(row)
        if name == "trl":
            _all_there(row)
        return name + (".text" if isinstance(row.get("chosen"), str) else ""), FORMATS[name].read(row)

    loaded = load(path, parse, columns, whole=True)
    found = said([one for _, row in loaded.rows for one in row])
    found.formats = Counter(name.partition(".")[0] for name, _ in loaded.rows)
    found.bad_rows, found.notes = loaded.bad_rows, loaded.notes
    implicit = [row[0] for name, row in loaded.rows if name == "trl-implicit.text"]
    if inside := [one.asked.prompt for one in implicit if isinstance(one, Pair)]:
        found.notes.append(
            f"{path}: {len(inside)} rows have no column for the prompt: it is what chosen and rejected begin with"
            f" alike, such as {inside[0][:60]!r}"
        )
    return found


def _all_there(row: ColumnsRow) -> None:
    """Raise ValueError, with the columns that were found and a mapping, for a row that is of no known format."""
    missing = [] if asks(row) else ["prompt"]
    labelled = column_of(row, "label") or (column_of(row, "completion") and not column_of(row, "chosen"))
    missing += [r for r in (("completion", "label") if labelled else ("chosen", "rejected")) if not column_of(row, r)]
    if missing:
        why = unknown(row, missing)
        if "prompt" not in missing and (name := _one_answer(row)):
            what = f"{name} has one answer and nothing says which of two is better: `hafs sft --data` learns answers"
            what += ", preferences need chosen and rejected, or a label"
            why = f"{what}; {why}"
        raise ValueError(why)


def _one_answer(row: ColumnsRow) -> str:
    """What of a row is an answer and no more: a completion without a label, or a conversation that ends with one."""
    if column_of(row, "label") or column_of(row, "chosen") or column_of(row, "rejected"):
        return ""
    if name := column_of(row, "completion"):
        return f"the column {name!r}"
    name = column_of(row, "messages")
    turns = row.get(name) if name else None
    last = turns[-1] if isinstance(turns, list) and turns and isinstance(turns[-1], dict) else {}
    return "the conversation" if (last.get("role") or last.get("from")) in ("assistant", "gpt") else ""


@dataclass(frozen=True)
class Written:
    """What an export did: rows, and the groups and edges that they say; what the format could not hold (with how
    often); groups left out (by why)."""

    rows: int
    groups: int
    edges: int
    lost: Mapping[str, int]
    left_out: Mapping[str, int]


def write_preferences(path: str | Path, groups: Iterable[PreferenceGroup], format: str = "groups") -> Written:
    """Write groups as rows of a format; the name's end says what holds them (.jsonl, .json, .csv, .parquet, .gz).

    Raises UsageError for an unknown format, DataError when nothing can be written, MissingTool without pyarrow.
    """
    write = _known(format).write
    rows: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    kept = []
    for group in groups:
        try:
            rows += write(group)
            kept.append(group)
        except ValueError as e:
            left_out[str(e)] += 1
    if not rows:
        why = next(iter(left_out), "there are no groups")
        raise DataError(f"nothing could be written as {format}: {why}", "choose another --format")
    write_rows(Path(path).expanduser(), rows)
    return Written(len(rows), len(kept), sum(len(g.edges) for g in kept), lost(kept, format), left_out)


def lost(groups: Iterable[PreferenceGroup], format: str) -> dict[str, int]:
    """What `format` has no place for, of what the groups say, and in how many places."""
    keeps = _known(format).keeps
    found: Counter[str] = Counter()
    for group in groups:
        for name, count in FEATURES.items():
            if name not in keeps:
                found[name] += count(group)
            if name == "sources" and name not in keeps and "annotators" in keeps:
                found[name] -= FEATURES["annotators"](group)  # these are kept
    if "annotators" not in keeps:
        found.pop("annotators", None)  # sources, which include them, are named
    return {name: n for name, n in found.items() if n}


def _known(format: str) -> Format:
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}", f"use one of: {', '.join(FORMATS)}")
    return FORMATS[format]
