"""Several scorers as one: the weighted mean of some, or one after the other, with what each part said kept.

    python*0.7+text*0.3      the mean of two values, weighted
    python>text              by `python`; where it ties, by `text`
    python>text*2+code       `+` binds tighter than `>`
    text:'min_words=5'       an argument; quotes where it holds + > or *

A candidate that one part leaves unscored is unscored, with that part's reason: a missing value is never a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from hafs.errors import UsageError
from hafs.scorers import prepare
from hafs.types import Candidate, Prompt, Score

__all__ = ["Composite", "Part", "parse"]

FIX = "write it as NAME, NAME:ARGUMENT, A*0.7+B*0.3 or A>B, with quotes around an argument that holds + > or *"
TERM = re.compile(r"""\s*([A-Za-z_][\w-]*)(?::('[^']*'|"[^"]*"|[^'"+>*][^+>*]*))?\s*(?:\*\s*([0-9.]+))?\s*""")


@dataclass(frozen=True)
class Part:
    """One scorer of an expression and how much it weighs."""

    name: str
    argument: str = ""
    weight: float = 1.0

    def __str__(self) -> str:
        quoted = f"'{self.argument}'" if re.search(r"[+>*]", self.argument) else self.argument
        return f"{self.name}:{quoted}" if self.argument else self.name


def parse(spec: str) -> list[list[Part]]:
    """Levels, most important first, of weighted parts. Raises UsageError for what is no expression."""
    levels: list[list[Part]] = [[]]
    at = 0
    while True:
        m = TERM.match(spec, at)
        if m is None:
            raise UsageError(f"the scorer {spec!r} cannot be read at {spec[at : at + 20]!r}", FIX)
        argument = (m[2] or "").strip()
        argument = argument[1:-1] if argument[:1] in ("'", '"') else argument
        levels[-1].append(Part(m[1], argument, _weight(spec, m[3])))
        at = m.end()
        if at == len(spec):
            return levels
        if spec[at] not in "+>":
            raise UsageError(f"the scorer {spec!r} cannot be read at {spec[at : at + 20]!r}", FIX)
        if spec[at] == ">":
            levels.append([])
        at += 1


def _weight(spec: str, text: str | None) -> float:
    try:
        weight = float(text) if text else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight < math.inf:
        raise UsageError(f"the scorer {spec!r} has a weight that is no number above 0", FIX)
    return weight


class Composite:
    """The scorer that an expression of several parts stands for.

    `arguments` hold the parts with their versions and arguments. `details["parts"]` of a score has what each part said.
    The value is the weighted mean of the first level; the key is the levels' keys one after the other, where a level
    of several parts has the mean as its key. A part's tolerance matters only in the last place of the whole key;
    before that its last number is cut into steps of the tolerance.
    """

    version = "1"

    def __init__(self, levels: Sequence[Sequence[Part]], open_part: Callable[[str, str], Any]) -> None:
        self.name = ">".join("+".join(f"{p}*{p.weight:g}" if p.weight != 1 else str(p) for p in lv) for lv in levels)
        self._levels = levels
        with ExitStack() as stack:
            self._scorers: list[list[Any]] = []
            for level in levels:
                self._scorers.append([])
                for part in level:
                    self._scorers[-1].append(open_part(part.name, part.argument))
                    stack.callback(self._scorers[-1][-1].close)
            stack.pop_all()
        self._note_parts()

    def _note_parts(self) -> None:
        self.arguments: Mapping[str, Any] = {
            "parts": [
                {"scorer": f"{s.name}@{s.version}", "arguments": dict(s.arguments)} for lv in self._scorers for s in lv
            ]
        }

    @property
    def accelerated(self) -> bool:
        """Whether a part is a model, which wants an accelerator."""
        return any(getattr(s, "accelerated", False) for level in self._scorers for s in level)

    def prepare(self, prompts: Iterable[Prompt]) -> None:
        """Have the parts take into their arguments what the checks of `prompts` name; see `hafs.scorers.prepare`."""
        known = list(prompts)
        for level in self._scorers:
            for scorer in level:
                prepare(scorer, known)
        self._note_parts()

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """See `Scorer.score`."""
        streams = [[scorer.score(items) for scorer in level] for level in self._scorers]
        for _, candidate in items:
            yield self._combined(candidate.id, [[next(stream) for stream in level] for level in streams])

    def close(self) -> None:
        """See `Scorer.close`."""
        for level in self._scorers:
            for scorer in level:
                scorer.close()

    def _combined(self, candidate_id: str, scores: list[list[Score]]) -> Score:
        named = [(part, s) for lv, ss in zip(self._levels, scores, strict=True) for part, s in zip(lv, ss, strict=True)]
        details = {"parts": {f"{part}": _said(part, s) for part, s in named}}
        blank = (candidate_id, self.name, self.version, self.arguments)
        missing = [f"{part}: {s.reason}" for part, s in named if s.value is None]
        if missing:
            return Score(*blank, reason="; ".join(missing), details=details)
        levels = [self._level(parts, ss) for parts, ss in zip(self._levels, scores, strict=True)]
        key = [n for value, k, tolerance in levels[:-1] for n in _stepped(k or (value,), tolerance)]
        last_value, last_key, tolerance = levels[-1]
        decided = [s.passed for _, s in named if s.passed is not None]
        cause = next((f"{part}: {s.cause}" for part, s in named if s.cause), "")
        return Score(
            *blank,
            value=levels[0][0],
            key=(*key, *(last_key or (last_value,))),
            tolerance=tolerance,
            passed=all(decided) if decided else None,
            cause=cause,
            details=details,
        )

    def _level(self, parts: Sequence[Part], scores: Sequence[Score]) -> tuple[float, tuple[float, ...], float]:
        """(value, key, tolerance) of the parts that are weighed against each other."""
        if len(scores) == 1:
            return scores[0].value or 0.0, scores[0].key, scores[0].tolerance
        total = sum(p.weight for p in parts)
        mean = sum(p.weight * (s.value or 0.0) for p, s in zip(parts, scores, strict=True)) / total
        return round(mean, 9), (), 0.0


def _said(part: Part, score: Score) -> dict[str, Any]:
    kept = {"value": score.value, "weight": part.weight, "passed": score.passed, "cause": score.cause}
    return {**kept, "reason": score.reason, "key": list(score.key), "details": dict(score.details)}


def _stepped(key: tuple[float, ...], tolerance: float) -> tuple[float, ...]:
    if tolerance <= 0:
        return key
    return (*key[:-1], math.floor(key[-1] / tolerance) * tolerance)
