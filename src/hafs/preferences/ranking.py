"""From scores to a ranking: tiers of candidates, best first.

A tier holds what cannot be told apart. Keys are compared part by part; two that agree before their last part
tie when the last parts differ by at most the tolerance. Such a tie is not transitive (40 ~ 70 ~ 100 at
tolerance 40), so a tier is anchored at its best member: everything within the tolerance of that one belongs
to it, and the next one opens a tier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hafs.errors import DataError
from hafs.types import Candidate, Ranking, Score, same_text


@dataclass(frozen=True)
class _Entry:
    id: str
    text: str
    key: tuple[float, ...]
    tolerance: float


def rank(answers: Sequence[tuple[Candidate, Score | None]]) -> Ranking:
    """Rank the candidates of one prompt by the keys of their scores; an empty key stands for the value.

    Candidates without a value are left out, and equal texts (up to trailing white space) are one candidate,
    with the lowest of their keys; `details` counts both as "unscored" and "equal". The result does not depend
    on the order of `answers`.

    Raises ValueError when `answers` is empty or of several prompts, DataError for scores of several scorers.
    """
    prompts = {candidate.prompt_id for candidate, _ in answers}
    if len(prompts) != 1:
        raise ValueError(f"a ranking is of one prompt, not of {len(prompts)}")
    scored = [(c, s) for c, s in answers if s is not None and is_scored(s)]
    entries = [_Entry(s.candidate_id, same_text(c.text), s.key or (s.value or 0.0,), s.tolerance) for c, s in scored]
    unique: dict[str, _Entry] = {}
    for entry in sorted(entries, key=lambda e: (e.key, e.id)):
        unique.setdefault(entry.text, entry)
    details = {"unscored": len(answers) - len(scored), "equal": len(entries) - len(unique)}
    return Ranking(prompts.pop(), _tiers(list(unique.values())), _source([s for _, s in scored]), details)


def is_scored(score: Score) -> bool:
    """Whether a score can rank its candidate: it has a value, and nothing in its key is not a number."""
    return score.value is not None and not any(math.isnan(part) for part in (score.value, *score.key))


def _tiers(entries: list[_Entry]) -> tuple[tuple[str, ...], ...]:
    entries.sort(key=lambda e: e.id)
    entries.sort(key=lambda e: e.key, reverse=True)
    tiers: list[list[_Entry]] = []
    for entry in entries:
        if tiers and _ties(tiers[-1][0], entry):
            tiers[-1].append(entry)
        else:
            tiers.append([entry])
    return tuple(tuple(e.id for e in tier) for tier in tiers)


def _ties(best: _Entry, other: _Entry) -> bool:
    if best.key == other.key:
        return True
    same_before = len(best.key) == len(other.key) and best.key[:-1] == other.key[:-1]
    return same_before and best.key[-1] - other.key[-1] <= best.tolerance


def _source(scores: Sequence[Score]) -> str:
    first = scores[0] if scores else None
    if first and all(
        s.arguments is first.arguments and s.version == first.version and s.scorer == first.scorer for s in scores
    ):
        return f"{first.scorer}@{first.version}"
    scorers = {(s.scorer, s.version, repr(sorted(s.arguments.items()))): f"{s.scorer}@{s.version}" for s in scores}
    if len(scorers) > 1:
        names = ", ".join(sorted(scorers.values()))
        raise DataError(f"candidates of one prompt have scores of several scorers ({names})", "choose one of them")
    return next(iter(scorers.values()), "")
