"""Preference optimisation on groups: each candidate is scored once, each edge is a comparison of two of them.

A group weighs as much as its edges on average, and the step is divided by what its groups weigh: with equal weights a
prompt with six edges pulls no harder than one with a single edge, and edges of weight 5 pull five times as hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hafs import registry
from hafs.config import DPOConfig
from hafs.errors import UsageError
from hafs.training.logprobs import CandidateLogps
from hafs.training.losses import Edges, Loss, Strength, tiers_of
from hafs.training.objectives import Sums, read
from hafs.training.packing import PackedRow, TokenGroup


class PreferenceObjective:
    """A loss of the registry, plus `nll_weight` times the right winners' mean NLL per token.

    A right winner is a candidate that no edge beats and that nobody knows to be wrong; the mean is over the tokens of
    each, then over the group's winners (Pang et al. 2024, "Iterative Reasoning Preference Optimization", eq. 1, where
    winners are right by their making). A group without one has no such term.

    With `ld_alpha` below 1 an answer's tokens beyond the length of the one it is compared with weigh that much in its
    log-probability (Liu et al. 2024, "Length Desensitization in Direct Preference Optimization", eq. 9).
    """

    name = "dpo"
    network = CandidateLogps

    def __init__(self, config: DPOConfig | None = None, **settings: Any) -> None:
        """`config`, or single `settings` of it; raises UsageError for a loss that is not in the registry."""
        config = config or DPOConfig(**settings)
        self._loss: Loss = registry.load("losses", config.loss)
        if self._loss.kind == "one-sided":
            raise UsageError(f"the loss {config.loss} compares no answers", "use LabelObjective")
        if self._loss.kind == "listwise" and config.ld_alpha < 1:
            raise UsageError(f"ld_alpha compares two answers, {config.loss} whole rankings", "leave ld_alpha at 1")
        self.beta, self.nll_weight, self.ld_alpha = config.beta, config.nll_weight, config.ld_alpha
        self._strength = Strength(config.beta, config.label_smoothing, config.simpo_gamma)
        self.uses_reference = self._loss.uses_reference and not config.reference_free
        self.reference_by_token = self.uses_reference and config.ld_alpha < 1

    def takes(self, group: TokenGroup) -> bool:
        """Whether the group says anything to this objective."""
        return bool(group.edges)

    def normaliser(self, groups: Sequence[TokenGroup]) -> float:
        return sum(map(group_weight, groups))

    def loss(self, logps: torch.Tensor, reference: torch.Tensor, row: PackedRow) -> tuple[torch.Tensor, Sums]:
        winner, loser, weight, p = edge_tensors(row, logps.dtype)
        sums, lengths = row.sums(logps), row.lengths.to(logps.dtype)
        before = row.sums(reference) if self.reference_by_token else reference
        edges = Edges(sums[winner], sums[loser], before[winner], before[loser], lengths[winner], lengths[loser], p)
        if self._loss.kind == "listwise":
            loss = listwise(self._loss, self.beta * (sums - before), row)
        else:
            compared = self._desensitised(edges, logps, reference, row, winner, loser) if self.ld_alpha < 1 else edges
            loss = (weight * self._loss(compared, self._strength)).sum()
        right, share = winner_tensors(row, logps.dtype)
        nll = -(share * sums[right] / lengths[right]).sum()
        total = loss + self.nll_weight * nll if self.nll_weight else loss
        beside = {"nll": nll, "share": share.sum()}
        if self.uses_reference:  # nats a token; it is KL(reference || policy) where the reference sampled the answers
            beside["kl"] = ((before - sums) / lengths).sum()
        metrics, found = self._metrics(edges, weight, loss, beside)
        metrics["nll"] = (found["nll"], found["share"])
        if self.uses_reference:
            metrics["kl"] = (found["kl"], len(lengths))
        return total, metrics

    def _desensitised(
        self,
        e: Edges,
        logps: torch.Tensor,
        reference: torch.Tensor,
        row: PackedRow,
        winner: torch.Tensor,
        loser: torch.Tensor,
    ) -> Edges:
        """The edges with log-probabilities in which the longer answer's surplus tokens weigh `ld_alpha`."""
        shorter = torch.minimum(row.lengths[winner], row.lengths[loser])

        def weighed(tokens: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
            total = torch.cat([tokens.new_zeros(1), tokens.cumsum(0)])
            start = (row.lengths.cumsum(0) - row.lengths)[candidate]
            both, whole = total[start + shorter] - total[start], total[start + row.lengths[candidate]] - total[start]
            return both + self.ld_alpha * (whole - both)

        before = reference if self.reference_by_token else torch.zeros_like(logps)
        return Edges(
            weighed(logps, winner),
            weighed(logps, loser),
            weighed(before, winner),
            weighed(before, loser),
            e.winner_length,
            e.loser_length,
            e.p,
        )

    @torch.no_grad()
    def _metrics(
        self, e: Edges, weight: torch.Tensor, loss: torch.Tensor, beside: dict[str, torch.Tensor]
    ) -> tuple[Sums, dict[str, float]]:
        """TRL's names, so that curves from elsewhere can be laid beside these; and the numbers of `beside`."""
        chosen, rejected = self.beta * e.won, self.beta * e.lost
        per_edge = {
            "rewards/chosen": chosen,
            "rewards/rejected": rejected,
            "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).float(),
            "logps/chosen": e.winner,
            "logps/rejected": e.loser,
            "length_gap": e.winner_length - e.loser_length,
            "length_preference": torch.sign(chosen - rejected) * torch.sign(e.winner_length - e.loser_length),
        }
        sums = {name: (weight * value).sum() for name, value in per_edge.items()}
        found = read({"loss": loss, "weight": weight.sum(), **sums, **beside})
        n = found["weight"]
        return {name: (found[name], n) for name in ("loss", *sums)}, found


def group_weight(group: TokenGroup) -> float:
    """How much a group pulls in a step: the mean weight of its edges, whatever their number."""
    return sum(e.weight for e in group.edges) / len(group.edges) if group.edges else 1.0


def listwise(loss: Loss, rewards: torch.Tensor, row: PackedRow) -> torch.Tensor:
    """The sum over a row's groups of a listwise loss of their candidates' `rewards` [candidates], by group weight."""
    losses, first = [], 0
    for group in row.groups:
        n = len(group.candidates)
        won = [(e.winner, e.loser) if e.p > 0.5 else (e.loser, e.winner) for e in group.edges if e.p != 0.5]
        ties = [(e.winner, e.loser) for e in group.edges if e.p == 0.5]
        losses.append(group_weight(group) * loss(rewards[first : first + n], tiers_of(won, n, ties)))
        first += n
    return torch.stack(losses).sum()


def winner_tensors(row: PackedRow, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(index, weight) of the row's right winners; a group's weights sum to that of the group."""
    index: list[int] = []
    weight: list[float] = []
    first = 0
    for group in row.groups:
        winners = group.winners
        index += [first + i for i in winners]
        weight += [group_weight(group) / len(winners) for _ in winners]
        first += len(group.candidates)
    device = row.lengths.device
    return torch.tensor(index, device=device, dtype=torch.long), torch.tensor(weight, device=device, dtype=dtype)


def edge_tensors(row: PackedRow, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(winner index, loser index, weight, p) of a row's edges; a group's weights sum to that of the group."""
    winner: list[int] = []
    loser: list[int] = []
    weight: list[float] = []
    p: list[float] = []
    first = 0
    for group in row.groups:
        for e in group.edges:
            winner.append(first + e.winner)
            loser.append(first + e.loser)
            weight.append(e.weight / len(group.edges))
            p.append(e.p)
        first += len(group.candidates)
    device = row.lengths.device
    return (
        torch.tensor(winner, device=device),
        torch.tensor(loser, device=device),
        torch.tensor(weight, device=device, dtype=dtype),
        torch.tensor(p, device=device, dtype=dtype),
    )
