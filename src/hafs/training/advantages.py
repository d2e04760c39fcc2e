"""How much better an answer's tokens were than expected: GAE, RLOO, GRPO; and what becomes of KL and whitening.

Pure functions. A token's tensors are padded to [answers, longest], `mask` says which places are tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(advantages, returns), [answers, longest] each; the state after the last token is worth 0.

    A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} - V_t (Schulman et al. 2015, "High-Dimensional Continuous Control
    Using Generalized Advantage Estimation", eq. 16); returns are A + V.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    after_value = after = torch.zeros(len(rewards), dtype=rewards.dtype, device=rewards.device)
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * after_value - values[:, t]
        after = (delta + gamma * lam * after) * mask[:, t]
        advantages[:, t] = after
        after_value = values[:, t]
    return advantages, (advantages + values) * mask


def rloo(returns: torch.Tensor) -> torch.Tensor:
    """[answers of one prompt]: each answer's return less the mean of the others'.

    Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization", eq. 8. Needs two or more.
    """
    n = len(returns)
    return returns - (returns.sum() - returns) / (n - 1)


def grpo(scores: torch.Tensor, returns: torch.Tensor) -> torch.Tensor:
    """[answers of one prompt]: scores to mean 0 and deviation 1, and what else is in the returns to mean 0.

    Shao et al. 2024, "DeepSeekMath", section 4.1.2. The rest, the KL, keeps its size: divided by its own deviation it
    would pull as hard as the scores where those are equal, whatever its weight.
    """
    rest = returns - scores
    return _standard(scores) + rest - rest.mean()


def _standard(values: torch.Tensor) -> torch.Tensor:
    """To mean 0 and deviation 1. Values that are equal but for rounding have no spread, and nothing is made of it."""
    spread = values.max() - values.min()
    if spread <= 8 * torch.finfo(values.dtype).eps * values.abs().max():
        return torch.zeros_like(values)
    return (values - values.mean()) / (values.std(unbiased=False) + 1e-6)


def whiten(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean 0 and deviation 1 over the places of the mask, 0 elsewhere (Huang et al. 2024, detail 18)."""
    n = mask.sum().clamp(min=1)
    mean = (values * mask).sum() / n
    variance = ((values - mean) ** 2 * mask).sum() / (n - 1).clamp(min=1)
    return (values - mean) * (variance + 1e-8).rsqrt() * mask


def adapted_kl_weight(weight: float, kl: float, target: float, answers: int, horizon: float) -> float:
    """The KL weight after a step of `answers` answers whose KL was `kl`: it grows when that is above the target.

    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2: the error is clipped to 0.2.
    """
    error = min(0.2, max(-0.2, kl / target - 1))
    return weight * (1 + error * answers / horizon)


def padded(flat: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """[tokens] of answers one after the other as [answers, longest], zeros behind."""
    return torch.nn.utils.rnn.pad_sequence(list(flat.split(list(lengths))), batch_first=True)


def flat(table: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The inverse of `padded`: the places of the mask, row by row."""
    return table[mask.bool()]
