"""Prompts split into train, validation and test without leaks: what goes together stays on one side.

By family where rows have one; else by cluster of near copies, as `hafs.evals.contamination` finds them. Prompts of one
template are no copies of each other, so they may be on all three sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hafs.errors import UsageError
from hafs.evals.contamination import THRESHOLD, Index
from hafs.types import Prompt, content_id

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PromptSplit:
    """The prompts of each split, what they were kept together by, and the clusters of near copies."""

    parts: Mapping[str, tuple[Prompt, ...]]
    by: str
    clusters: tuple[tuple[Prompt, ...], ...]


def split_prompts(
    prompts: Sequence[Prompt], shares: Mapping[str, float], *, seed: int = 0, near_copy: float = THRESHOLD, by: str = ""
) -> PromptSplit:
    """Share prompts among train, validation and test, by `shares` of the last two.

    `by` is "family" or "copies"; without it families are kept whole where there are at least three of them. The same
    prompts and seed give the same split. Raises UsageError when a split would be empty.
    """
    families = {p.family for p in prompts}
    by = by or ("family" if "" not in families and len(families) >= 3 else "copies")
    clusters = _copies(prompts, near_copy)
    units = _families(clusters) if by == "family" else clusters
    order = sorted(units, key=lambda unit: content_id("split", seed, min(p.id for p in unit)))
    wanted = {split: round(shares[split] * len(prompts)) for split in ("test", "validation")}
    parts: dict[str, list[Prompt]] = {split: [] for split in SPLITS}
    for unit in order:
        short = {s: n - len(parts[s]) for s, n in wanted.items() if len(parts[s]) < n}
        fits = [s for s, n in short.items() if len(unit) <= n or not parts[s]]
        parts[max(fits, key=lambda s: short[s]) if fits else "train"] += unit
    if empty := [s for s in SPLITS if not parts[s] and (s == "train" or shares[s] > 0)]:
        raise UsageError(
            f"{len(prompts)} prompts in {len(units)} parts that belong together ({by}) leave {empty[0]} empty",
            "more prompts, --by copies, or another --seed",
        )
    found = {s: tuple(replace(p, split=s) for p in sorted(part, key=prompts.index)) for s, part in parts.items()}
    return PromptSplit(found, by, tuple(tuple(c) for c in clusters if len(c) > 1))


def _copies(prompts: Sequence[Prompt], near_copy: float) -> list[list[Prompt]]:
    """The prompts in clusters: near copies of one another, in one or several steps."""
    root = {p.id: p.id for p in prompts}

    def find(id: str) -> str:
        while root[id] != id:
            root[id] = root[root[id]]
            id = root[id]
        return id

    ids = {p.text: p.id for p in prompts}
    index = Index({p.id: p.text for p in prompts}, near_copy)
    for hit in index.all_copies(("", p.text) for p in prompts):
        root[find(ids[hit.trained])] = find(hit.prompt_id)
    clusters: dict[str, list[Prompt]] = defaultdict(list)
    for p in prompts:
        clusters[find(p.id)].append(p)
    return list(clusters.values())


def _families(clusters: Sequence[Sequence[Prompt]]) -> list[list[Prompt]]:
    """The clusters joined to families; copies in two families join these."""
    home: dict[str, list[Prompt]] = {}
    for cluster in clusters:
        together = [home[p.family] for p in cluster if p.family in home]
        joined = together[0] if together else []
        for other in together[1:]:
            if other is not joined:
                joined += [p for p in other if p not in joined]
        joined += [p for p in cluster if p not in joined]
        for p in joined:
            home[p.family] = joined
    return list({id(part): part for part in home.values()}.values())
