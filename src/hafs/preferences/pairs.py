"""Preference pairs in and out: the rows that other trainers read, and groups from them.

A row is `{"prompt", "chosen", "rejected"}`, each a text or a list of chat messages, with an optional
"weight", "source", "system", "tools", "margin", "p" (the probability that chosen is the better one) and "calibrated"
(of a judge's pair: whether the judge was calibrated on people's labels). `formats` has other shapes of rows; what they
say becomes a `Pair` or a `Label` here. All rows of one prompt make one group.

What several rows say of the same two texts is added up: weights are summed, and contradicting rows become one edge
whose `p` is the share of the weight behind its winner. Two sides that weigh the same are a tie, and make no edge. One
row of an uncalibrated judge makes the whole edge uncalibrated.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hafs.files.jsonl import check_fields
from hafs.preferences.ranking import same_text
from hafs.types import Edge, GroupCandidate, PreferenceGroup, Prompt, content_id

LARGEST = 1e100
"""Weights and margins are no larger, and weights no smaller than one by it: their sums and products stay finite."""


class BadRow(NamedTuple):
    """A row that cannot be used: its number (of its file, when it is one of a directory), why, and the row itself."""

    line: int
    reason: str
    row: Any = None
    file: str = ""


@dataclass
class Preferences:
    """Groups from rows: the bad rows, and what became of rows about the same two texts.

    `pairs` counts usable rows of pairs, `repeated` those that an earlier row already said, `contradictions`
    the edges with rows on both sides, `draws` the pairs of texts left out because both sides weigh the same.
    `unpaired` counts answers labelled good or bad whose prompt has none of the other label. `formats` counts rows by
    the format that they were read as.
    """

    groups: list[PreferenceGroup]
    bad_rows: list[BadRow] = field(default_factory=list)
    pairs: int = 0
    repeated: int = 0
    contradictions: int = 0
    draws: int = 0
    unpaired: int = 0
    formats: Counter[str] = field(default_factory=Counter)

    @property
    def bad(self) -> list[tuple[int, str]]:
        """The numbers of the bad rows, with the reasons."""
        return [(row.line, row.reason) for row in self.bad_rows]


class Asked(NamedTuple):
    """What a pair or a label is about: system text, earlier messages, the prompt, and tools (lists as JSON texts)."""

    system: str
    context: str
    prompt: str
    tools: str = "[]"


@dataclass(frozen=True)
class Pair:
    """One row that says which of two answers is better."""

    asked: Asked
    chosen: str
    rejected: str
    weight: float = 1.0
    p: float = 1.0
    source: str = ""
    margin: float | None = None
    calibrated: bool | None = None


@dataclass(frozen=True)
class Label:
    """One row that says of an answer alone that it is good or bad."""

    asked: Asked
    text: str
    good: bool
    weight: float = 1.0
    source: str = ""


def merged_mark(marks: Iterable[bool | None]) -> bool | None:
    """Whether an edge that comes of several is calibrated: False when one is not, None when none is a judge's."""
    known = [mark for mark in marks if mark is not None]
    return all(known) if known else None


def to_pairs(group: PreferenceGroup, *, conversational: bool = False) -> list[dict[str, Any]]:
    """One row an edge: prompt, chosen, rejected, weight, source; TRL's explicit preference format.

    As text, a system prompt is a column "system"; with `conversational` everything is lists of chat messages
    and it is the first message, as it always is where there are earlier turns. A soft edge has its probability in a
    column "p", a known margin is in "margin", tools are in "tools", and a judge's edge says in "calibrated" whether the
    judge was.
    """
    conversational = conversational or bool(group.context)
    rows = []
    for chosen, rejected, edge in group.pairs():
        row: dict[str, Any] = {"prompt": group.prompt, "chosen": chosen, "rejected": rejected}
        if conversational:
            row["prompt"] = messages(group)
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
        if edge.margin is not None:
            row["margin"] = edge.margin
        if group.tools:
            row["tools"] = [dict(tool) for tool in group.tools]
        rows.append(row)
    return rows


def messages(group: PreferenceGroup) -> list[dict[str, Any]]:
    """The conversation up to the answer as chat messages."""
    system = [{"role": "system", "content": group.system}] if group.system else []
    return [*system, *(dict(m) for m in group.context), {"role": "user", "content": group.prompt}]


def from_pairs(rows: Iterable[Mapping[str, Any]]) -> Preferences:
    """Groups from rows of pairs, one a prompt, in the order the prompts first appear; rows count from 1."""
    pairs, bad = [], []
    for number, row in enumerate(rows, 1):
        try:
            pairs.append(parse_pair(row))
        except KeyError as e:
            bad.append(BadRow(number, f"the column {e.args[0]!r} is missing", row))
        except (ValueError, TypeError) as e:
            bad.append(BadRow(number, str(e), row))
    found = grouped(pairs)
    found.bad_rows = bad
    return found


