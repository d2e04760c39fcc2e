"""A model's thought and the answer that stands after it, in the forms in which models write them."""

from __future__ import annotations

import re
from typing import NamedTuple

_TAGS = r"think|thinking|thought|reasoning|seed:think"
_CLOSED = re.compile(
    rf"\s*(?:<(?P<tag>{_TAGS})>(?P<a>.*?)</(?P=tag)>|\[THINK\](?P<b>.*?)\[/THINK\]"
    r"|<\|START_THINKING\|>(?P<c>.*?)<\|END_THINKING\|>|<\|channel>thought\n(?P<d>.*?)<channel\|>)\s*",
    re.DOTALL,
)
_OPENED = re.compile(rf"\s*(?:<(?:{_TAGS})>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought\n)", re.DOTALL)
_END = re.compile(rf"</(?:{_TAGS})>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>")
_CHANNEL = re.compile(
    r"<\|channel\|>(\w+)[^<]*<\|message\|>(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL
)
_CHANNELS = re.compile(r"\s*(?:<\|start\|>\w*)?\s*<\|channel\|>")
_WRAP = re.compile(r"\A\s*<\|START_RESPONSE\|>(.*?)(?:<\|END_RESPONSE\|>)?\s*\Z", re.DOTALL)


class Thought(NamedTuple):
    """What was thought, what was answered, and whether the thought came to its end."""

    thought: str
    text: str
    finished: bool = True


def begins_thought(text: str) -> bool:
    """Whether `text` opens a thought."""
    return bool(_OPENED.match(text) or text.lstrip().startswith("<|channel|>"))


def split_thought(text: str, opened: bool = False) -> Thought:
    """The thought at the beginning of `text` and the answer after it; an unfinished thought has no answer.

    Tags (`<think>`, `<thinking>`, `[THINK]`, …), only a closing tag, and harmony's channels are read. `opened`: the
    prompt has opened the thought, so `text` begins inside it.
    """
    if _CHANNELS.match(text):  # anywhere else it is quoted
        return _of_channels(text)
    if opened and not _OPENED.match(text):
        return _until_end(text) or Thought(text.strip(), "", False)
    if found := _CLOSED.match(text):
        parts = found.groupdict()
        thought = next(v for k, v in parts.items() if k != "tag" and v is not None)
        return Thought(thought.strip(), _unwrapped(text[found.end() :]))
    if begun := _OPENED.match(text):
        return Thought(text[begun.end() :].strip(), "", False)
    return _until_end(text) or Thought("", text)


def _until_end(text: str) -> Thought | None:
    """A thought of which only the end is marked."""
    found = _END.search(text)
    return Thought(text[: found.start()].strip(), _unwrapped(text[found.end() :].lstrip())) if found else None


def _unwrapped(text: str) -> str:
    found = _WRAP.match(text)
    return found.group(1) if found else text


def _of_channels(text: str) -> Thought:
    """Harmony (gpt-oss): the final channel is the answer, the others are thought."""
    parts = _CHANNEL.findall(text)
    final = [said for name, said in parts if name == "final"]
    thought = "\n".join(said.strip() for name, said in parts if name != "final").strip()
    return Thought(thought, final[-1] if final else "", bool(final))
