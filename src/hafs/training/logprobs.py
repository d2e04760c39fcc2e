"""Log-probabilities of candidates, computed from hidden states in chunks.

The output layer runs only where a label is, on `CHUNK` numbers at a time: a processor spends more on fetching fresh
pages for a large tensor than on filling it (see docs/log.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.helpers import disable_input_dtype_casting
from torch import nn
from torch.utils.checkpoint import checkpoint

from hafs.errors import UsageError
from hafs.models.loading import pick_precision
from hafs.training.attention import masks, takes_shared_layout, use_blocks
from hafs.training.packing import PackedRow, TokenGroup, shared_row, tokens_of, unshared_row
from hafs.training.router import RouterLoss

CHUNK = 1 << 22


class CandidateLogps(nn.Module):
    """A causal language model seen as a function from a row to the log-probability of each label.

    `forward(row)` returns [labels] in float32 (float64 for a float64 model), in nats; `row.sums` adds them up by
    candidate. Every choice of the row is computed once.
    """

    def __init__(self, net: Any, shared: bool | None = None) -> None:
        super().__init__()
        self.net = net
        causal = net.get_base_model() if hasattr(net, "get_base_model") else net
        self.config = causal.config
        self._no_split_modules = getattr(causal, "_no_split_modules", None)  # what FSDP wraps
        self._backbone: Callable[..., Any] = causal.base_model
        self._head: Any = causal.get_output_embeddings()
        self.shared = takes_shared_layout(self.config) if shared is None else shared
        self.own_head = False
        """Whether logits come from the model's own forward pass: its head does more than this class knows."""
        self._causal = (causal,)  # in a tuple: its weights are the network's already
        self.router: RouterLoss | None = None
        self.balance: torch.Tensor | None = None
        """The router loss of the last forward pass, where one was asked for with `balance_routers`."""
        self._takes = frozenset(inspect.signature(causal.forward).parameters)
        if self.shared:
            use_blocks(causal)

    def balance_routers(self, weight: float) -> None:
        """Compute the router loss of a mixture of experts in training, of `weight` (below 0: the model's own).

        Raises UsageError for a weight above 0 and a model without such a loss.
        """
        router = RouterLoss(self._causal[0], weight)
        self.router = router if router.weight else None

    def row(self, groups: Sequence[TokenGroup]) -> PackedRow:
        """The layout that this model takes."""
        row = shared_row(groups) if self.shared else unshared_row(groups)
        return row.to(next(self.net.parameters()).device)

    def forward(self, row: PackedRow) -> torch.Tensor:
        if self.own_head:
            return self._own(row)
        return self.logps(self.hidden(row), row)

    def _inputs(self, row: PackedRow) -> dict[str, Any]:
        """What a forward pass is given, so far as the model takes it."""
        mask = masks(row, self.config) if row.padding is None else row.padding
        given = {"input_ids": row.input_ids, "attention_mask": mask, "use_cache": False}
        takes_positions = row.padding is None or "position_ids" in self._takes or "kwargs" in self._takes
        return {**given, "position_ids": row.positions} if takes_positions else given

    def _own(self, row: PackedRow) -> torch.Tensor:
        """Log-probabilities by the model's own forward pass, head and all."""
        found = self.net(**self._inputs(row), **self._asks_routers())
        self._hear_routers(found, row)
        logits = found.logits
        return _pick(logits.reshape(-1, logits.shape[-1])[row.where], row.chosen)[row.choice]

    def hidden(self, row: PackedRow) -> torch.Tensor:
        """[choices, width] last hidden state before each choice."""
        found = self._backbone(**self._inputs(row), **self._asks_routers())
        self._hear_routers(found, row)
        hidden = found.last_hidden_state
        return hidden.reshape(-1, hidden.shape[-1])[row.where]

    def _asks_routers(self) -> dict[str, bool]:
        wanted = self.router is not None and self.training and torch.is_grad_enabled()
        return {"output_router_logits": True} if wanted else {}

    def _hear_routers(self, found: Any, row: PackedRow) -> None:
        logits = getattr(found, "router_logits", None) if self._asks_routers() else None
        self.balance = self.router.of(logits, row) if self.router is not None and logits else None

    def logps(self, hidden: torch.Tensor, row: PackedRow) -> torch.Tensor:
        """[labels] log-probability of each label after the row's `hidden`; logits exist for one chunk at a time."""
        return self._picked(hidden, row.chosen)[row.choice]

    def _picked(self, hidden: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        size = max(1, CHUNK // self.config.get_text_config().vocab_size)
        plain = self._scaling() == (None, 1.0) and type(self._head) is nn.Linear and self._head.bias is None
        if plain and not self._head.weight.requires_grad:
            return _FrozenHead.apply(hidden, self._head.weight, chosen, size)
        if len(chosen) <= size:
            return self._chunk(hidden, chosen)
        parts = zip(hidden.split(size), chosen.split(size), strict=True)
        return torch.cat([checkpoint(self._chunk, h, y, use_reentrant=False) for h, y in parts])

    def _chunk(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        cap, scale = self._scaling()
        logits = self._head(hidden)
        if cap:
            logits = torch.tanh(logits / cap) * cap
        return _pick(logits * scale, labels)

    def _scaling(self) -> tuple[float | None, float]:
        """(cap, factor) for what some families do to logits: gemma2 caps them, granite and cohere scale them."""
        cap = getattr(self.config, "final_logit_softcapping", None)
        return cap, getattr(self.config, "logit_scale", 1.0) / getattr(self.config, "logits_scaling", 1.0)


def _pick(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-probability of each label under its row of logits, in float32 at least."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.gather(-1, labels[:, None])[:, 0] - logits.logsumexp(-1)


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities under an output layer that is not trained, with the gradient computed on the way.

    The derivative of a token's log-probability by its hidden state is W[label] - softmax W, which needs the logits
    only while they are there: nothing of size [labels, vocabulary] is kept or computed twice. (Liger-Kernel fuses
    cross-entropy in the same way.)
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, size: int) -> torch.Tensor:
        """`hidden` [labels, width], `weight` [vocabulary, width]; `size` labels at a time."""
        wanted = ctx.needs_input_grad[0]
        logps, slopes = [], []
        for h, y in zip(hidden.split(size), labels.split(size), strict=True):
            logits = h.to(weight.dtype) @ weight.T
            exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
            normaliser = exact.logsumexp(-1)
            logps.append(exact.gather(-1, y[:, None])[:, 0] - normaliser)
            if wanted:
                shares = exact.sub_(normaliser[:, None]).exp_().to(weight.dtype)
                slopes.append(weight[y] - shares @ weight)
        if wanted:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(logps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradients[0].to(slopes.dtype)[:, None] * slopes, None, None, None


@torch.no_grad()
def self_test(model: CandidateLogps, groups: Sequence[TokenGroup], tolerance: float) -> bool:
    """Whether this model takes the shared layout; every model is held against its own forward pass, row by row.

    The truth is the model's plain forward pass, one candidate at a time, on the first group and on the longest. Where
    the shared layout differs from it by more than `tolerance` nats a token on average, `model.shared` is switched off;
    where the padded layout with our head does, the model's own head is used. Raises UsageError when that differs too.
    """
    if not groups:
        return model.shared
    sample = [groups[0], max(groups, key=lambda g: tokens_of([g]))]  # the longest may exceed a window
    truth = torch.stack([_plain(model.net, g.prompt, c) for g in sample for c in g.candidates])
    lengths = truth.new_tensor([len(c) for g in sample for c in g.candidates])
    gap, trouble = float("inf"), ""
    for shared, own in dict.fromkeys([(model.shared, False), (False, False), (False, True)]):
        model.shared, model.own_head = shared, own
        try:
            row = model.row(sample)
            gap = float(((row.sums(model(row)) - truth).abs() / lengths).max())
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError) as e:
            trouble = f"{type(e).__name__}: {str(e).splitlines()[0][:200] if str(e) else ''}"
            continue  # a layout, or a head, that this model does not take
        if gap <= tolerance:
            return model.shared
    if gap == float("inf") and trouble:
        raise UsageError(
            f"{model.config.model_type} computes no batch of answers here ({trouble})",
            "train another model, or a newer transformers with it",
        )
    raise UsageError(
        f"{model.config.model_type} computes other log-probabilities in a batch than alone ({gap:.2g} nats a token"
        " apart): what would be trained is not the model",
        "train another model, or a newer transformers with it",
    )


def _plain(net: Any, prompt: Sequence[int], candidate: Sequence[int]) -> torch.Tensor:
    device = next(net.parameters()).device
    ids = torch.tensor([[*prompt, *candidate]], device=device)
    logits = net(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).sum()


@contextmanager
def autocast(model: CandidateLogps, precision: str) -> Iterator[None]:
    """Compute in the run's precision; an adapter then needs no float32 copy of its input."""
    if pick_precision(precision) != "bf16":
        yield
        return
    with torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16), disable_input_dtype_casting(model):
        yield
