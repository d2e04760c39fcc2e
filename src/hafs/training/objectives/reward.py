"""Reward modelling on preference groups: every candidate gets one scalar, every edge compares two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from hafs.config import RewardConfig
from hafs.errors import UsageError
from hafs.training.heads import CandidateRewards
from hafs.training.losses import plackett_luce
from hafs.training.objectives import Sums
from hafs.training.objectives.preference import edge_tensors, group_weight, listwise
from hafs.training.packing import PackedRow, TokenGroup


class RewardObjective:
    """Bradley-Terry on edges or Plackett-Luce on the tiers they make, plus `centering`.

    Bradley-Terry: -p log σ(d) - (1 - p) log σ(-d) with d the winner's reward less the loser's less the margin
    (Ouyang et al. 2022, "InstructGPT", eq. 1). The margin is that of Touvron et al. 2023, "Llama 2", eq. 2: `margin`
    times by how much the edge's winner is better, where that is known, times 2p - 1, so that an edge at p = 1/2 says
    that both are worth the same. Rewards are only known up to a
    constant; `centering` times (winner + loser)² puts it at zero (Eisenstein et al. 2023, "Helping or Herding?",
    section 3). A group pulls as hard as its edges weigh on average, whatever their number.
    """

    name = "reward"
    network = CandidateRewards
    uses_reference = False
    reference_by_token = False

    def __init__(self, config: RewardConfig | None = None, **settings: Any) -> None:
        self.config = config or RewardConfig(**settings)
        if self.config.margin and self.config.loss == "plackett_luce":
            raise UsageError("Plackett-Luce has no margin", "leave margin at 0, or set loss to bradley-terry")

    def takes(self, group: TokenGroup) -> bool:
        """Whether the group says anything to this objective."""
        return bool(group.edges)

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        return sum(map(group_weight, groups))

    def loss(self, rewards: torch.Tensor, reference: torch.Tensor, row: PackedRow) -> tuple[torch.Tensor, Sums]:
        """`rewards` are [candidates]; there is no reference."""
        winner, loser, weight, p = edge_tensors(row, rewards.dtype)
        won, lost = rewards[winner], rewards[loser]
        gap = won - lost
        better = gap.new_tensor([1.0 if e.margin is None else e.margin for g in row.groups for e in g.edges])
        if self.config.loss == "plackett_luce":
            fit = listwise(plackett_luce, rewards, row)
        else:
            d = gap - self.config.margin * better * (2 * p - 1)
            fit = -(weight * (p * F.logsigmoid(d) + (1 - p) * F.logsigmoid(-d))).sum()
        centre = (weight * (won + lost) ** 2).sum()
        n, decided = float(weight.sum()), weight * (p != 0.5)
        sums: Sums = {
            "loss": (float(fit.detach()), n),
            "rewards/accuracies": (float((decided * ((gap > 0) == (p > 0.5))).sum()), float(decided.sum())),
            "rewards/margins": (float((weight * gap.detach()).sum()), n),
            "rewards/mean": (float(rewards.detach().sum()), len(rewards)),
        }
        return fit + self.config.centering * centre, sums
