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
from hafs.preferences.build import group_from_edges
from hafs.preferences.ranking import same_text
from hafs.preferences.schemes import pair as paired
from hafs.types import Annotation, Candidate, Edge, PreferenceGroup, Prompt


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
    prompt: Prompt, candidates: Iterable[Candidate], labels: Labels, scheme: str = "all", max_candidates: int = 8
) -> PreferenceGroup | None:
    """The group of what people said of a prompt; None when nothing makes a pair.

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
    return group_from_edges(prompt, known, edges, max_candidates)


def group_from_people(
    prompt: Prompt, candidates: Iterable[Candidate], annotations: Iterable[Annotation], scheme: str = "all", **more: Any
) -> PreferenceGroup | None:
    """The group of some annotations of a prompt; see `group_from_labels`."""
    return group_from_labels(prompt, candidates, labels_of(annotations, blind=False), scheme, **more)
