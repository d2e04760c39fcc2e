"""What is sampled in training: answers with their log-probabilities, their ratings, and the rows they are learnt in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hafs.training.packing import PackedRow, TokenGroup
from hafs.types import Prompt

__all__ = ["SAME_MODEL", "Batch", "Rater", "Rating", "Rollout", "Sampled", "Sampler"]


@dataclass(frozen=True)
class Sampled:
    """One sampled answer: its token ids (the end token included), its text, "stop" or "length".

    `logps` are its first tokens' log-probabilities, in nats, under what sampled it; none where that is the policy as
    it is computed here.
    """

    ids: tuple[int, ...]
    text: str
    finish: str
    logps: tuple[float, ...] = ()


Sampler = Callable[[Any, Sequence[Prompt], int, int], list[list[Sampled]]]
"""(network, prompts, answers a prompt, seed) -> each prompt's answers, sampled at temperature 1."""

Rating = float | str
"""A score, higher is better; or why an answer could not be rated."""

Rater = Callable[[Sequence[Prompt], Sequence[Sequence[Sampled]]], Sequence[Sequence[Rating]]]
"""(prompts, their answers) -> a rating for every answer."""


SAME_MODEL = 0.1
"""Nats a token, on average, beyond which two log-probabilities are not of one model, whatever its precision."""


@dataclass(frozen=True)
class Rollout:
    """A prompt with its rated answers: their scores, whether they ended, their tokens' `Sampled.logps`."""

    group: TokenGroup
    scores: Sequence[float]
    ended: Sequence[bool]
    logps: Sequence[tuple[float, ...]]


@dataclass
class Batch:
    """A minibatch's row and what is known of its answers ([answers]) and tokens ([labels]) when the step began.

    `sampled` is NaN where the policy itself, as computed here, sampled the token.
    """

    row: PackedRow
    scores: torch.Tensor
    sampled: torch.Tensor
    old: torch.Tensor
    reference: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    returns: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def weights(self, cap: float) -> torch.Tensor:
        """[labels] what a token counts for that another computation of the policy sampled: min(cap, π_old/π_sampled).

        Truncated importance sampling (Ionides 2008); Espeholt et al. 2018, "IMPALA", section 4.1, for policies.
        """
        return (self.old - self.sampled).exp().clamp(max=cap).nan_to_num(1.0)
