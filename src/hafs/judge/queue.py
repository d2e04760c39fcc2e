"""Which prompts go to the person: where the judge is unsure, and a share picked at random to audit it.

Every prompt has a known probability of being picked, which is kept, so that figures from the picked ones can be made
figures of all (Horvitz and Thompson, JASA 47, 1952). The queue is a run of kind "annotation-queue" in the workspace:
its outputs are {"prompts": [{"id", "probability", "reason"}, ...], "probabilities": {prompt id: probability}}: the
picked ones in the order to ask, which is random, so stopping early leaves a random part undone; and all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hafs.errors import UsageError
from hafs.store import Run, Store
from hafs.types import Queued, content_id

KIND = "annotation-queue"
"""The kind of run that a queue is."""

HIGHEST = 0.9
"""No prompt is picked with a higher probability while others are left out: each must be able to stay unlabelled too."""


def pick(
    uncertainty: Mapping[str, float], size: int, audit: float = 0.2, seed: int = 0
) -> tuple[list[Queued], dict[str, float]]:
    """The prompts for the person, each because it is "uncertain" or for the "audit", and every prompt's probability of
    being among them.

    `size` prompts (all, when there are no more): the audit share evenly from all, the rest in proportion to their
    uncertainty (0 to 1).

    Systematic sampling in a random order: exactly `size` are picked, each with exactly its probability (W. Madow,
    Annals of Mathematical Statistics 20, 1949). Raises UsageError for a size below 1 or an audit share outside (0, 1].
    """
    check_queue(size, audit)
    rng = np.random.default_rng(int(content_id("queue", seed)[:12], 16))
    ids = np.array(sorted(uncertainty))[rng.permutation(len(uncertainty))].tolist()
    if len(ids) <= size:
        return [Queued(id, 1.0, "audit") for id in ids], dict.fromkeys(ids, 1.0)
    # A small floor keeps every prompt pickable, and the whole defined when the judge is sure of all.
    unsure = np.array([uncertainty[id] for id in ids]) + 1e-6
    probability = _capped(audit / len(ids) + (1 - audit) * unsure / unsure.sum(), size)
    ends = np.cumsum(probability)
    picked = np.floor(ends - (start := rng.random())) > np.floor(np.concatenate([[0.0], ends[:-1]]) - start)
    audited = np.minimum(1.0, audit * size / len(ids) / probability)
    chosen = [
        Queued(id, float(p), "audit" if rng.random() < share else "uncertain")
        for id, p, share, yes in zip(ids, probability, audited, picked, strict=True)
        if yes
    ]
    return [chosen[i] for i in rng.permutation(len(chosen))], dict(zip(ids, probability.tolist(), strict=True))


def check_queue(size: int, audit: float) -> None:
    """Raises UsageError for a size or an audit share that no queue can have."""
    if size < 1:
        raise UsageError(f"a queue of {size} prompts is none", "--queue-size of 1 or more")
    if not 0 < audit <= 1:
        raise UsageError(f"the audit share is above 0 and at most 1, not {audit}", "--audit-share 0.2")


def _capped(share: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """`size` times the shares, none above the highest probability; what is cut off goes to the others."""
    highest = max(HIGHEST, size / len(share))
    p = size * share / share.sum()
    while (p > highest + 1e-12).any():
        full = p >= highest
        p = np.where(full, highest, p * (size - highest * full.sum()) / p[~full].sum())
    return p


def save_queue(
    store: Store, source: str, queued: Sequence[Queued], probabilities: Mapping[str, float], settings: Mapping[str, Any]
) -> str:
    """Keep what `pick` gave in the workspace; returns the id of the run."""
    rows = [asdict(q) for q in queued]
    run = store.start_run(KIND, {"judge": source, **settings}, {"prompts": content_id(rows)})
    store.finish_run(run, "finished", {"prompts": len(rows)}, {"prompts": rows, "probabilities": dict(probabilities)})
    return run


def newest_queue(store: Store, source: str, settings: Mapping[str, Any] | None = None) -> Run | None:
    """The queue made last for a judge, as edges name it; `settings` keeps those that were made with them."""
    wanted = {"judge": source, **(settings or {})}
    made = [r for r in store.runs(kind=KIND) if r.status == "finished" and wanted.items() <= dict(r.config).items()]
    return max(made, key=lambda r: r.finished or 0.0) if made else None


def queued(run: Run) -> list[Queued]:
    """The prompts of a queue, in the order to ask."""
    return [Queued(**row) for row in run.outputs["prompts"]]


def inclusion(store: Store, source: str, labelled: Collection[str]) -> dict[str, float]:
    """The probability of each prompt of a judge's newest queue to be labelled by now; empty without a queue, or where
    nothing of it is labelled.

    It is that of being picked, times the share of the queue that is done. `labelled` are the prompts with labels.
    """
    run = newest_queue(store, source)
    if run is None:
        return {}
    picked = queued(run)
    done = sum(q.id in labelled for q in picked) / max(1, len(picked))
    return {id: p * done for id, p in run.outputs["probabilities"].items()} if done else {}