def parse_group(row: Mapping[str, Any]) -> PreferenceGroup:
    """A preference group from its own row; raises KeyError for a missing column, ValueError or TypeError for one that
    cannot be used, or when there is no edge."""
    check_fields(PreferenceGroup, row)
    json.dumps([row.get("context"), row.get("tools")])  # of Parquet they may hold what is no JSON
    group = PreferenceGroup.from_dict(row)
    if not group.edges:
        raise ValueError("the group has no edge")
    for edge in group.edges:
        weight_of(edge.weight)
        _number(edge.margin, "margin")
    return group


def parse_pair(row: Mapping[str, Any]) -> Pair:
    """A pair from a row; raises KeyError for a missing column, ValueError for one that cannot be used."""
    columns = {name: row[name] for name in ("prompt", "chosen", "rejected")}
    asked = asked_of(columns["prompt"], row.get("system"), row.get("tools"))
    chosen, rejected = (answer_of(columns[name], name, asked) for name in ("chosen", "rejected"))
    return checked_pair(asked, chosen, rejected, row)


def checked_pair(asked: Asked, chosen: str, rejected: str, row: Mapping[str, Any]) -> Pair:
    """A pair with weight, p, source and margin from the columns of a row; raises ValueError for wrong ones."""
    if same_text(chosen) == same_text(rejected):
        raise ValueError("chosen and rejected are the same text")
    weight, p = weight_of(row.get("weight")), _number(row.get("p"), "p")
    if not 0 <= p <= 1:
        raise ValueError(f"the probability p is {p}, not in [0, 1]")
    margin, calibrated = row.get("margin"), row.get("calibrated")
    margin = None if margin is None else _number(margin, "margin")
    if calibrated is not None and not isinstance(calibrated, bool):
        raise ValueError(f"the column 'calibrated' is {calibrated!r}, not true or false")
    return Pair(asked, chosen, rejected, weight, p, text_of(row.get("source"), "source"), margin, calibrated)


def _number(value: Any, name: str) -> float:
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ValueError(f"the column {name!r} is {str(value)[:40]!r}, not a number of at most {LARGEST:g}")
    return float(value)


def weight_of(value: Any) -> float:
    """The weight that a column holds, 1 when it is empty; raises ValueError for anything else."""
    weight = _number(value, "weight")
    if weight < 1 / LARGEST:
        raise ValueError(f"the weight is {weight}, not above 0")
    return weight


def text_of(value: Any, name: str) -> str:
    """The text in a column that may be empty; raises ValueError for anything else."""
    if value is not None and not isinstance(value, str):
        raise ValueError(f"the column {name!r} is {type(value).__name__}, not a text")
    return value or ""


def asked_of(value: Any, system: Any = None, tools: Any = None) -> Asked:
    """What a prompt, given as text or as messages that end with the user's, asks. Raises ValueError."""
    if isinstance(tools, str):
        tools = json.loads(tools) if tools.strip() else None
    if tools is not None and not (isinstance(tools, list) and all(isinstance(t, dict) for t in tools)):
        raise ValueError("the column 'tools' is no list of objects")
    listed = json.dumps(tools or [], sort_keys=True)
    given = text_of(system, "system")
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("the prompt is empty")
        return Asked(given, "[]", value, listed)
    turns = turns_of(value, "prompt")
    given = turns.pop(0)["content"] if turns and turns[0]["role"] == "system" else given
    if not turns or turns[-1]["role"] != "user":
        raise ValueError("the messages of a prompt end with one of the user")
    return Asked(given, json.dumps(turns[:-1], sort_keys=True), turns[-1]["content"], listed)


def answer_of(value: Any, name: str, asked: Asked) -> str:
    """The text of an answer given as text or as messages, which may repeat the prompt before the answer."""
    if isinstance(value, str):
        return value
    *before, last = turns_of(value, name)
    if last["role"] != "assistant":
        raise ValueError(f"the last message of {name!r} is of {last['role']!r}, not of the assistant")
    if last.get("tool_calls"):
        raise ValueError(f"the answer in {name!r} is a call of tools, not a text")
    before = [turn for turn in before if turn["role"] != "system"]
    prompt = {"role": "user", "content": asked.prompt}
    if before not in ([], [prompt], [*json.loads(asked.context), prompt]):
        raise ValueError(f"the messages of {name!r} begin with another conversation than the prompt")
    return str(last["content"])


