"""Preference pairs in and out: the rows that other trainers read, and files of them from elsewhere.

A row is `{"prompt", "chosen", "rejected"}`, each a text or a list of chat messages, with an optional
"weight", "source", "system", "p" (the probability that chosen is the better one) and "calibrated" (of a judge's
pair: whether the judge was calibrated on people's labels). All rows of one prompt make one group. What several rows
say of the same two texts is added up: weights are summed, and contradicting rows become one edge whose `p` is the
share of the weight behind its winner. Two sides that weigh the same are a tie, and make no edge. One row of an
uncalibrated judge makes the whole edge uncalibrated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.jsonl import read_jsonl
from hafs.preferences.ranking import same_text
from hafs.types import Edge, GroupCandidate, PreferenceGroup, Prompt


@dataclass
class Preferences:
    """Groups from rows: bad rows by number with the reason, and what became of rows about the same two texts.

    `pairs` counts usable rows of pairs, `repeated` those that an earlier row already said, `contradictions`
    the edges with rows on both sides, `draws` the pairs of texts left out because both sides weigh the same.
    """

    groups: list[PreferenceGroup]
    bad: list[tuple[int, str]] = field(default_factory=list)
    pairs: int = 0
    repeated: int = 0
    contradictions: int = 0
    draws: int = 0


@dataclass(frozen=True)
class _Pair:
    system: str
    prompt: str
    chosen: str
    rejected: str
    weight: float
    p: float
    source: str
    calibrated: bool | None = None


def merged_mark(marks: Iterable[bool | None]) -> bool | None:
    """Whether an edge that comes of several is calibrated: False when one is not, None when none is a judge's."""
    known = [mark for mark in marks if mark is not None]
    return all(known) if known else None


def to_pairs(group: PreferenceGroup, *, conversational: bool = False) -> list[dict[str, Any]]:
    """One row an edge: prompt, chosen, rejected, weight, source; TRL's explicit preference format.

    As text, a system prompt is a column "system"; with `conversational` everything is lists of chat messages
    and it is the first message. A soft edge has its probability in a column "p", a judge's edge says in a column
    "calibrated" whether the judge was.
    """
    rows = []
    for chosen, rejected, edge in group.pairs():
        row: dict[str, Any] = {"prompt": group.prompt, "chosen": chosen, "rejected": rejected}
        if conversational:
            system = [{"role": "system", "content": group.system}] if group.system else []
            row["prompt"] = [*system, {"role": "user", "content": group.prompt}]
            row["chosen"] = [{"role": "assistant", "content": chosen}]
            row["rejected"] = [{"role": "assistant", "content": rejected}]
        elif group.system:
            row["system"] = group.system
        row["weight"] = edge.weight
        row["source"] = edge.source
        if edge.p != 1.0:
            row["p"] = edge.p
        if edge.calibrated is not None:
            row["calibrated"] = edge.calibrated
        rows.append(row)
    return rows


def from_pairs(rows: Iterable[Mapping[str, Any]]) -> Preferences:
    """Groups from rows of pairs, one a prompt, in the order the prompts first appear; rows count from 1."""
    pairs, bad = [], []
    for number, row in enumerate(rows, 1):
        try:
            pairs.append(_parse_pair(row))
        except KeyError as e:
            bad.append((number, f"the column {e.args[0]!r} is missing"))
        except (ValueError, TypeError) as e:
            bad.append((number, str(e)))
    found = _grouped(pairs)
    found.bad = bad
    return found


def read_preferences(path: str | Path) -> Preferences:
    """Read a JSON lines file of preference groups, of pairs, or of both.

    Bad lines are named by number and the rest is kept. Raises UsageError when there is no such file,
    DataError when no line of it is usable.
    """
    loaded = read_jsonl(path, _parse)
    found = _grouped([row for row in loaded.rows if isinstance(row, _Pair)])
    found.groups[:0] = [row for row in loaded.rows if isinstance(row, PreferenceGroup)]
    found.bad = loaded.bad
    return found


def _parse(row: dict[str, Any]) -> PreferenceGroup | _Pair:
    if "candidates" not in row and "edges" not in row:
        return _parse_pair(row)
    if not isinstance(row["prompt"], str):
        raise ValueError("the prompt of a group is a text")
    group = PreferenceGroup.from_dict(row)
    if not group.edges:
        raise ValueError("the group has no edge")
    return group


