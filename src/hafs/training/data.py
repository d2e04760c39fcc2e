"""Examples for supervised fine-tuning, from the shapes in which people have them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafs.errors import UsageError
from hafs.files.jsonl import Loaded, read_jsonl, write_jsonl
from hafs.models.lineage import DATA_FILE
from hafs.types import GroupCandidate, PreferenceGroup, Prompt

_ANSWER = ("completion", "response", "output", "answer", "chosen")


def read_sft(path: str | Path, answers: int = 0) -> Loaded[PreferenceGroup]:
    """Read examples: task rows with references, prompt and completion columns, or a `messages` conversation.

    Each becomes a group without edges; of a task row's references the first `answers` are learnt (0: all). Raises
    UsageError when the file is missing, DataError when no line is usable.
    """
    return read_jsonl(path, lambda row: _parse(row, answers))


def examples(prompts: Iterable[Prompt], answers: int = 0) -> list[PreferenceGroup]:
    """One example for each prompt that has references: the first `answers` of them (0: all), the prompt computed
    once."""
    return [_of_prompt(p, answers) for p in prompts if p.references]


def check_calibrated(groups: Iterable[PreferenceGroup], allow: bool = False) -> None:
    """Refuse edges of a judge that was not calibrated on people's labels, unless they are allowed.

    Nobody knows what such an edge is worth: its probability is the judge's own. Raises UsageError that counts them.
    """
    judges = Counter(e.source for g in groups for e in g.edges if e.calibrated is False)
    if judges and not allow:
        names = ", ".join(sorted(judges))
        raise UsageError(
            f"{sum(judges.values())} edges come of a judge that was not calibrated on people's labels ({names})",
            "`hafs judge calibrate`, then `hafs judge build`; or `--allow-uncalibrated` to train on them all the same",
        )


def record_data(output: Path, model: str, groups: Sequence[PreferenceGroup]) -> None:
    """Write beside a run what it was trained on: the model it began with, then a line for each group.

    A line names the prompt, the ids of group and candidates, where the edges came from, and how many there are;
    `hafs.models.lineage` reads it. Only the main process of several writes, and what is there stays.
    """
    path = output / DATA_FILE
    if path.exists() or os.environ.get("RANK", "0") != "0":
        return
    known = Path(model).expanduser()
    rows: list[dict[str, Any]] = [{"model": str(known.resolve()) if known.is_dir() else model}]
    rows += [
        {
            "group": g.id,
            "prompt_id": g.prompt_id,
            "prompt": g.prompt,
            "system": g.system,
            "split": g.split,
            "candidates": [c.id for c in g.candidates if c.id],
            "sources": sorted({e.source for e in g.edges}),
            "edges": len(g.edges),
        }
        for g in groups
    ]
    write_jsonl(path, rows)


def _of_prompt(prompt: Prompt, answers: int = 0) -> PreferenceGroup:
    texts = dict.fromkeys(_text(r.text, "references") for r in prompt.references[: answers or None])
    text, system = _text(prompt.text, "text"), _text(prompt.system, "system")
    return _group(text, system, texts, prompt_id=prompt.id, family=prompt.family, split=prompt.split)


def _group(text: str, system: str, answers: Iterable[str], **more: Any) -> PreferenceGroup:
    if not text.strip():
        raise ValueError("the prompt is empty")
    candidates = tuple(GroupCandidate(a) for a in answers if a.strip())
    if not candidates:
        raise ValueError("the answer is empty")
    return PreferenceGroup(text, candidates, (), system=system, **more)


def _parse(row: Mapping[str, Any], answers: int) -> PreferenceGroup:
    if "messages" in row:
        return _conversation(row["messages"])
    if "text" in row and "references" in row:
        return _of_prompt(Prompt.from_dict(row), answers)
    text = row["prompt"] if "prompt" in row else row["instruction"] if "instruction" in row else row["prompt"]
    if isinstance(text, list):
        return _conversation([*text, *row["completion"]])
    answer = next((k for k in _ANSWER if k in row), "")
    if not answer:
        raise KeyError("completion")
    return _group(_text(text, "prompt"), _text(row.get("system") or "", "system"), [_text(row[answer], answer)])


def _text(value: Any, column: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the column {column!r} is {type(value).__name__}, not a text")
    return value


def _conversation(messages: Any) -> PreferenceGroup:
    """One example of a conversation with one user turn and one answer, and perhaps a system turn before."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError("messages must be a list of turns")
    roles = [m["role"] for m in messages]
    texts = [_text(m["content"], "content") for m in messages]
    system = texts[0] if roles[:1] == ["system"] else ""
    turns = messages[1:] if roles[:1] == ["system"] else messages
    if [m["role"] for m in turns] != ["user", "assistant"]:
        raise ValueError(f"only one user turn and one answer are understood, here are {', '.join(map(str, roles))}")
    return _group(texts[-2], system, texts[-1:])
