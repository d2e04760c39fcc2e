"""Rows as prompts: hafs' own task rows, and whatever else asks something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hafs.data.columns import Columns, ColumnsRow, column_of, unknown
from hafs.data.rows import Loaded, load
from hafs.data.turns import Asked, asked_in, is_chat, text_of, tools_of, turns_of
from hafs.types import Prompt, Reference

_WORDS: dict[type, str] = {str: "text", dict: "object", list: "list"}
_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("family", "category", "split", "source", "checker"), str),
    **dict.fromkeys(("references", "tags"), list),
    "check": dict,
}


def read_prompts(source: str | Path, columns: Columns | None = None) -> Loaded[Prompt]:
    """The prompts of a file, folder or hub data set of any kind; a text file is one prompt a line.

    Raises UsageError when there is none, DataError when no row is usable.
    """
    answered: list[int] = []

    def parse(row: ColumnsRow) -> Prompt:
        return prompt_in(row, answered)

    found = load(source, parse, columns, plain=True, whole=True)
    if answered:
        found.notes.append(
            f"{source}: {len(answered)} conversations end with an answer, which is left out: a prompt ends with the"
            " user's turn"
        )
    return found


def prompt_in(row: ColumnsRow, answered: list[int] | None = None) -> Prompt:
    """The prompt of a row; an answer that a conversation ends with is left out and noted in `answered`.

    Raises KeyError for a missing column, ValueError for a row that cannot be used.
    """
    if "text" in row and not column_of(row, "prompt") and not column_of(row, "messages"):
        asked = _own(row)
    else:
        asked = _asked(row, answered)
    more = {name: row[name] for name in _COLUMNS if name in row}
    for name, value in more.items():
        if not isinstance(value, _COLUMNS[name]):
            raise ValueError(f"the column {name!r} is {type(value).__name__}, not {_WORDS[_COLUMNS[name]]}")
    if not all(isinstance(tag, str) for tag in more.get("tags", [])):
        raise ValueError("the column 'tags' is no list of texts")
    references = tuple(_reference(n, one) for n, one in enumerate(more.pop("references", []), 1))
    return prompt_of(asked, **{**more, "references": references, "tags": tuple(more.pop("tags", []))})


def prompt_of(asked: Asked, **more: Any) -> Prompt:
    """The prompt that asks what a row asks."""
    context, tools = (tuple(json.loads(part)) for part in (asked.context, asked.tools))
    return Prompt(asked.prompt, asked.system, context=context, tools=tools, **more)


def _asked(row: ColumnsRow, answered: list[int] | None) -> Asked:
    name = column_of(row, "messages") or column_of(row, "prompt")
    if not name and not isinstance(row.get("input"), str | list):
        raise ValueError(unknown(row, ["prompt"]))
    if name and isinstance(row[name], list):
        turns = turns_of(row[name], name)
        if len(turns) > 1 and turns[-1]["role"] == "assistant":
            if answered is not None:
                answered.append(1)
            used, row = row.used, ColumnsRow({**row, name: turns[:-1]})
            row.used = used
    return asked_in(row)


def _own(row: ColumnsRow) -> Asked:
    """What a row of hafs' own asks: `text`, after the messages of `context` where it has some."""
    earlier = row["context"] if is_chat(row.get("context")) else []
    if not isinstance(row["text"], str) or not (row["text"].strip() or earlier):
        raise ValueError("the column 'text' is empty or no text")
    system, tools = text_of(row.get(column_of(row, "system") or "system"), "system"), tools_of(row.get("tools"))
    turns = turns_of(earlier, "context") if earlier else []
    return Asked(system, json.dumps(turns, sort_keys=True), row["text"], json.dumps(tools, sort_keys=True))


def _reference(number: int, value: Any) -> Reference:
    if isinstance(value, str):
        return Reference(f"reference {number}", value)
    if not isinstance(value, Mapping) or not isinstance(value.get("text"), str):
        raise ValueError("a reference is a text, or an object with 'name' and 'text'")
    name = value.get("name") or f"reference {number}"
    if not isinstance(name, str):
        raise ValueError("the 'name' of a reference is no text")
    return Reference(name, value["text"])
