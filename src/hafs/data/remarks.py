"""What is odd about data that can be read: chat marks in texts, instructions without their input, one prompt in many
rows, answers that repeat the prompt. Nothing is changed; it is said, with numbers and an example."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hafs.types import PreferenceGroup, Prompt

MARKS = re.compile(
    r"<\|(?:im_start|im_end|user|assistant|system|end|endoftext|begin_of_text|start_header_id|end_header_id|eot_id|eom_id"
    r"|start|message|channel|return|start_of_role|end_of_role|end_of_text|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN)\|>"
    r"|<(?:start|end)_of_turn>|<｜(?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)｜>"
    r"|\[/?INST\]|<</?SYS>>|</?s>|<(?:bos|eos)>"
    r"|^### ?(?:Instruction|Input|Response|User|Assistant)\s*:|^(?:Human|Assistant|USER|ASSISTANT): ",
    re.MULTILINE,
)
"""Marks by which chat templates begin and end turns: in a text they will stand inside the marks of the template."""
FOLLOWING = re.compile(r"\b(?:the following|the text below|below)\b[^.!?:\n]*[.!?:]?\s*$", re.IGNORECASE)
"""An instruction that speaks of a text to come and ends."""
MOJIBAKE = re.compile("Ã[\u0080-\u00bf]|â€[™œ\u009d“”˜¦]|\ufffd")
"""UTF-8 that was read as something else, or characters that were lost."""
FEWEST, SHARE = 5, 0.2


class Shown(NamedTuple):
    """What a remark is about: what is asked, and the answers to it."""

    asked: str
    texts: tuple[str, ...]
    system: str = ""
    before: str = ""
    rows: int = 1


def of_prompts(prompts: Iterable[Prompt]) -> list[Shown]:
    """Prompts without answers."""
    return [Shown(p.text, (), p.system) for p in prompts]


def of_groups(groups: Iterable[PreferenceGroup]) -> list[Shown]:
    """Groups, and examples, which are groups without edges."""
    return [
        Shown(g.prompt, tuple(c.text for c in g.candidates), g.system, repr(g.context), max(1, len(g.edges)))
        for g in groups
    ]


def remarks(data: Sequence[Shown]) -> list[str]:
    """One line for each thing that is odd, with how often and an example."""
    found = [_marks(data), _without_input(data), _one_prompt(data), _repeated(data), _spoiled(data), _returns(data)]
    return [line for line in found if line]


def _hits(pattern: re.Pattern[str], data: Sequence[Shown]) -> list[str]:
    """The first place of each row that a pattern finds."""
    found = (next(filter(None, map(pattern.search, (one.asked, one.system, *one.texts))), None) for one in data)
    return [match.group().strip() for match in found if match]


def _marks(data: Sequence[Shown]) -> str:
    hits = _hits(MARKS, data)
    if not hits:
        return ""
    common = ", ".join(mark for mark, _ in Counter(hits).most_common(3))
    return (
        f"{len(hits)} of {len(data)} rows hold marks of a chat template inside their texts ({common}): the model's own"
        " template adds its marks around them; give the plain texts, or messages with roles"
    )


def _without_input(data: Sequence[Shown]) -> str:
    hits = [one.asked for one in data if len(one.asked) < 400 and FOLLOWING.search(one.asked)]
    if not hits:
        return ""
    return (
        f"{len(hits)} of {len(data)} prompts speak of something that follows and end there, such as {hits[0][-60:]!r}:"
        " is a column missing (--columns input=COLUMN)?"
    )


def _one_prompt(data: Sequence[Shown]) -> str:
    rows: Counter[tuple[str, str, str]] = Counter()
    for one in data:
        rows[one.system, one.before, one.asked] += one.rows
    total = sum(rows.values())
    (key, most) = max(rows.items(), key=lambda item: item[1], default=(("", "", ""), 0))
    if most < FEWEST or most < SHARE * total:
        return ""
    return f"{most} of {total} rows have one prompt, {key[2][:60]!r}: is a part of it in another column?"


def _repeated(data: Sequence[Shown]) -> str:
    answered = [one for one in data if one.texts and one.asked]
    hits = [one for one in answered if all(t.startswith(one.asked) for t in one.texts)]
    if not hits or len(hits) < 0.9 * len(answered):
        return ""
    return (
        f"{len(hits)} of {len(answered)} rows have answers that begin with the prompt: the model would learn to repeat"
        " it; give the answers alone"
    )


def _spoiled(data: Sequence[Shown]) -> str:
    hits = _hits(MOJIBAKE, data)
    if not hits:
        return ""
    return (
        f"{len(hits)} of {len(data)} rows hold spoiled characters such as {hits[0]!r}: the text was once"
        " saved in another encoding than it was read in"
    )


def _returns(data: Sequence[Shown]) -> str:
    hits = sum(any("\r" in text for text in (one.asked, *one.texts)) for one in data)
    return f"{hits} of {len(data)} rows hold carriage returns (\\r), which the model would learn" if hits else ""
