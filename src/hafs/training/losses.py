"""Preference losses: pure functions on log-probabilities.

A pairwise loss takes `Edges`, tensors of one number an edge, and returns one number an edge. A listwise loss takes the
rewards of one group's candidates and their tiers, and returns one number. Log-probabilities are sums over a candidate's
tokens in nats. The registry's kind "losses" has their names: the command line's choices, the documentation's table and
the tests derive from it, and an outside package adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Edges:
    """For each edge: log-probabilities of winner and loser under policy and reference, their lengths, and `p`.

    `p` is the probability that the winner really is the better one (1 for a plain pair, a share of votes otherwise).
    All are [edges].
    """

    winner: torch.Tensor
    loser: torch.Tensor
    winner_ref: torch.Tensor
    loser_ref: torch.Tensor
    winner_length: torch.Tensor
    loser_length: torch.Tensor
    p: torch.Tensor

    @property
    def won(self) -> torch.Tensor:
        """Log-ratio of policy to reference of the winner (nats)."""
        return self.winner - self.winner_ref

    @property
    def lost(self) -> torch.Tensor:
        """The same of the loser."""
        return self.loser - self.loser_ref

    @property
    def margin(self) -> torch.Tensor:
        """Difference of the log-ratios, winner minus loser (nats)."""
        return self.won - self.lost

    @property
    def margin_per_token(self) -> torch.Tensor:
        """The same with each log-ratio divided by its candidate's length."""
        return self.won / self.winner_length - self.lost / self.loser_length


@dataclass(frozen=True)
class Labelled:
    """For each answer: its log-ratio of policy to reference (nats) and whether it is good; and the reference point.

    `kl` is one number for all: the policy's distance from the reference (nats an answer), at least 0, without gradient.
    """

    ratio: torch.Tensor
    good: torch.Tensor
    kl: torch.Tensor


@dataclass(frozen=True)
class Strength:
    """What a loss may be tuned by: `beta`, the share of labels taken to be flipped, SimPO's target margin, and what a
    good and a bad answer weigh in KTO."""

    beta: float = 0.1
    smoothing: float = 0.0
    gamma: float = 0.5
    desirable: float = 1.0
    undesirable: float = 1.0

    def target(self, p: torch.Tensor) -> torch.Tensor:
        """The probability to aim at: `p` after a flip of a share `smoothing` of the labels."""
        return p * (1 - self.smoothing) + (1 - p) * self.smoothing


LossKind = Literal["pairwise", "listwise", "one-sided"]
"""What a loss looks at: `Edges`, a group's rewards and tiers, or `Labelled` answers."""


@dataclass(frozen=True)
class Loss:
    """A loss as the objective takes it: the function, what it looks at, and whether it needs a reference model."""

    function: Callable[..., torch.Tensor]
    kind: LossKind = "pairwise"
    uses_reference: bool = True

    def __call__(self, *args: Any) -> torch.Tensor:
        return self.function(*args)

    @property
    def doc(self) -> str:
        """What the loss is, in one paragraph."""
        return " ".join((self.function.__doc__ or "").split())


def loss(kind: LossKind = "pairwise", uses_reference: bool = True) -> Any:
    """Decorator: a function as a `Loss`."""
    return lambda function: Loss(function, kind, uses_reference)


@loss()
def sigmoid(e: Edges, s: Strength) -> torch.Tensor:
    """-log σ(β margin), the loss of DPO; with votes (p < 1) or label smoothing it is soft Bradley-Terry, the
    cross-entropy to that probability. Rafailov et al. 2023, "Direct Preference Optimization", eq. 7; soft labels as in
    cDPO (Mitchell 2023)."""
    return _soft(s.beta * e.margin, s.target(e.p))


@loss()
def sigmoid_norm(e: Edges, s: Strength) -> torch.Tensor:
    """The sigmoid loss on log-ratios per token (length-normalised DPO; Lambert et al. 2024, "Tülu 3", section 5)."""
    return _soft(s.beta * e.margin_per_token, s.target(e.p))


@loss()
def robust(e: Edges, s: Strength) -> torch.Tensor:
    """Unbiased under label flips at rate `label_smoothing` (Chowdhury et al. 2024, "Provably Robust DPO", eq. 12)."""
    right, wrong = _soft(s.beta * e.margin, e.p), _soft(-s.beta * e.margin, e.p)
    return ((1 - s.smoothing) * right - s.smoothing * wrong) / (1 - 2 * s.smoothing)


@loss()
def ipo(e: Edges, s: Strength) -> torch.Tensor:
    """(margin - 1/(2β))², mean log-ratios per token (Azar et al. 2023, "A General Theoretical Paradigm", eq. 17). It
    targets the margin (2p - 1)/(2β), so an edge known to be a coin toss is pulled to zero."""
    return (e.margin_per_token - (2 * s.target(e.p) - 1) / (2 * s.beta)) ** 2


@loss()
def hinge(e: Edges, s: Strength) -> torch.Tensor:
    """max(0, 1 - β margin) (Zhao et al. 2023, "SLiC-HF", on log-ratios); `p` mixes both directions."""
    p = s.target(e.p)
    return p * torch.relu(1 - s.beta * e.margin) + (1 - p) * torch.relu(1 + s.beta * e.margin)


