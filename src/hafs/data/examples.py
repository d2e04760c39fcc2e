"""Rows as examples for supervised fine-tuning: what is asked, and the answers to learn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hafs.data.columns import Columns, ColumnsRow, column_of, unknown
from hafs.data.prompts import prompt_in
from hafs.data.rows import Loaded, load
from hafs.data.turns import Asked, answer_of, asked_in, asked_of, conversation_in
from hafs.types import GroupCandidate, PreferenceGroup, Prompt, content_id


def read_examples(source: str | Path, answers: int = 0, columns: Columns | None = None) -> Loaded[PreferenceGroup]:
    """The examples of a file, folder or hub data set: task rows, a prompt and its answer, or conversations.

    Each becomes a group without edges; of a task row's references the first `answers` are learnt (0: all). Raises
    UsageError when there is no such file, DataError when no row is usable.
    """
    return load(source, lambda row: example_in(row, answers), columns, whole=True)


def example_in(row: ColumnsRow, answers: int = 0) -> PreferenceGroup:
    """The example that a row gives. Raises KeyError for a missing column, ValueError for a row that cannot be used."""
    if "text" in row and "references" in row:
        return example_of(prompt_in(row), answers)
    name = column_of(row, "completion") or ("chosen" if column_of(row, "chosen") == "chosen" else "")
    if column_of(row, "messages") and not name:
        return _conversation(row)
    asking = column_of(row, "prompt") or column_of(row, "messages") or (isinstance(row.get("input"), str) and "input")
    if not asking or not name:
        missing = [role for role, found in (("prompt", asking), ("completion", name)) if not found]
        raise ValueError(unknown(row, missing))
    asked = asked_in(row)
    return group_without_edges(asked, [answer_of(row[name], name, asked)])


def example_of(prompt: Prompt, answers: int = 0) -> PreferenceGroup:
    """The example of a prompt with references: the first `answers` of them (0: all)."""
    texts = dict.fromkeys(r.text for r in prompt.references[: answers or None])
    more = {"prompt_id": prompt.id, "family": prompt.family, "split": prompt.split}
    context, tools = (json.dumps(list(part), sort_keys=True) for part in (prompt.context, prompt.tools))
    return _group(Asked(prompt.system, context, prompt.text, tools), texts, **more)


def group_without_edges(asked: Asked, texts: Iterable[str]) -> PreferenceGroup:
    """Answers to what was asked, none better than another."""
    plain = asked.context == "[]" and asked.tools == "[]"
    id = Prompt(asked.prompt, asked.system).id if plain else content_id("prompt", *asked)
    return _group(asked, texts, prompt_id=id)


def _group(asked: Asked, texts: Iterable[str], **more: Any) -> PreferenceGroup:
    if not asked.prompt.strip() and asked.context == "[]":
        raise ValueError("the prompt is empty")
    candidates = tuple(GroupCandidate(text) for text in texts if text.strip())
    if not candidates:
        raise ValueError("the answer is empty")
    context, tools = (tuple(json.loads(text)) for text in (asked.context, asked.tools))
    return PreferenceGroup(asked.prompt, candidates, (), system=asked.system, context=context, tools=tools, **more)


def every_answer(groups: Iterable[PreferenceGroup]) -> list[PreferenceGroup]:
    """The examples with one more for each earlier answer of a conversation, each after what was said before it."""
    out: list[PreferenceGroup] = []
    for group in groups:
        tools = json.dumps([dict(t) for t in group.tools], sort_keys=True)
        for i, turn in enumerate(group.context):
            if i and turn.get("role") == "assistant":
                asked = asked_of([dict(m) for m in group.context[:i]], group.system, tools)
                text = answer_of([dict(turn)], "context", asked)
                if text.strip():
                    out.append(replace(group_without_edges(asked, [text]), family=group.family, split=group.split))
        out.append(group)
    return out


def _conversation(row: ColumnsRow) -> PreferenceGroup:
    """The last answer of a conversation, with all that was said before it."""
    turns, tools = conversation_in(row)
    if turns[-1]["role"] != "assistant":
        raise ValueError(f"the conversation ends with the {turns[-1]['role']}: there is no answer to learn")
    asked = asked_of(turns[:-1], None, tools)
    return group_without_edges(asked, [answer_of(turns[-1:], column_of(row, "messages"), asked)])
