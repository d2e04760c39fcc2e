"""Preference groups from what people said: rankings, choices between two, ratings and edited answers.

Each person counts once for a prompt (their first look). What several say of the same two candidates is weighed: the
edge goes to the heavier side, its `p` is that side's share, equal sides make no edge. A slight preference weighs half
of a clear one. An edited answer beats the answer it was made from and all that this one beats; its edges are marked
("human:ann:edited"), and it is off-policy, since no model sampled it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from hafs.preferences.build import group_from_ranking
from hafs.types import Annotation, Candidate, Edge, GroupCandidate, PreferenceGroup, Prompt, Ranking, same_text

SLIGHT = 0.5
"""The weight of a slight preference, a clear one's being 1."""

Votes = dict[tuple[str, str], dict[str, float]]
"""(winner's text, loser's text) -> weight by source."""


def group_from_people(
    prompt: Prompt,
    candidates: Iterable[Candidate],
    annotations: Iterable[Annotation],
    scheme: str = "all",
    **options: Any,
) -> PreferenceGroup | None:
    """The group of what people said of a prompt; None when nothing makes a pair.

    `candidates` are those of the prompt, edited ones among them; `scheme` and `options` are those of `Pairing`.
    Raises DataError when an annotation ranks a candidate that is not among them.
    """
    texts, annotations = {c.id: c for c in candidates}, list(annotations)
    votes: Votes = defaultdict(lambda: defaultdict(float))
    for annotation in annotations:
        if annotation.undone is not None or annotation.serial > 0:
            continue
        weight = SLIGHT if annotation.confidence == "slight" else 1.0
        beats = _ranked(prompt, texts, annotation, scheme, options) if annotation.mode != "rate" else []
        for source, winner, loser in [*beats, *_edited(texts, annotation, beats)]:
            votes[winner, loser][source] += weight
    for name, ranking in _rated(annotations).items():
        group = group_from_ranking(prompt, texts.values(), ranking, scheme, **options)
        for winner, loser, _ in group.pairs() if group else ():
            votes[same_text(winner), same_text(loser)][name] += 1.0
    return _group(prompt, texts.values(), votes)


def _ranked(
    prompt: Prompt, texts: dict[str, Candidate], annotation: Annotation, scheme: str, options: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """(source, winner's text, loser's text) of a ranking's edges."""
    ranking = annotation.ranking()
    group = ranking and group_from_ranking(prompt, texts.values(), ranking, scheme, **options)
    return [(e.source, same_text(a), same_text(b)) for a, b, e in group.pairs()] if group else []


def _edited(
    texts: dict[str, Candidate], annotation: Annotation, beats: Sequence[tuple[str, str, str]]
) -> list[tuple[str, str, str]]:
    """The edges of the answer that the annotator wrote, if they did."""
    about = annotation.details.get("edited")
    if not about or about["candidate"] not in texts or about["of"] not in texts:
        return []
    better, original = same_text(texts[about["candidate"]].text), same_text(texts[about["of"]].text)
    losers = dict.fromkeys([original, *(loser for _, winner, loser in beats if winner == original)])
    source = f"human:{annotation.annotator}:edited"
    return [(source, better, loser) for loser in losers if loser != better]


def _rated(annotations: Iterable[Annotation]) -> dict[str, Ranking]:
    """Each rater's candidates of the prompt in tiers of equal rating, by the source "human:NAME"."""
    ratings: dict[str, dict[str, float]] = defaultdict(dict)
    prompt_id = ""
    for a in annotations:
        if a.mode == "rate" and a.answer == "ranked" and a.value is not None and not a.serial and a.undone is None:
            prompt_id = a.prompt_id
            ratings[f"human:{a.annotator}"].setdefault(a.shown[0], a.value)
    return {
        name: Ranking(
            prompt_id,
            tuple(tuple(id for id, v in of.items() if v == value) for value in sorted(set(of.values()), reverse=True)),
            name,
        )
        for name, of in ratings.items()
    }


def _group(prompt: Prompt, candidates: Iterable[Candidate], votes: Votes) -> PreferenceGroup | None:
    by_text: dict[str, Candidate] = {}
    for candidate in candidates:
        by_text.setdefault(same_text(candidate.text), candidate)
    decided = []
    for (winner, loser), sources in votes.items():
        ours, theirs = sum(sources.values()), sum(votes.get((loser, winner), {}).values())
        if ours > theirs:
            decided.append((winner, loser, ours, ours / (ours + theirs), "+".join(sorted(sources))))
    if not decided:
        return None
    used = [text for text in by_text if any(text in edge[:2] for edge in decided)]
    wins = {text: sum(edge[0] == text for edge in decided) for text in used}
    used.sort(key=lambda text: -wins[text])
    place = {text: i for i, text in enumerate(used)}
    members = tuple(
        GroupCandidate(c.text, c.id, c.source.startswith("edited:"), finish="length" if c.finish == "length" else "")
        for c in (by_text[text] for text in used)
    )
    edges = sorted(
        (Edge(place[winner], place[loser], weight, p, source) for winner, loser, weight, p, source in decided),
        key=lambda e: (e.winner, e.loser),
    )
    return PreferenceGroup(prompt.text, members, tuple(edges), prompt.system, prompt.id, prompt.family, prompt.split)
