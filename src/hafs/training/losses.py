"""Preference losses: pure functions on log-probabilities, in one registry.

Every loss takes `Edges`, tensors of one number per edge, and returns one number per edge. Log-probabilities are sums
over a candidate's tokens in nats. The command line's choices and the documentation's table derive from `LOSSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Edges:
    """For each edge: log-probabilities of winner and loser under policy and reference, their lengths, and `p`.

    `p` is the probability that the winner really is the better one (1 for a plain pair). All are [edges].
    """

    winner: torch.Tensor
    loser: torch.Tensor
    winner_ref: torch.Tensor
    loser_ref: torch.Tensor
    winner_length: torch.Tensor
    loser_length: torch.Tensor
    p: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        """Difference of the log-ratios of policy to reference, winner minus loser (nats)."""
        return (self.winner - self.winner_ref) - (self.loser - self.loser_ref)

    @property
    def margin_per_token(self) -> torch.Tensor:
        """The same with each log-ratio divided by its candidate's length."""
        won = (self.winner - self.winner_ref) / self.winner_length
        return won - (self.loser - self.loser_ref) / self.loser_length


def sigmoid(e: Edges, beta: float, smoothing: float) -> torch.Tensor:
    """-log σ(β margin), with `p` and label smoothing as the weight of the edge being right.

    Rafailov et al. 2023, "Direct Preference Optimization", eq. 7; soft labels as in cDPO (Mitchell 2023).
    """
    return _soft(beta * e.margin, e.p * (1 - smoothing) + (1 - e.p) * smoothing)


def sigmoid_norm(e: Edges, beta: float, smoothing: float) -> torch.Tensor:
    """The sigmoid loss on log-ratios per token (length-normalised DPO; Lambert et al. 2024, "Tülu 3", section 5)."""
    return _soft(beta * e.margin_per_token, e.p * (1 - smoothing) + (1 - e.p) * smoothing)


def robust(e: Edges, beta: float, smoothing: float) -> torch.Tensor:
    """Unbiased under label flips at rate `smoothing` (Chowdhury et al. 2024, "Provably Robust DPO", eq. 12)."""
    right, wrong = _soft(beta * e.margin, e.p), _soft(-beta * e.margin, e.p)
    return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)


def ipo(e: Edges, beta: float, smoothing: float) -> torch.Tensor:
    """(margin - 1/(2β))², mean log-ratios per token (Azar et al. 2023, "A General Theoretical Paradigm", eq. 17).

    Targets the margin (2p - 1)/(2β), so an edge known to be a coin toss is pulled to zero.
    """
    sure = (2 * e.p - 1) * (1 - 2 * smoothing)
    return (e.margin_per_token - sure / (2 * beta)) ** 2


def hinge(e: Edges, beta: float, smoothing: float) -> torch.Tensor:
    """max(0, 1 - β margin) (Zhao et al. 2023, "SLiC-HF", on log-ratios); `p` mixes both directions."""
    p = e.p * (1 - smoothing) + (1 - e.p) * smoothing
    return p * torch.relu(1 - beta * e.margin) + (1 - p) * torch.relu(1 + beta * e.margin)


def _soft(logit: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return -(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit))


LOSSES: dict[str, Callable[[Edges, float, float], torch.Tensor]] = {
    f.__name__: f for f in (sigmoid, sigmoid_norm, robust, ipo, hinge)
}
