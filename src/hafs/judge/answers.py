"""Reading a judge's reply, strictly: what does not say one thing in the agreed form is malformed, never a guess.

Endpoints without structured output talk around the object; a reply may do so as long as it holds exactly one object
that fits. Two that differ (a reply for both sides, or a candidate's own "verdict" quoted beside the judge's) are none.
A thought before it says nothing; what is left open is not guessed. Case and blanks in a verdict, and keys that name no
winner, change nothing in what is said.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from hafs.judge.protocols import AGREEMENT, GRADES, LABELS, UNSURE, VERDICTS, Ask, Reading
from hafs.models.chat import whole
from hafs.models.thoughts import split_thought

_BEGUN = re.compile(r"\{\s*[\"{]")  # an object, not a brace in prose
_COMMENT = 500  # characters kept of a judge's reason
_CLOSING = re.compile(r"^[ \t]*(?:</[\w:]+>|\[/THINK\]|<\|END_THINKING\|>)", re.MULTILINE)
_FINAL = re.compile(r"<\|channel\|>final\b")
_SHOWN = 80  # characters of a reply in a message


class Unreadable(ValueError):
    """A reply that cannot be read; the message says why."""


def read(ask: Ask, reply: str) -> Reading:
    """What `reply` says to `ask`. Raises Unreadable, whatever the reply is."""
    try:
        return _read(ask, reply)
    except RecursionError:
        raise Unreadable("it is nested too deep") from None


def _read(ask: Ask, reply: str) -> Reading:
    name = ask.protocol.partition("@")[0]
    said = _only_object(_answer(reply), _KEYS[name])
    reading = _READERS[name](ask, said)
    comment = said.get("reason", "")
    return Reading(**{**vars(reading), "comment": whole(comment[:_COMMENT]) if isinstance(comment, str) else ""})


def _answer(reply: str) -> str:
    """What stands after the judge's thought.

    A judge may quote what a candidate says, marks of thoughts included. So marks count only where a thought begins the
    reply, or where the end of one stands once, at the beginning of a line; an answer in two final channels is none.
    """
    begin = reply.lstrip()[:1]
    if begin in ("<", "["):
        if len(_FINAL.findall(reply)) > 1:
            raise Unreadable("it has more than one final channel")
        thought = split_thought(reply)
        if not thought.finished:
            raise Unreadable("its thought has no end, so there is no answer after it")
        return thought.text
    if begin not in ("{", "`") and len(_CLOSING.findall(reply)) == 1:
        return split_thought(reply).text
    return reply


def _shown(value: Any) -> str:
    """A value in a message."""
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return whole(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _word(value: Any) -> Any:
    """An agreed word as it is agreed: blanks around and letters' case are a judge's own."""
    return value.strip().lower() if isinstance(value, str) else value


def _letters(value: Any) -> Any:
    """A label, or a verdict made of labels."""
    return re.sub(r"\s+", "", value).upper() if isinstance(value, str) and len(value) <= _SHOWN else value


def _listwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if _word(said["answer"]) == UNSURE:
        return _unsure()
    if _word(said["answer"]) != "ranked":
        raise Unreadable(f"the answer is {_shown(said['answer'])}")
    ranking = said["ranking"]
    if not isinstance(ranking, list):
        raise Unreadable("the ranking is no list")
    tiers = [tier if isinstance(tier, list) else [tier] for tier in ranking]
    labels = list(LABELS[: len(ask.shown)])
    tiers = [[_letters(label) for label in tier] for tier in tiers]
    flat = [label for tier in tiers for label in tier]
    if not all(isinstance(label, str) for label in flat) or sorted(flat) != labels or not all(tiers):
        raise Unreadable(f"the ranking does not name each of {', '.join(labels)} once")
    if len(tiers) == 1:
        return Reading("tie")
    return Reading("ranked", tuple(tuple(ask.shown[labels.index(x)] for x in sorted(tier)) for tier in tiers))


def _pairwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if _word(said["verdict"]) == UNSURE:
        return _unsure()
    verdict = _letters(said["verdict"])
    if verdict not in VERDICTS:
        raise Unreadable(f"the verdict is {_shown(said['verdict'])}")
    if verdict == "A=B":
        return Reading("tie")
    a, b = ask.shown
    winner, loser = (a, b) if verdict.startswith("A") else (b, a)
    return Reading("ranked", ((winner,), (loser,)), strength=2.0 if ">>" in verdict else 1.0)


def _pointwise(ask: Ask, said: Mapping[str, Any]) -> Reading:
    if _word(said["answer"]) == UNSURE:
        return _unsure()
    grade = said["grade"]
    if _word(said["answer"]) != "graded" or isinstance(grade, bool) or grade not in GRADES:
        raise Unreadable(f"the grade is {_shown(grade)}")
    return Reading("ranked", value=(grade - GRADES[0]) / (GRADES[-1] - GRADES[0]))


def _reference(ask: Ask, said: Mapping[str, Any]) -> Reading:
    verdict = _word(said["verdict"])
    if verdict == UNSURE:
        return _unsure()
    if not isinstance(verdict, str) or verdict not in AGREEMENT:
        raise Unreadable(f"the verdict is {_shown(said['verdict'])}")
    return Reading("ranked", value=AGREEMENT[verdict])


_READERS = {"listwise": _listwise, "pairwise": _pairwise, "pointwise": _pointwise, "reference": _reference}


_ALL_KEYS = {"answer", "ranking", "verdict", "grade"}
_KEYS = {
    "listwise": {"answer", "ranking"},
    "pairwise": {"verdict"},
    "pointwise": {"answer", "grade"},
    "reference": {"verdict"},
}


def _unsure() -> Reading:
    return Reading("abstain", reason="the judge cannot say")


def _only_object(reply: str, keys: set[str]) -> Mapping[str, Any]:
    """The one JSON object in `reply`; it has `keys`, perhaps a reason, and nothing else that names a winner."""
    found: list[Mapping[str, Any]] = []
    for candidate in _objects(reply):
        if candidate not in found:
            found.append(candidate)
    if not found:
        raise Unreadable("there is no whole JSON object in it")
    if len(found) > 1:
        raise Unreadable(f"it holds {len(found)} different JSON objects")
    said = found[0]
    for extra in sorted(set(said) - keys - {"reason"}):
        if extra in _ALL_KEYS or _names_one(said[extra]):
            raise Unreadable(f"the key {_shown(extra)} may say something else")
    if missing := sorted(keys - set(said)):
        raise Unreadable(f"the key {missing[0]!r} is missing")
    return said


def _names_one(value: Any) -> bool:
    """Whether a value might name a winner or an order; a number, a switch or a sentence does not."""
    if isinstance(value, str):
        return len(_letters(value)) == 1 or _letters(value) in VERDICTS or _word(value) in AGREEMENT
    return isinstance(value, list | dict)


def _objects(text: str) -> list[Mapping[str, Any]]:
    """The JSON objects that stand in `text`, none inside another. Raises Unreadable for one with a key twice."""
    decoder = json.JSONDecoder(object_pairs_hook=_no_key_twice, parse_constant=_no_number)
    found, at = [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except Unreadable:
            raise
        except (ValueError, RecursionError):  # a number of thousands of digits is a ValueError alone
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