@loss()
def apo_zero(e: Edges, s: Strength) -> torch.Tensor:
    """1 - σ(β winner's log-ratio) + σ(β loser's): winners become likelier than under the reference and losers less
    likely, each by itself (D'Oosterlinck et al. 2024, "Anchored Preference Optimization", eq. 7); `p` mixes both
    directions."""
    won, lost, p = torch.sigmoid(s.beta * e.won), torch.sigmoid(s.beta * e.lost), s.target(e.p)
    return 1 - (2 * p - 1) * (won - lost)


@loss(uses_reference=False)
def simpo(e: Edges, s: Strength) -> torch.Tensor:
    """-log σ(β difference of the mean log-probabilities per token - γ), without a reference; its β is about 2, γ is
    `simpo_gamma` (Meng et al. 2024, "SimPO", eq. 6)."""
    margin = e.winner / e.winner_length - e.loser / e.loser_length
    return _soft(s.beta * margin - s.gamma, s.target(e.p))


@loss(kind="listwise")
def plackett_luce(rewards: torch.Tensor, tiers: Sequence[Sequence[int]]) -> torch.Tensor:
    """-log of the probability of the ranking's tiers under Plackett-Luce with β log-ratios as scores; within a tier any
    order counts. With two candidates it is the sigmoid loss. Rafailov et al. 2023, appendix A.3; ties by the exact sum
    over orders (Allison & Christakis 1994, "Logit models for sets of ranked items")."""
    rest = [i for tier in tiers for i in tier]
    total = rewards[:0].sum()  # 0, also where there is no tier to lose to
    for tier in tiers[:-1]:  # the last tier is what remains, with probability 1
        total = total - _first(rewards, tier, rest)
        rest = [i for i in rest if i not in tier]
    return total


MOST_TIES = 10
"""The largest tier whose orders are summed: 2^10 subsets."""


def _first(rewards: torch.Tensor, tier: Sequence[int], rest: Sequence[int]) -> torch.Tensor:
    """log P(the members of `tier`, in any order, are drawn before the others of `rest`).

    By subsets: what has been drawn is a set, its probability the sum over who came last.
    """
    if len(tier) == 1:
        return rewards[tier[0]] - rewards[list(rest)].logsumexp(0)
    if len(tier) > MOST_TIES:
        raise ValueError(f"a tier of {len(tier)} tied candidates; Plackett-Luce sums over at most {MOST_TIES}")
    others = [i for i in rest if i not in tier]
    drawn: dict[int, torch.Tensor] = {0: rewards.new_zeros(())}
    for subset in range(1, 1 << len(tier)):
        ways = []
        for k, member in enumerate(tier):
            if subset >> k & 1:
                before = subset & ~(1 << k)
                left = [m for j, m in enumerate(tier) if not before >> j & 1] + others
                ways.append(drawn[before] + rewards[member] - rewards[left].logsumexp(0))
        drawn[subset] = torch.stack(ways).logsumexp(0)
    return drawn[(1 << len(tier)) - 1]


def tiers_of(edges: Sequence[tuple[int, int]], n: int, ties: Sequence[tuple[int, int]] = ()) -> list[list[int]]:
    """The tiers that pairwise edges (winner, loser) and ties put `n` candidates in, best first.

    A tier holds whom nobody left beats; candidates in no edge or tie are left out, a circle of edges is one tier.
    """
    of = list(range(n))  # the first of those that a candidate is tied with
    for a, b in ties:
        of = [min(of[a], of[b]) if i in (of[a], of[b]) else i for i in of]
    named = sorted({i for pair in (*edges, *ties) for i in pair})
    beats = [(of[winner], of[loser]) for winner, loser in edges if of[winner] != of[loser]]
    left = sorted({of[i] for i in named})
    tiers: list[list[int]] = []
    while left:
        beaten = {loser for winner, loser in beats if winner in left}
        tier = [i for i in left if i not in beaten] or left
        tiers.append([i for i in named if of[i] in tier])
        left = [i for i in left if i not in tier]
    return tiers


@loss(uses_reference=False)
def orpo(e: Edges, s: Strength) -> torch.Tensor:
    """The winner's NLL per token plus β times -log σ of the log odds ratio of winner to loser, both per token; no
    reference. Hong et al. 2024, "ORPO: Monolithic Preference Optimization without Reference Model", eq. 6 and 7; β is
    its λ."""
    won, lost = ((logp / n).clamp(max=-1e-6) for logp, n in ((e.winner, e.winner_length), (e.loser, e.loser_length)))
    ratio = (won - lost) - (torch.log(-torch.expm1(won)) - torch.log(-torch.expm1(lost)))
    return -(e.p * won + (1 - e.p) * lost) + s.beta * _soft(ratio, s.target(e.p))


@loss("one-sided")
def kto(a: Labelled, s: Strength) -> torch.Tensor:
    """One-sided labels: λ_D (1 - σ(β (log-ratio - KL))) for a good answer, λ_U (1 - σ(β (KL - log-ratio))) for a bad
    one; λ_D and λ_U are `desirable_weight` and `undesirable_weight`. Ethayarajh et al. 2024, "KTO: Model Alignment as
    Prospect Theoretic Optimization", eq. 7 and 8."""
    distance = s.beta * (a.ratio - a.kl)
    return torch.where(a.good, s.desirable * torch.sigmoid(-distance), s.undesirable * torch.sigmoid(distance))


def _soft(logit: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    return -(p * F.logsigmoid(logit) + (1 - p) * F.logsigmoid(-logit))
