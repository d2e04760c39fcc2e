"""How people answered: counts and times, how far they agree with each other, with themselves, and with gold items.

Everything is counted on pairs of candidates: a ranking says of every two that it ranks which is better, or that they
tie. What a ranking leaves out says nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import median
from typing import Any

from hafs.annotate.ranking import pair_orders
from hafs.types import Annotation, Ranking

Pair = tuple[str, str, str]
"""A prompt and two of its candidates in sorted order."""


def statistics_of(annotations: Sequence[Annotation], gold: Mapping[str, Ranking] | None = None) -> dict[str, Any]:
    """The figures of annotations of one mode, oldest first.

    `annotators` has for each name the number of answers by kind, `median_seconds`, `last` (seconds since 1970),
    `self_consistency` and `gold`; `agreement` has Krippendorff's alpha and the raw share over all annotators. Rates
    come with a 95 % interval and `n` prompts, None where there is nothing to count.
    """
    by_name: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        by_name[annotation.annotator].append(annotation)
    people = {name: _person(mine, gold or {}) for name, mine in sorted(by_name.items())}
    answered = {a.prompt_id for a in annotations}
    return {
        "answers": len(annotations),
        "answered_prompts": len(answered),
        "annotators": people,
        "agreement": _agreement(annotations),
    }


def _person(mine: Sequence[Annotation], gold: Mapping[str, Ranking]) -> dict[str, Any]:
    seconds = [a.seconds for a in mine if a.seconds is not None]
    kinds = Counter(a.answer for a in mine)
    return {
        "answers": len(mine),
        **{kind: kinds[kind] for kind in ("ranked", "all_bad", "cannot_judge", "skipped", "flagged")},
        "repeats": sum(a.serial > 0 for a in mine),
        "median_seconds": median(seconds) if seconds else None,
        "last": max(a.submitted for a in mine),
        "self_consistency": _rate(_consistent(mine)),
        "gold": _rate(_right(mine, gold)),
    }


def _rate(hits: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    """The mean over prompts of the share of hits among a prompt's pairs, with an interval that goes by prompt.

    It is Wilson's where every prompt is all hits or none, else the bootstrap's.
    """
    from hafs.statistics import bootstrap_mean, wilson  # here, since SciPy takes seconds and a sitting needs none of it

    by_prompt: dict[str, list[bool]] = defaultdict(list)
    for prompt_id, hit in hits:
        by_prompt[prompt_id].append(hit)
    shares = [sum(of) / len(of) for of in by_prompt.values()]
    whole = all(share in (0.0, 1.0) for share in shares)
    e = wilson(round(sum(shares)), len(shares)) if whole else bootstrap_mean(shares)
    return {"rate": e.value, "low": e.low, "high": e.high, "n": e.n, "pairs": len(hits)}


def judgements(annotation: Annotation) -> Mapping[Pair, float]:
    """What an annotation says: the order of each pair that it ranks (1, -1, 0), or the rating of the one candidate."""
    if annotation.answer != "ranked":
        return {}
    if annotation.mode == "rate":
        id = annotation.shown[0]
        return {} if annotation.value is None else {(annotation.prompt_id, id, id): annotation.value}
    return {(annotation.prompt_id, *pair): order for pair, order in pair_orders(annotation.tiers).items()}


def _agreement(annotations: Iterable[Annotation]) -> dict[str, Any]:
    """Krippendorff's alpha and the raw share of equal judgements, over what several people judged (first looks)."""
    from hafs.statistics import krippendorff_alpha

    said: dict[Pair, dict[str, float]] = defaultdict(dict)
    rating = False
    for annotation in annotations:
        rating = rating or annotation.mode == "rate"
        if annotation.serial == 0:
            for pair, order in judgements(annotation).items():
                said[pair][annotation.annotator] = order
    shared = {pair: unit for pair, unit in said.items() if len(unit) > 1}
    raw = _rate([(pair[0], a == b) for pair, unit in shared.items() for a, b in combinations(unit.values(), 2)])
    return {
        "alpha": krippendorff_alpha(list(shared.values()), "interval" if rating else "nominal"),
        "raw": raw["rate"],
        "raw_low": raw["low"],
        "raw_high": raw["high"],
        "pairs": len(shared),
        "prompts": raw["n"],
    }


def _consistent(mine: Sequence[Annotation]) -> list[tuple[str, bool]]:
    """For each judgement of a later look whether the first look said the same."""
    first: dict[Pair, float] = {}
    for annotation in (a for a in mine if a.serial == 0):
        first |= judgements(annotation)
    later = [said for a in mine if a.serial > 0 for said in judgements(a).items()]
    return [(pair[0], first[pair] == order) for pair, order in later if pair in first]


def _right(mine: Sequence[Annotation], gold: Mapping[str, Ranking]) -> list[tuple[str, bool]]:
    """For each strict pair of a gold ranking that the person ranked whether they said the same."""
    found = []
    for annotation in mine:
        ranking = gold.get(annotation.prompt_id)
        if ranking is None or annotation.serial > 0 or annotation.mode == "rate":
            continue
        theirs = judgements(annotation)
        for pair, order in pair_orders(ranking.tiers).items():
            said = theirs.get((annotation.prompt_id, *pair))
            if order and said is not None:
                found.append((annotation.prompt_id, said == order))
    return found
