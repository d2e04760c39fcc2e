"""Conversations in a row, in any of the ways in which people write them, and what is asked by them.

Messages are `{"role", "content"}` (OpenAI; the content a text or a list of text parts) or `{"from", "value"}`
(ShareGPT); a lone message may stand for a list of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hafs.data.columns import ROLES, ColumnsRow, column_of, listed
from hafs.types import call_text

SPEAKERS = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function": "tool",
    "ipython": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""Who speaks, as data sets call them, by the roles of chat templates."""
_CALLS = ("function_call", "tool_call")


class Asked(NamedTuple):
    """What a pair or a label is about: system text, earlier messages, the prompt, and tools (lists as JSON texts).

    The prompt of a conversation that ends with a tool's result is empty, and that result is the last of `context`.
    """

    system: str
    context: str
    prompt: str
    tools: str = "[]"


def text_of(value: Any, name: str) -> str:
    """The text in a column that may be empty; raises ValueError for anything else."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the column {name!r} is {type(value).__name__}, not a text")
    return value or ""


def is_chat(value: Any) -> bool:
    """Whether a value is messages, or one message, as far as its shape goes."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict)


def turns_of(value: Any, name: str) -> list[dict[str, Any]]:
    """Chat messages with a role and a text each; raises ValueError for anything else.

    A message that calls tools needs no text, and other keys of a message are kept.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {name!r} is neither a text nor a list of messages")
    return [_turn(message, name) for message in value]


def _turn(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise ValueError(f"the column {name!r} has a message that is {type(message).__name__}, not an object")
    message = {k: v for k, v in message.items() if v is not None}
    who = next((message[k] for k in ("role", "from") if k in message), None)
    if not isinstance(who, str):
        raise ValueError(f"the column {name!r} has a message without a text as its 'role'")
    if "role" not in message and who.lower() not in SPEAKERS:
        raise ValueError(f"a message of {name!r} is from {who!r}, which is none of {', '.join(SPEAKERS)}")
    text = _content(next((message[k] for k in ("content", "value") if k in message), None), name)
    calls = message.get("tool_calls")
    if who in _CALLS and text and not calls:
        text, calls = "", _calls_in(text, name)
    _check_calls(calls, name)
    if text is None:
        if not calls:
            raise ValueError(f"the column {name!r} has a message without a text as its 'content'")
        text = ""
    kept = {k: v for k, v in message.items() if k not in ("role", "from", "content", "value", "weight", "tool_calls")}
    more = {"tool_calls": calls} if calls else {}
    return {"role": SPEAKERS.get(who.lower(), who), "content": text, **kept, **more}


def _check_calls(calls: Any, name: str) -> None:
    """Raises ValueError for tool calls that call nothing: each needs the name of a function."""
    for call in calls if isinstance(calls, list) else [] if calls is None else [calls]:
        called = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(called, dict) or not isinstance(called.get("name"), str) or not called["name"]:
            raise ValueError(f"a message of {name!r} has a tool call without the name of a function")


def _content(value: Any, name: str) -> str | None:
    """The text of a message's content; None where it has none. Raises ValueError for parts that are no text."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    texts = []
    for part in value:
        if isinstance(part, dict) and part.get("type", "text") in ("text", "input_text", "output_text"):
            texts.append(str(part.get("text") or ""))
        elif isinstance(part, dict):
            raise ValueError(f"a message of {name!r} holds {part.get('type')!r}: only text is understood")
        else:
            return None
    return "".join(texts)


def _calls_in(text: str, name: str) -> list[dict[str, Any]]:
    """The calls of tools that ShareGPT writes as JSON in the text of a message."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    calls = said if isinstance(said, list) else [said]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise ValueError(f"a call of tools in {name!r} is no JSON with 'name' and 'arguments'")
    return [{"type": "function", "function": {"name": c["name"], "arguments": c.get("arguments") or {}}} for c in calls]


def tools_of(value: Any) -> list[dict[str, Any]]:
    """The tools of a row, which may be written as JSON in a text; raises ValueError for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError as e:
            raise ValueError(f"the column 'tools' is a text that is no JSON: {e}") from e
    if value is not None and not (isinstance(value, list) and all(isinstance(t, dict) for t in value)):
        raise ValueError("the column 'tools' is no list of objects")
    return value or []