def turns_of(value: Any, name: str) -> list[dict[str, Any]]:
    """Chat messages with a role and a text each; raises ValueError for anything else.

    A message that calls tools needs no text, and other keys of a message are kept.
    """
    if not isinstance(value, list) or not value:
        raise ValueError(f"the column {name!r} is neither a text nor a list of messages")
    turns = []
    for message in value:
        text = message.get("content") if isinstance(message, dict) else None
        if isinstance(text, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in text):
            text = "".join(str(part.get("text", "")) for part in text)
        if text is None and isinstance(message, dict) and message.get("tool_calls"):
            text = ""
        if not isinstance(text, str):
            raise ValueError(f"the column {name!r} has a message without a text as its 'content'")
        if not isinstance(message.get("role"), str):
            raise ValueError(f"the column {name!r} has a message without a text as its 'role'")
        kept = {k: v for k, v in message.items() if v is not None and k not in ("role", "content", "weight")}
        turns.append({"role": message["role"], "content": text, **kept})
    return turns


def said(rows: Sequence[Pair | Label | PreferenceGroup]) -> Preferences:
    """Groups from everything that a file says: its own groups first, then what its pairs and labels make."""
    labels: dict[Asked, list[Label]] = {}
    for row in rows:
        if isinstance(row, Label):
            labels.setdefault(row.asked, []).append(row)
    pairs = [row for row in rows if isinstance(row, Pair)]
    unpaired = 0
    for asked, members in labels.items():
        good, bad = ([m for m in members if m.good is which] for which in (True, False))
        made = [
            Pair(asked, a.text, b.text, (a.weight * b.weight) ** 0.5, source=a.source)
            for a in good
            for b in bad
            if same_text(a.text) != same_text(b.text)
        ]
        unpaired += 0 if made else len(members)
        pairs += made
    found = grouped(pairs)
    found.groups[:0] = [row for row in rows if isinstance(row, PreferenceGroup)]
    found.unpaired = unpaired
    return found


def grouped(pairs: Iterable[Pair]) -> Preferences:
    """One group for each thing asked, in the order in which they first appear."""
    by_prompt: dict[Asked, list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.asked, []).append(pair)
    found = Preferences([])
    for asked, members in by_prompt.items():
        found.pairs += len(members)
        group = _group(asked, members, found)
        if group is not None:
            found.groups.append(group)
    return found


def _group(asked: Asked, pairs: list[Pair], found: Preferences) -> PreferenceGroup | None:
    """The group of one prompt's pairs; counts repetitions, contradictions and draws in `found`."""
    texts: dict[str, str] = {}
    about: dict[frozenset[str], list[Pair]] = {}
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
    edges = tuple(
        Edge(place[v.winner], place[v.loser], v.weight, v.p, v.source, v.calibrated, v.margin) for v in judged
    )
    return group_of(asked, [GroupCandidate(texts[key]) for key in place], edges)


def group_of(asked: Asked, candidates: Iterable[GroupCandidate], edges: Iterable[Edge]) -> PreferenceGroup:
    """The group of what was asked."""
    context, tools = (tuple(json.loads(text)) for text in (asked.context, asked.tools))
    plain = not context and not tools
    id = Prompt(asked.prompt, asked.system).id if plain else content_id("prompt", *asked)
    return PreferenceGroup(
        asked.prompt, tuple(candidates), tuple(edges), asked.system, id, context=context, tools=tools
    )


class _Verdict(NamedTuple):
    """What the rows about two texts say together."""

    winner: str
    loser: str
    weight: float
    p: float
    source: str
    calibrated: bool | None
    margin: float | None


def _verdict(rows: list[Pair]) -> _Verdict | None:
    """The verdict of rows about the same two texts; None when both weigh the same."""
    first, second = same_text(rows[0].chosen), same_text(rows[0].rejected)
    ahead = [same_text(row.chosen) == first for row in rows]
    shares = [row.p if is_first else 1 - row.p for row, is_first in zip(rows, ahead, strict=True)]
    margins = [(1 if up else -1) * r.margin for r, up in zip(rows, ahead, strict=True) if r.margin is not None]
    margin = sum(margins) / len(margins) if margins else None
    weight = sum(row.weight for row in rows)
    behind = sum(row.weight * share for row, share in zip(rows, shares, strict=True))
    p = shares[0] if len(set(shares)) == 1 else behind / weight
    source = "+".join(sorted({row.source for row in rows if row.source}))
    if math.isclose(p, 0.5):
        return None
    mark = merged_mark(row.calibrated for row in rows)
    if p > 0.5:
        return _Verdict(first, second, weight, p, source, mark, margin)
    return _Verdict(second, first, weight, 1 - p, source, mark, None if margin is None else -margin)
