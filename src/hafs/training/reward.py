"""What a reward model is worth on prompts it was not trained on: accuracy, calibration, and what else it follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from hafs.statistics import bootstrap_mean
from hafs.training.heads import CandidateRewards
from hafs.training.packing import StepRows, TokenGroup

BINS = 10


def reward_report(network: CandidateRewards, groups: Sequence[TokenGroup], row_tokens: int) -> dict[str, Any]:
    """Figures of a reward model on `groups`, by prompt; empty without groups that have edges.

    `accuracy` is the mean over prompts of the share of edges it orders as they are, with a bootstrap interval over
    prompts; ties, p = 1/2, have no order and do not count; `brier` and `ece` compare σ(winner's reward - loser's) with
    the edges' `p` (0 and 0 are perfect; ECE in ten equal bins, both orders of every edge); `length_correlation` is the
    mean over prompts of Spearman's correlation of reward and length; `mean` and `deviation` are of all rewards.
    """
    groups = [g for g in groups if g.edges]
    if not groups:
        return {}
    rewards = rewards_of(network, groups, row_tokens)
    accuracy, said, meant, lengths = [], [], [], []
    for group, values in zip(groups, rewards, strict=True):
        gaps = np.array([values[e.winner] - values[e.loser] for e in group.edges])
        p = np.array([e.p for e in group.edges])
        if (decided := p != 0.5).any():
            accuracy.append(float(np.mean(((gaps > 0) == (p > 0.5))[decided])))
        said += list(1 / (1 + np.exp(-gaps)))
        meant += list(p)
        sizes = [len(c) for c in group.candidates]
        if len(set(sizes)) > 1 and len(set(values)) > 1:
            lengths.append(float(spearmanr(values, sizes).statistic))
    share = bootstrap_mean(accuracy)
    every = np.concatenate([np.array(v) for v in rewards])
    q, p = np.array(said), np.array(meant)
    return {
        "prompts": len(groups),
        "edges": len(said),
        "accuracy": share.value,
        "accuracy_low": share.low,
        "accuracy_high": share.high,
        "brier": float(np.mean((q - p) ** 2)),
        "ece": _ece(q, p),
        "length_correlation": float(np.mean(lengths)) if lengths else None,
        "mean": float(every.mean()),
        "deviation": float(every.std()),
    }


@torch.no_grad()
def rewards_of(network: CandidateRewards, groups: Sequence[TokenGroup], row_tokens: int) -> list[list[float]]:
    """The rewards of each group's candidates."""
    network.eval()
    found: dict[int, list[float]] = {}
    place = {id(g): i for i, g in enumerate(groups)}
    for piece in StepRows(groups, row_tokens, shared=network.shared).of(0):
        values = network(network.row(piece.groups)).tolist()
        for group in piece.groups:
            n = len(group.candidates)
            found[place[id(group)]], values = values[:n], values[n:]
    return [found[i] for i in range(len(groups))]


def _ece(said: np.ndarray, meant: np.ndarray) -> float:
    """Expected calibration error; every edge counts in both its orders, which makes the measure symmetric."""
    said, meant = np.concatenate([said, 1 - said]), np.concatenate([meant, 1 - meant])
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    gaps = [abs(said[bins == b].mean() - meant[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    return float(np.sum(gaps))
