"""The router's balancing loss of a mixture of experts: how far from evenly its tokens are shared among the experts.

It is transformers' own figure of the model, on the tokens that a row's sequences have: where a prompt is computed once
for several answers, its tokens count once for each of them, as in one padded line an answer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from hafs.errors import UsageError
from hafs.training.packing import PackedRow

_Balance = Callable[..., torch.Tensor]


class RouterLoss:
    """What a model's routers say of a forward pass, weighed by `weight`."""

    def __init__(self, causal: Any, weight: float) -> None:
        """Of the causal model `causal`; `weight` below 0 is the model's own. Raises UsageError for a weight above 0 and
        a model without such a loss."""
        config = causal.config.get_text_config()
        own = float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0)
        self._balance: _Balance | None = getattr(sys.modules[type(causal).__module__], "load_balancing_loss_func", None)
        self._experts = getattr(causal, "num_experts", None)
        self._chosen = getattr(causal, "num_experts_per_tok", None)
        known = self._balance is not None and hasattr(config, "output_router_logits")
        if weight > 0 and not (known and self._experts and self._chosen):
            raise UsageError(
                f"{config.model_type} has no router loss that is known here, so none can be added",
                "leave router_weight at its default, or at 0",
            )
        self.weight = (own if weight < 0 else weight) if known and self._experts and self._chosen else 0.0

    def of(self, router_logits: tuple[torch.Tensor, ...], row: PackedRow) -> torch.Tensor:
        """The balancing loss of a row, not yet weighed; 1 a token is even for the figure of most families."""
        assert self._balance is not None
        return self._balance(router_logits, self._experts, self._chosen, token_weights(row))


def token_weights(row: PackedRow) -> torch.Tensor:
    """[lines, length] in how many of the row's sequences each of its tokens is; padding is in none."""
    if row.padding is not None:
        return row.padding
    assert row.ends is not None
    length = row.input_ids.shape[-1]
    last = row.where[row.choice[row.lengths.cumsum(0) - 1]]  # the node before each candidate's last token
    here = torch.zeros(length + 1, dtype=torch.long, device=row.input_ids.device)
    here[1:].index_add_(0, last, torch.ones_like(last))
    before = here.cumsum(0)
    return (before[row.ends] - before[:-1])[None]