def asked_of(value: Any, system: Any = None, tools: Any = None) -> Asked:
    """What a prompt, given as text or as messages that end with the user's, asks. Raises ValueError."""
    listed_tools = json.dumps(tools_of(tools), sort_keys=True)
    given = text_of(system, "system")
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the prompt is empty")
        return Asked(given, "[]", value, listed_tools)
    turns = turns_of(value, "prompt")
    if turns and turns[0]["role"] == "system":
        own = turns.pop(0)["content"]
        if given and own and given != own:
            raise ValueError("the column 'system' and the system message of the conversation differ")
        given = own or given
    if turns and turns[-1]["role"] == "tool":
        return Asked(given, json.dumps(turns, sort_keys=True), "", listed_tools)
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("the messages of a prompt end with one of the user, or with a tool's result")
    if not turns[-1]["content"].strip():
        raise ValueError("the prompt is empty")
    return Asked(given, json.dumps(turns[:-1], sort_keys=True), turns[-1]["content"], listed_tools)


def asked_in(row: ColumnsRow) -> Asked:
    """What a row asks, by whichever of its columns says so. Raises KeyError when none does, ValueError."""
    conversation, prompt = column_of(row, "messages"), column_of(row, "prompt")
    system, tools = (row.get(column_of(row, role) or role) for role in ("system", "tools"))
    if conversation and prompt:
        return _both(row, conversation, prompt, system, tools)
    if conversation:
        return asked_of(row[conversation], system, tools)
    if not prompt and isinstance(row.get("input"), str | list):
        prompt = "input"
    if not prompt:
        raise KeyError("prompt")
    asked = row[prompt]
    if isinstance(asked, str) and prompt != "input" and (more := text_of(row.get(beside(row)), "input")).strip():
        asked = f"{asked}\n{more}" if asked.strip() else more
    if isinstance(asked, str) and "history" in row:
        asked = [*_history(row["history"]), {"role": "user", "content": asked}]
    if not isinstance(asked, str) and not is_chat(asked):
        raise ValueError(f"the column {prompt!r} is {type(asked).__name__}, neither a text nor messages")
    return asked_of(asked, system, tools)


def beside(row: Mapping[str, Any]) -> str:
    """The column whose text goes with the prompt: `input`, or `context` beside `instruction` (Dolly)."""
    return "context" if "input" not in row and "instruction" in row and isinstance(row.get("context"), str) else "input"


_DIFFER = (
    "the columns {prompt} and {other} ask different things: leave one out with --columns -{prompt} or --columns"
    " -{other}; the columns are {columns}"
)


def _both(row: ColumnsRow, conversation: str, prompt: str, system: Any, tools: Any) -> Asked:
    """What is asked by a row with both a prompt and messages, which must say the same."""
    turns = turns_of(row[conversation], conversation)
    if not isinstance(row[prompt], str) or row[prompt] not in [t["content"] for t in turns if t["role"] == "user"]:
        raise ValueError(_DIFFER.format(prompt=prompt, other=conversation, columns=listed(row)))
    return asked_of(turns[:-1] if turns[-1]["role"] == "assistant" else turns, system, tools)


def _history(value: Any) -> list[dict[str, Any]]:
    """Earlier turns as pairs of what the user and the assistant said (LLaMA-Factory), or as messages."""
    if is_chat(value):
        return turns_of(value, "history")
    if not isinstance(value, list) or not all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in value
    ):
        raise ValueError("the column 'history' is no list of pairs of texts")
    return [
        {"role": role, "content": text}
        for pair in value
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def answer_of(value: Any, name: str, asked: Asked) -> str:
    """The text of an answer given as text or as messages, which may repeat the prompt before the answer.

    An answer that calls tools is its message as JSON (`hafs.types.call_text`): the model's template writes it.
    """
    if isinstance(value, str):
        return value
    *before, last = turns_of(value, name)
    if last["role"] != "assistant":
        raise ValueError(f"the last message of {name!r} is of {last['role']!r}, not of the assistant")
    before = [turn for turn in before if turn["role"] != "system"]
    prompt = [{"role": "user", "content": asked.prompt}] if asked.prompt else []
    if before not in ([], prompt, [*json.loads(asked.context), *prompt]):
        raise ValueError(f"the messages of {name!r} begin with another conversation than the prompt")
    return call_text(last) if last.get("tool_calls") else str(last["content"])


def conversation_in(row: ColumnsRow) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(messages, tools) of a row that holds a whole conversation, its system text first. Raises as `turns_of`."""
    name = column_of(row, "messages")
    turns = turns_of(row[name], name)
    if (prompt := column_of(row, "prompt")) and row[prompt] not in [t["content"] for t in turns]:
        raise ValueError(_DIFFER.format(prompt=prompt, other=name, columns=listed(row)))
    system = text_of(row.get(column_of(row, "system") or "system"), "system")
    if system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    elif system and turns[0]["content"] != system:
        raise ValueError("the column 'system' and the system message of the conversation differ")
    return turns, tools_of(row.get(column_of(row, "tools") or "tools"))


def needed(row: Mapping[str, Any], roles: Sequence[str]) -> list[str]:
    """Those of the roles that no column of a row has."""
    return [role for role in roles if not any(name in row for name in ROLES[role])]
