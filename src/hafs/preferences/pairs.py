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

from hafs.data import Asked, BadRow, ColumnsRow, answer_of, asked_in, column_of, text_of, value_of
from hafs.files.jsonl import check_fields
from hafs.preferences.ranking import same_text
from hafs.types import CandidateLabel, Edge, GroupCandidate, PreferenceGroup, Prompt, call_in, content_id

LARGEST = 1e100
"""Weights and margins are no larger, and weights no smaller than one by it: their sums and products stay finite."""


@dataclass
class Preferences:
    """Groups from rows: the bad rows, and what became of rows about the same two texts.

    `pairs` counts usable rows of pairs, `repeated` those that an earlier row already said, `contradictions`
    the edges with rows on both sides, `draws` the pairs of texts left out because both sides weigh the same.
    `unpaired` counts answers labelled good or bad whose prompt has none of the other label. `formats` counts rows by
    the format that they were read as, `notes` are remarks on the reading.
    """

    groups: list[PreferenceGroup]
    bad_rows: list[BadRow] = field(default_factory=list)
    pairs: int = 0
    repeated: int = 0
    contradictions: int = 0
    draws: int = 0
    unpaired: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[tuple[int, str]]:
        """The numbers of the bad rows, with the reasons."""
        return [(row.line, row.reason) for row in self.bad_rows]


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

    As text, a system prompt is a column "system"; with `conversational` everything is lists of chat messages and it is
    the first message, as it always is where there are earlier turns or answers that call tools. A soft edge has its
    probability in a column "p", a known margin is in "margin", tools are in "tools", and a judge's edge says in
    "calibrated" whether the judge was.
    """
    conversational = conversational or bool(group.context) or calls_tools(group)
    rows = []
    for chosen, rejected, edge in group.pairs():
        row: dict[str, Any] = {"prompt": group.prompt, "chosen": chosen, "rejected": rejected}
        if conversational:
            row["prompt"] = messages(group)
            row["chosen"], row["rejected"] = assistant(chosen), assistant(rejected)
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
    asked = [{"role": "user", "content": group.prompt}] if group.prompt or not group.context else []
    return [*system, *(dict(m) for m in group.context), *asked]


def assistant(text: str) -> list[dict[str, Any]]:
    """An answer as a list of one chat message; one that calls tools is the message with its calls."""
    return [call_in(text) or {"role": "assistant", "content": text}]


def calls_tools(group: PreferenceGroup) -> bool:
    """Whether an answer of a group calls tools, so that it is no plain text."""
    return any(call_in(candidate.text) for candidate in group.candidates)


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
    if not group.edges and not any(c.label for c in group.candidates):
        raise ValueError("the group has no edge, and no candidate has a label")
    for edge in group.edges:
        weight_of(edge.weight)
        _number(edge.margin, "margin")
    return group


def parse_pair(row: Mapping[str, Any]) -> Pair:
    """A pair from a row; raises KeyError for a missing column, ValueError for one that cannot be used."""
    given = row if isinstance(row, ColumnsRow) else ColumnsRow(row)
    asked = asked_in(given)
    better, worse = value_of(given, "chosen"), value_of(given, "rejected")
    return checked_pair(asked, answer_of(better, "chosen", asked), answer_of(worse, "rejected", asked), given)


def checked_pair(asked: Asked, chosen: str, rejected: str, row: Mapping[str, Any]) -> Pair:
    """A pair with weight, p, source and margin from the columns of a row; raises ValueError for wrong ones."""
    if same_text(chosen) == same_text(rejected):
        raise ValueError("chosen and rejected are the same text")
    weight, p = weight_of(row.get("weight")), _number(row.get("p"), "p")
    if not 0 <= p <= 1:
        raise ValueError(f"the probability p is {p}, not in [0, 1]")
    margin, calibrated = row.get("margin", scored_margin(row)), row.get("calibrated")
    margin = None if margin is None else _number(margin, "margin")
    if calibrated is not None and not isinstance(calibrated, bool):
        raise ValueError(f"the column 'calibrated' is {calibrated!r}, not true or false")
    return Pair(asked, chosen, rejected, weight, p, text_of(row.get("source"), "source"), margin, calibrated)


def scored_margin(row: Mapping[str, Any]) -> float | None:
    """By how much the better answer's score is higher, None without scores; raises ValueError for a tie."""
    names = [column_of(row, role) for role in ("score_chosen", "score_rejected")]
    if not all(names):
        return None
    better, worse = (row[name] for name in names)
    if any(isinstance(s, bool) or not isinstance(s, int | float) for s in (better, worse)):
        raise ValueError(f"{names[0]} and {names[1]} are no numbers")
    if better == worse:
        raise ValueError("both answers have one score: a tie makes no pair")
    return float(better - worse)


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


def said(rows: Sequence[Pair | Label | PreferenceGroup]) -> Preferences:
    """Groups from everything that a file says: its own groups first, then what its pairs and labels make.

    A label stays with its answer; every good answer to a prompt also makes a pair with every bad one.
    """
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
    found = grouped(pairs, labels)
    found.groups[:0] = [row for row in rows if isinstance(row, PreferenceGroup)]
    found.unpaired = unpaired
    return found


def grouped(pairs: Iterable[Pair], labels: Mapping[Asked, Sequence[Label]] | None = None) -> Preferences:
    """One group for each thing asked, in the order in which they first appear; those that only have labels last."""
    by_prompt: dict[Asked, list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair.asked, []).append(pair)
    labels = labels or {}
    found = Preferences([])
    for asked in dict.fromkeys([*by_prompt, *labels]):
        members = by_prompt.get(asked, [])
        found.pairs += len(members)
        group = _group(asked, members, labels.get(asked, ()), found)
        if group is not None:
            found.groups.append(group)
    return found


def _group(asked: Asked, pairs: list[Pair], labels: Sequence[Label], found: Preferences) -> PreferenceGroup | None:
    """The group of one prompt's pairs and labels; counts repetitions, contradictions and draws in `found`."""
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
    marked = _labels_of(labels, found)
    for label in labels:
        texts.setdefault(same_text(label.text), label.text)
    used = {key for winner, loser, *_ in judged for key in (winner, loser)} | set(marked)
    if not used:
        return None
    place = {key: i for i, key in enumerate(key for key in texts if key in used)}
    edges = tuple(
        Edge(place[v.winner], place[v.loser], v.weight, v.p, v.source, v.calibrated, v.margin) for v in judged
    )
    return group_of(asked, [GroupCandidate(texts[key], label=marked.get(key)) for key in place], edges)


def _labels_of(labels: Sequence[Label], found: Preferences) -> dict[str, CandidateLabel]:
    """What several labels of one answer say together; none where good and bad weigh the same."""
    by_text: dict[str, list[Label]] = {}
    for label in labels:
        by_text.setdefault(same_text(label.text), []).append(label)
    made = {}
    for text, rows in by_text.items():
        found.repeated += len(rows) - 1
        net = sum(row.weight if row.good else -row.weight for row in rows)
        found.contradictions += len({row.good for row in rows}) > 1
        if math.isclose(net, 0.0, abs_tol=1e-12):
            found.draws += 1
            continue
        source = "+".join(sorted({row.source for row in rows if row.source}))
        made[text] = CandidateLabel(net > 0, abs(net), source)
    return made


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
