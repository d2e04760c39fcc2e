"""From scores to a ranking: tiers of candidates, best first.

A tier holds what cannot be told apart. Keys are compared part by part; two that agree before their last part
tie when the last parts differ by at most the tolerance. Such a tie is not transitive (40 ~ 70 ~ 100 at
tolerance 40), so a tier is anchored at its best member: everything within the tolerance of that one belongs
to it, and the next one opens a tier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import attrgetter

from hafs.errors import DataError
from hafs.types import Candidate, Ranking, RatedAnswer, Score, same_text

_id, _key = attrgetter("id"), attrgetter("key")


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
    tiers, scored = tiers_of(answer(c, s) for c, s in answers)
    details = {"unscored": len(answers) - scored, "equal": scored - sum(map(len, tiers))}
    return Ranking(prompts.pop(), tuple(tuple(map(_id, tier)) for tier in tiers), source_of(answers), details)


def answer(candidate: Candidate, score: Score | None) -> RatedAnswer:
    """A candidate and its score as `tiers_of` takes them."""
    if score is None or score.value is None:
        return RatedAnswer(candidate.id, candidate.text, finish=candidate.finish, thought=candidate.thought)
    key = score.key or (score.value,)
    return RatedAnswer(
        score.candidate_id,
        candidate.text,
        score.value,
        key,
        score.tolerance,
        score.passed,
        False,
        candidate.finish,
        candidate.thought,
    )


def is_scored(answer: RatedAnswer) -> bool:
    """Whether an answer can be ranked: it has a value, and nothing in its key is not a number."""
    return answer.value is not None and not any(map(math.isnan, (answer.value, *answer.key)))


def tiers_of(answers: Iterable[RatedAnswer]) -> tuple[list[list[RatedAnswer]], int]:
    """The tiers that `rank` makes of a prompt's answers, and how many of them can be ranked, equal ones included."""
    scored = sorted(filter(is_scored, answers), key=_id)
    scored.sort(key=_key)
    unique: dict[str, RatedAnswer] = {}
    for one in scored:
        unique.setdefault(same_text(one.text), one)
    tiers: list[list[RatedAnswer]] = []
    for one in sorted(unique.values(), key=_key, reverse=True):  # among equal keys the order of the ids stays
        if tiers and _ties(tiers[-1][0], one):
            tiers[-1].append(one)
        else:
            tiers.append([one])
    return tiers, len(scored)


def _ties(best: RatedAnswer, other: RatedAnswer) -> bool:
    if best.key == other.key:
        return True
    same_before = len(best.key) == len(other.key) and best.key[:-1] == other.key[:-1]
    return same_before and best.key[-1] - other.key[-1] <= best.tolerance


def source_of(answers: Iterable[tuple[Candidate, Score | None]]) -> str:
    """The scorer whose scores these are ("asm@1"), "" without scores; raises DataError when it is several."""
    scores = (s for c, s in answers if s is not None and is_scored(answer(c, s)))
    scorers = {(s.scorer, s.version, repr(sorted(s.arguments.items()))): f"{s.scorer}@{s.version}" for s in scores}
    if len(scorers) > 1:
        names = ", ".join(sorted(scorers.values()))
        raise DataError(f"candidates of one prompt have scores of several scorers ({names})", "choose one of them")
    return next(iter(scorers.values()), "")
