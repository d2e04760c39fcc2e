"""Edges and groups of what people said, from their labels as `hafs.judge.labels` reads and joins them.

However groups are built, the same labels give the same edges: the edge of two texts goes to the side for which more
weight speaks, its `p` is that side's share, its weight that side's weight; equal sides make no edge. An edited answer
is off-policy, since no model sampled it, and its edges are marked ("human:ann:edited").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hafs.errors import DataError
from hafs.judge.labels import Labels, Merged, Pair, labels_of
from hafs.preferences.build import group_from_edges, labelled
from hafs.preferences.ranking import same_text
from hafs.preferences.schemes import pair as paired
from hafs.types import Annotation, Candidate, CandidateLabel, Edge, GroupCandidate, PreferenceGroup, Prompt

MIDDLE = 2.5
"""What a rating from 1 to 4 is above when the answer is good."""


def people_said(labels: Labels, prompt_id: str, candidates: Iterable[Candidate]) -> dict[Pair, Merged]:
    """What people said of each two different texts; each is named by its first candidate. Ties are in it, too."""
    first: dict[str, str] = {}
    same = {c.id: first.setdefault(same_text(c.text), c.id) for c in candidates}
    return {pair: m for pair, m in labels.merged(prompt_id, same).items() if same.keys() >= set(pair)}


def people_edges(said: Mapping[Pair, Merged]) -> Iterator[tuple[str, str, Edge]]:
    """(winner, loser, edge) of every pair of which people prefer one."""
    for (a, b), merged in said.items():
        if math.isclose(merged.first, merged.second):
            continue
        winner, loser, weight = (a, b, merged.first) if merged.first > merged.second else (b, a, merged.second)
        share = weight / (merged.first + merged.second)
        yield winner, loser, Edge(0, 1, weight, share, "+".join(merged.sources))


def group_from_labels(
    prompt: Prompt,
    candidates: Iterable[Candidate],
    labels: Labels,
    scheme: str = "all",
    max_candidates: int = 8,
    one_sided: bool = False,
) -> PreferenceGroup | None:
    """The group of what people said of a prompt; None when nothing makes a pair.

    With `one_sided` ratings label each answer by itself, too, and a group may have no edge.

    `scheme` picks edges from the order that they make together: by what the candidates win, less what they lose.
    Raises DataError when an annotation ranks a candidate that is not among them.
    """
    known = list(candidates)
    named = {id for by in labels.of.get(prompt.id, {}).values() for pair in by for id in pair}
    if unknown := sorted(named - {c.id for c in known}):
        raise DataError(f"an annotation names an unknown candidate {unknown[0]}", "add that candidate")
    edges = list(people_edges(people_said(labels, prompt.id, known)))
    if scheme != "all":
        net: dict[str, float] = {}
        for winner, loser, edge in edges:
            net[winner] = net.get(winner, 0.0) + edge.p - 0.5
            net[loser] = net.get(loser, 0.0) + 0.5 - edge.p
        order = [[id] for id in sorted(net, key=lambda id: (-net[id], id))]
        wanted = set(paired(order, scheme))
        edges = [e for e in edges if (e[0], e[1]) in wanted]
    group = group_from_edges(prompt, known, edges, max_candidates)
    if not one_sided:
        return group
    members = [GroupCandidate(c.text, c.id, finish="length" if c.finish == "length" else "") for c in known]
    return labelled(prompt, group, members, _one_sided(labels.ratings.get(prompt.id, {})))


def _one_sided(ratings: Mapping[str, Mapping[str, float]]) -> dict[str, CandidateLabel]:
    """What ratings say of each answer alone: 3 and 4 are good, 1 and 2 are bad, and most raters decide."""
    said: dict[str, dict[str, int]] = {}
    for person, values in ratings.items():
        for id, value in values.items():
            said.setdefault(id, {})[f"human:{person}"] = 1 if value > MIDDLE else -1
    return {
        id: CandidateLabel(net > 0, float(abs(net)), "+".join(sorted(of)))
        for id, of in said.items()
        if (net := sum(of.values()))
    }


def group_from_people(
    prompt: Prompt, candidates: Iterable[Candidate], annotations: Iterable[Annotation], scheme: str = "all", **more: Any
) -> PreferenceGroup | None:
    """The group of some annotations of a prompt; see `group_from_labels` (`labels` is its `one_sided`)."""
    more = {"one_sided" if name == "labels" else name: value for name, value in more.items()}
    return group_from_labels(prompt, candidates, labels_of(annotations, blind=False), scheme, **more)
