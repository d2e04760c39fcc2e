"""Preference optimisation on groups: each candidate is scored once, each edge is a comparison of two of them.

Edge weights are normalised within their group and groups weigh alike in the step, so a prompt with six edges pulls no
harder than a prompt with one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hafs.errors import UsageError
from hafs.training.losses import LOSSES, Edges
from hafs.training.objectives import Sums
from hafs.training.packing import Row, TokenGroup


class PreferenceObjective:
    """A loss of the registry at `beta`, plus `nll_weight` times the winners' mean NLL per token."""

    name = "dpo"

    def __init__(
        self, loss: str = "sigmoid", beta: float = 0.1, label_smoothing: float = 0.0, nll_weight: float = 0.0,
        reference_free: bool = False,
    ) -> None:  # fmt: skip
        if loss not in LOSSES:
            raise UsageError(f"there is no loss named {loss!r}", f"use one of: {', '.join(LOSSES)}")
        self._loss, self.beta, self.smoothing, self.nll_weight = (
            LOSSES[loss],
            beta,
            label_smoothing,
            nll_weight,
        )
        self.uses_reference = not reference_free

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        return float(len(groups))

    def loss(self, logps: torch.Tensor, reference: torch.Tensor, row: Row) -> tuple[torch.Tensor, Sums]:
        winner, loser, weight, p = _edge_tensors(row)
        lengths = row.lengths.to(logps.dtype)
        edges = Edges(
            logps[winner],
            logps[loser],
            reference[winner],
            reference[loser],
            lengths[winner],
            lengths[loser],
            p,
        )
        per_edge = self._loss(edges, self.beta, self.smoothing)
        loss = (weight * per_edge).sum()
        nll = -(weight * logps[winner] / lengths[winner]).sum()
        total = loss + self.nll_weight * nll if self.nll_weight else loss
        return total, self._metrics(edges, weight, loss, nll)

    @torch.no_grad()
    def _metrics(self, e: Edges, weight: torch.Tensor, loss: torch.Tensor, nll: torch.Tensor) -> Sums:
        """TRL's names, so that curves from elsewhere can be laid beside these."""
        n = float(weight.sum())
        chosen, rejected = self.beta * (e.winner - e.winner_ref), self.beta * (e.loser - e.loser_ref)
        per_edge = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen": e.winner,
            "logps/rejected": e.loser,
            "length_gap": e.winner_length - e.loser_length,
        }
        out = {name: (float((weight * value).sum()), n) for name, value in per_edge.items()}
        return {"loss": (float(loss), n), "nll": (float(nll), n), **out}


def _edge_tensors(row: Row) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(winner index, loser index, weight, p) of a row's edges; the weights of each group sum to 1."""
    winner: list[int] = []
    loser: list[int] = []
    weight: list[float] = []
    p: list[float] = []
    first = 0
    for group in row.groups:
        total = sum(e.weight for e in group.edges)
        for e in group.edges:
            winner.append(first + e.winner)
            loser.append(first + e.loser)
            weight.append(e.weight / total)
            p.append(e.p)
        first += len(group.candidates)
    device = row.lengths.device
    return (
        torch.tensor(winner, device=device), torch.tensor(loser, device=device),
        torch.tensor(weight, device=device), torch.tensor(p, device=device),
    )  # fmt: skip
