"""Training on one-sided labels: each answer by itself is good or bad, and none is compared with another (KTO).

A candidate's label is its own where it has one, else what its edges say of it (it wins more weight than it loses, or
less), so pairs and labels train together. Every labelled answer weighs as its label does, however many its prompt has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch

from hafs import registry
from hafs.config import DPOConfig
from hafs.errors import UsageError
from hafs.training.logprobs import CandidateLogps
from hafs.training.losses import Labelled, Loss, Strength
from hafs.training.objectives import Sums
from hafs.training.packing import PackedRow, TokenGroup, fit


class LabelObjective:
    """A loss of the kind "one-sided" of the registry, plus `nll_weight` times the good answers' mean NLL per token.

    `kl` is the reference point of the step, which the loop sets: how far the policy has moved from the reference (nats
    an answer), estimated on answers to other prompts, and at least 0 (Ethayarajh et al. 2024, section 4.1).
    """

    name = "dpo"
    network = CandidateLogps
    reference_by_token = False

    def __init__(self, config: DPOConfig) -> None:
        self._loss: Loss = registry.load("losses", config.loss)
        if config.label_smoothing or config.ld_alpha < 1:
            raise UsageError(
                f"label_smoothing and ld_alpha are of losses that compare two answers, which {config.loss} does not",
                "leave label_smoothing at 0 and ld_alpha at 1",
            )
        self.config, self.kl = config, 0.0
        self.uses_reference = self._loss.uses_reference and not config.reference_free
        self._strength = Strength(config.beta, desirable=config.desirable_weight, undesirable=config.undesirable_weight)

    def takes(self, group: TokenGroup) -> bool:
        """Whether the group says anything to this objective."""
        return any(label_weights(group))

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        return sum(abs(w) for g in groups for w in label_weights(g)) or 1.0

    def loss(self, logps: torch.Tensor, reference: torch.Tensor, row: PackedRow) -> tuple[torch.Tensor, Sums]:
        signed = torch.tensor([w for g in row.groups for w in label_weights(g)], device=logps.device, dtype=logps.dtype)
        weight, good = signed.abs(), signed > 0
        sums = row.sums(logps)
        ratio = sums - reference
        each = self._loss(Labelled(ratio, good, torch.tensor(self.kl, device=logps.device)), self._strength)
        loss = (weight * each).sum()
        nll = -(weight * good * sums / row.lengths.to(logps.dtype)).sum()
        total = loss + self.config.nll_weight * nll if self.config.nll_weight else loss
        return total, self._metrics(ratio.detach(), sums.detach(), weight, good, float(loss.detach()))

    def _metrics(
        self, ratio: torch.Tensor, sums: torch.Tensor, weight: torch.Tensor, good: torch.Tensor, loss: float
    ) -> Sums:
        """TRL's names; `rewards/accuracies` is the share of answers on the right side of the reference point."""
        n, reward = float(weight.sum()), self.config.beta * ratio
        right = ((ratio > self.kl) == good) & (ratio != self.kl)
        found: Sums = {
            "loss": (loss, n),
            "kl": (self.kl * n, n),
            "rewards/accuracies": (float((weight * right).sum()), n),
        }
        for side, mask in (("chosen", weight * good), ("rejected", weight * ~good)):
            if mask.any():
                found[f"rewards/{side}"] = (float((mask * reward).sum()), float(mask.sum()))
                found[f"logps/{side}"] = (float((mask * sums).sum()), float(mask.sum()))
        return found


def label_weights(group: TokenGroup) -> list[float]:
    """For each candidate the weight of its label, below 0 for a bad answer; 0 where nothing is said of it."""
    balance = [0.0] * len(group.candidates)
    for e in group.edges:
        balance[e.winner] += e.weight * (2 * e.p - 1)
        balance[e.loser] -= e.weight * (2 * e.p - 1)
    sides = [(b > 0) - (b < 0) for b in balance]
    own = group.labels or (None,) * len(sides)
    return [
        float(side) if label is None else label.weight * (1.0 if label.good else -1.0)
        for side, label in zip(sides, own, strict=True)
    ]


def mismatched(groups: Sequence[TokenGroup], max_length: int, among: Sequence[TokenGroup] = ()) -> list[TokenGroup]:
    """For each group its prompt with the labelled answers of the group before it (or `among` others) that has another
    prompt.

    On these the reference point is estimated: a policy that has moved answers every prompt otherwise. Raises UsageError
    when all groups have one prompt.
    """
    found = []
    for i, group in enumerate(groups):
        others = chain((groups[i - k] for k in range(1, len(groups))), among)
        other = next((g for g in others if g.prompt != group.prompt), None)
        if other is None:
            raise UsageError(
                "KTO compares with answers to other prompts, and here is one prompt only",
                "give more prompts, or train on pairs: --loss sigmoid",
            )
        answers = tuple(c for c, w in zip(other.candidates, label_weights(other), strict=True) if w)
        found.append(fit(TokenGroup(group.prompt, answers), max_length) or TokenGroup(group.prompt, ()))
    return found


def label_notes(groups: Sequence[TokenGroup], config: DPOConfig) -> list[str]:
    """How many good and bad answers there are, and the weights that balance them where they are far from it."""
    weights = [w for g in groups for w in label_weights(g)]
    good, bad = sum(w for w in weights if w > 0), -sum(w for w in weights if w < 0)
    if not good or not bad:
        side = "good" if good else "bad"
        return [
            f"every label says {side}: without the other kind a model learns to make all answers more or less likely"
        ]
    ratio = config.desirable_weight * good / (config.undesirable_weight * bad)
    if 1 <= ratio <= 4 / 3:
        return []
    low, high = sorted((config.desirable_weight * good / bad, 0.75 * config.desirable_weight * good / bad))
    return [
        f"{good:g} good and {bad:g} bad answers, weighed {ratio:.2f} to 1: from 1 to 1.33 is usual, which is"
        f" --undesirable-weight {low:.2g} to {high:.2g}"
    ]
