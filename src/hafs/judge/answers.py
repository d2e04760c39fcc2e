"""Reading a judge's reply, strictly: what does not say one thing in the agreed form is malformed, never a guess.

Endpoints without structured output talk around the object; a reply may do so as long as it holds exactly one object
that fits. Two that differ (a reply for both sides, or a candidate's own "verdict" quoted beside the judge's) are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hafs.judge.protocols import AGREEMENT, GRADES, LABELS, UNSURE, VERDICTS, Ask, Reading

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_BEGUN = re.compile(r"\{\s*[\"{]")  # an object, not a brace in prose
_COMMENT = 500  # characters kept of a judge's reason


class Unreadable(ValueError):
    """A reply that cannot be read; the message says why."""


def read(ask: Ask, reply: str) -> Reading:
    """What `reply` says to `ask`. Raises Unreadable."""
    name = ask.protocol.partition("@")[0]
    said = _only_object(reply, _KEYS[name])
    reading = _READERS[name](ask, said)
    comment = said.get("reason", "")
    return Reading(**{**vars(reading), "comment": comment[:_COMMENT] if isinstance(comment, str) else ""})


def _listwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if said["answer"] == UNSURE:
        return _unsure()
    if said["answer"] != "ranked":
        raise Unreadable(f"the answer is {said['answer']!r}")
    ranking = said["ranking"]
    if not isinstance(ranking, list):
        raise Unreadable("the ranking is no list")
    tiers = [tier if isinstance(tier, list) else [tier] for tier in ranking]
    labels = list(LABELS[: len(ask.shown)])
    flat = [label for tier in tiers for label in tier]
    if not all(isinstance(label, str) for label in flat) or sorted(flat) != labels or not all(tiers):
        raise Unreadable(f"the ranking does not name each of {', '.join(labels)} once")
    if len(tiers) == 1:
        return Reading("tie")
    return Reading("ranked", tuple(tuple(ask.shown[labels.index(x)] for x in sorted(tier)) for tier in tiers))


def _pairwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    verdict = said["verdict"]
    if verdict == UNSURE:
        return _unsure()
    if verdict not in VERDICTS:
        raise Unreadable(f"the verdict is {verdict!r}")
    if verdict == "A=B":
        return Reading("tie")
    a, b = ask.shown
    winner, loser = (a, b) if verdict.startswith("A") else (b, a)
    return Reading("ranked", ((winner,), (loser,)), strength=2.0 if ">>" in verdict else 1.0)


def _pointwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if said["answer"] == UNSURE:
        return _unsure()
    grade = said["grade"]
    if said["answer"] != "graded" or isinstance(grade, bool) or grade not in GRADES:
        raise Unreadable(f"the grade is {grade!r}")
    return Reading("ranked", value=(grade - GRADES[0]) / (GRADES[-1] - GRADES[0]))


def _reference(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if said["verdict"] == UNSURE:
        return _unsure()
    if not isinstance(said["verdict"], str) or said["verdict"] not in AGREEMENT:
        raise Unreadable(f"the verdict is {said['verdict']!r}")
    return Reading("ranked", value=AGREEMENT[said["verdict"]])


_READERS = {"listwise": _listwise, "pairwise": _pairwise, "pointwise": _pointwise, "reference": _reference}


_KEYS = {
    "listwise": {"answer", "ranking"},
    "pairwise": {"verdict"},
    "pointwise": {"answer", "grade"},
    "reference": {"verdict"},
}


def _unsure() -> Reading:
    return Reading("abstain", reason="the judge cannot say")


def _only_object(reply: str, keys: set[str]) -> Mapping[str, Any]:
    """The one JSON object in `reply`; it has `keys`, perhaps a reason, and nothing else."""
    found: list[Mapping[str, Any]] = []
    for candidate in _objects(_THOUGHT.sub("", reply)):
        if candidate not in found:
            found.append(candidate)
    if not found:
        raise Unreadable("there is no whole JSON object in it")
    if len(found) > 1:
        raise Unreadable(f"it holds {len(found)} different JSON objects")
    said = found[0]
    if extra := sorted(set(said) - keys - {"reason"}):
        raise Unreadable(f"unknown key {extra[0]!r}")
    if missing := sorted(keys - set(said)):
        raise Unreadable(f"the key {missing[0]!r} is missing")
    return said


def _objects(text: str) -> list[Mapping[str, Any]]:
    """The JSON objects that stand in `text`, none inside another. Raises Unreadable for one with a key twice."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_number)
    found, at = [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            if _BEGUN.match(text, at):
                raise Unreadable("a JSON object in it is cut off or broken") from None
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise Unreadable("a key stands in it twice")
    return dict(pairs)


def _no_number(name: str) -> float:
    raise Unreadable(f"{name} is no number")
