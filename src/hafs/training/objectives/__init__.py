"""Objectives: from a row's log-probabilities to a loss and its metrics.

A loss is a sum over the groups of a step divided by a normaliser of the whole step, so a result does not depend on how
the step was split into rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch

from hafs.training.logprobs import CandidateLogps
from hafs.training.packing import PackedRow, TokenGroup

Sums = dict[str, tuple[float, float]]
"""Metric name -> (weighted sum, total weight); rows add up, the mean is taken once a step."""


class Objective(Protocol):
    """What a training run minimises.

    `network` is what the model is read through: its log-probabilities [labels], or rewards [candidates].
    `uses_reference` asks the loop for the reference's log-probabilities: sums [candidates], or [labels] with
    `reference_by_token`.
    """

    name: str
    uses_reference: bool
    reference_by_token: bool

    @property
    def network(self) -> Callable[..., CandidateLogps]: ...

    def takes(self, group: TokenGroup) -> bool:
        """Whether the group says anything to this objective."""
        ...

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        """What the losses of a step's rows are divided by (a property of all its groups together)."""
        ...

    def loss(self, logps: torch.Tensor, reference: torch.Tensor, row: PackedRow) -> tuple[torch.Tensor, Sums]:
        """The summed loss of a row (before normalising) and its metrics; `logps` are [labels] in nats."""
        ...


def add(total: Sums, part: Sums) -> None:
    """Add the metric sums of a row to those of its step."""
    for name, (value, weight) in part.items():
        before = total.get(name, (0.0, 0.0))
        total[name] = (before[0] + value, before[1] + weight)


def read(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The numbers in tensors of one element each, in one wait for the device."""
    found = torch.stack([value.detach().double() for value in values.values()]).tolist()
    return dict(zip(values, found, strict=True))


def means(total: Sums) -> dict[str, float]:
    """Metric name -> weighted mean."""
    return {name: value / weight for name, (value, weight) in total.items() if weight}
