"""Which prompts go to the person: where the judge is unsure, and a share picked at random to audit it.

Every prompt has a known probability of being picked, which is kept, so that figures from the picked ones can be made
figures of all (Horvitz and Thompson, JASA 47, 1952). The queue is a run of kind "annotation-queue" in the workspace:
its outputs are {"prompts": [{"id", "probability", "reason"}, ...], "probabilities": {prompt id: probability},
"labelled": [prompt id, ...]}: the picked ones in the order to ask, which is random, so stopping early leaves a random
part undone; all of them; and those that people had labelled before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    store: Store,
    source: str,
    protocol: str,
    queued: Sequence[Queued],
    probabilities: Mapping[str, float],
    labelled: Collection[str],
    settings: Mapping[str, Any],
) -> str:
    """Keep what `pick` gave in the workspace, with the prompts that people had labelled by then; returns the run's id.

    `source` is the judge as edges name it, `protocol` that of its verdicts.
    """
    rows = [asdict(q) for q in queued]
    kept = {"prompts": rows, "probabilities": dict(probabilities), "labelled": sorted(probabilities.keys() & labelled)}
    config = {"judge": source, "protocol": protocol, **settings}
    return store.keep_run(KIND, config, {"prompts": content_id(rows)}, metrics={"prompts": len(rows)}, outputs=kept)


def newest_queue(store: Store, source: str, protocol: str, settings: Mapping[str, Any] | None = None) -> Run | None:
    """The queue made last for a judge's verdicts by a protocol; `settings` keeps those that were made with them."""
    return store.newest(KIND, judge=source, protocol=protocol, **(settings or {}))


def queued(run: Run) -> list[Queued]:
    """The prompts of a queue, in the order to ask."""
    return [Queued(**row) for row in run.outputs["prompts"]]


@dataclass(frozen=True)
class Sample:
    """The labelled prompts of a queue, `drawn`, and of every prompt that it was picked from the probability to be one
    of them."""

    drawn: frozenset[str]
    probabilities: Mapping[str, float]


def sample(store: Store, source: str, protocol: str, labelled: Collection[str]) -> Sample | None:
    """What a judge's newest queue has sampled by now; None without one, or where no label was given since it was made.

    `labelled` are the prompts with labels. The probability of a prompt is that of being picked, times the share of the
    queue that was done since; a prompt labelled before needs only to be picked. Labels of prompts that were not picked
    are no part of it: nobody knows how probable they were.
    """
    run = newest_queue(store, source, protocol)
    if run is None:
        return None
    picked, before = {q.id for q in queued(run)}, set(run.outputs["labelled"])
    fresh = picked - before
    done = len(fresh.intersection(labelled)) / len(fresh) if fresh else 1.0
    if not done:
        return None
    whole = run.outputs["probabilities"].items()
    return Sample(frozenset(picked.intersection(labelled)), {id: p if id in before else p * done for id, p in whole})
