"""Supervised fine-tuning: the mean negative log-likelihood of the answers' tokens (nats a token)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hafs.training.logprobs import CandidateLogps
from hafs.training.objectives import Sums
from hafs.training.packing import PackedRow, TokenGroup


class SFTObjective:
    """Cross-entropy on the answer only; every token of the step weighs the same."""

    name = "sft"
    network = CandidateLogps
    uses_reference = False
    reference_by_token = False

    def takes(self, group: TokenGroup) -> bool:
        """Whether the group says anything to this objective."""
        return bool(group.candidates)

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        return float(sum(len(c) for g in groups for c in g.candidates))

    def loss(self, logps: torch.Tensor, reference: torch.Tensor, row: PackedRow) -> tuple[torch.Tensor, Sums]:
        nll = -logps.sum()
        return nll, {"loss": (float(nll.detach()), float(row.lengths.sum()))}