def _parse_pair(row: Mapping[str, Any]) -> _Pair:
    """A pair from a row; raises KeyError for a missing column, ValueError for one that cannot be used."""
    columns = {name: row[name] for name in ("prompt", "chosen", "rejected")}
    system, prompt = _prompt(columns["prompt"])
    chosen, rejected = (_answer(columns[name], name, prompt) for name in ("chosen", "rejected"))
    if same_text(chosen) == same_text(rejected):
        raise ValueError("chosen and rejected are the same text")
    weight, p = (_number(row.get(name), name) for name in ("weight", "p"))
    if weight <= 0:
        raise ValueError(f"the weight is {weight}, not above 0")
    if not 0 <= p <= 1:
        raise ValueError(f"the probability p is {p}, not in [0, 1]")
    given, calibrated = row.get("system"), row.get("calibrated")
    if calibrated is not None and not isinstance(calibrated, bool):
        raise ValueError(f"the column 'calibrated' is {calibrated!r}, not true or false")
    source = str(row.get("source") or "")
    return _Pair(system or str(given or ""), prompt, chosen, rejected, weight, p, source, calibrated)


def _number(value: Any, name: str) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"the column {name!r} is {value!r}, not a number")
    return float(value)


def _prompt(value: Any) -> tuple[str, str]:
    """(system text, user text) of a prompt given as text or as messages."""
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the prompt is empty")
        return "", value
    turns = _messages(value, "prompt")
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    if [role for role, _ in turns] != ["user"]:
        raise ValueError("a prompt of messages is one user message, with a system message before it or none")
    return system, turns[0][1]


def _answer(value: Any, name: str, prompt: str) -> str:
    """The text of an answer given as text or as messages, which may repeat the prompt before the answer."""
    if isinstance(value, str):
        return value
    *before, (role, text) = _messages(value, name)
    if role != "assistant":
        raise ValueError(f"the last message of {name!r} is of {role!r}, not of the assistant")
    if [turn for turn in before if turn[0] != "system"] not in ([], [("user", prompt)]):
        raise ValueError(f"the messages of {name!r} begin with another conversation than the prompt")
    return text


def _messages(value: Any, name: str) -> list[tuple[str, str]]:
    """(role, text) of each chat message; raises ValueError for anything else."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {name!r} is neither a text nor a list of messages")
    turns = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise ValueError(f"the column {name!r} has a message without a text as its 'content'")
        turns.append((str(message.get("role")), message["content"]))
    return turns


def _grouped(pairs: Iterable[_Pair]) -> Preferences:
    by_prompt: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault((pair.system, pair.prompt), []).append(pair)
    found = Preferences([])
    for (system, prompt), members in by_prompt.items():
        found.pairs += len(members)
        group = _group(system, prompt, members, found)
        if group is not None:
            found.groups.append(group)
    return found


def _group(system: str, prompt: str, pairs: list[_Pair], found: Preferences) -> PreferenceGroup | None:
    """The group of one prompt's pairs; counts repetitions, contradictions and draws in `found`."""
    texts: dict[str, str] = {}
    about: dict[frozenset[str], list[_Pair]] = {}
    for pair in pairs:
        for text in (pair.chosen, pair.rejected):
            texts.setdefault(same_text(text), text)
        about.setdefault(frozenset((same_text(pair.chosen), same_text(pair.rejected))), []).append(pair)
    judged = []
    for rows in about.values():
        found.repeated += len(rows) - 1
        found.contradictions += len({same_text(row.chosen) for row in rows}) > 1
        verdict = _verdict(rows)
        found.draws += verdict is None
        if verdict is not None:
            judged.append(verdict)
    if not judged:
        return None
    used = {key for winner, loser, *_ in judged for key in (winner, loser)}
    place = {key: i for i, key in enumerate(key for key in texts if key in used)}
    edges = tuple(Edge(place[won], place[lost], weight, p, by, mark) for won, lost, weight, p, by, mark in judged)
    candidates = tuple(GroupCandidate(texts[key]) for key in place)
    return PreferenceGroup(prompt, candidates, edges, system, Prompt(prompt, system).id)


def _verdict(rows: list[_Pair]) -> tuple[str, str, float, float, str, bool | None] | None:
    """(winner, loser, weight, p, source, calibrated) of rows about the same two texts; None when both weigh the
    same."""
    first, second = same_text(rows[0].chosen), same_text(rows[0].rejected)
    shares = [row.p if same_text(row.chosen) == first else 1 - row.p for row in rows]
    weight = sum(row.weight for row in rows)
    behind = sum(row.weight * share for row, share in zip(rows, shares, strict=True))
    p = shares[0] if len(set(shares)) == 1 else behind / weight
    source = "+".join(sorted({row.source for row in rows if row.source}))
    if math.isclose(p, 0.5):
        return None
    if p < 0.5:
        first, second, p = second, first, 1 - p
    return first, second, weight, p, source, merged_mark(row.calibrated for row in rows)
