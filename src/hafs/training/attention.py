"""Who sees whom in a row of the shared layout, said to a model in the form that its attention takes.

A token sees itself and those above it in the row's tree (`tree.py`), inside a layer's window if it has one (windows
count positions, not places in the row). The forms:

- SDPA: a boolean mask (True = attend), and block by block the keys that any of its queries sees, so that what lies
  between the branches of a tree is never computed (`_by_blocks`, below).
- eager, for models that have nothing else (gemma2, gpt_oss): the same mask to be *added*, 0 or the lowest number.
- FlexAttention, on CUDA: a BlockMask.

A mask given to a transformers model replaces that of every layer. Models that mix full and sliding layers take a
dictionary, one mask a layer type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hafs.training.packing import PackedRow, to_device

BLOCKS = "hafs_blocks"

SHARED_LAYOUT = frozenset(
    [
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "gemma",
        "phi3",
        "smollm3",
        "olmo2",
        "granite",
        "gpt2",
        "mistral",
        "gemma2",
        "gemma3_text",
        "olmo3",
        "cohere2",
        "gpt_oss",
    ]
)
"""Model types whose every layer takes the group mask. The start-up self-test checks each model all the same."""

_WINDOWED = {"full_attention": False, "sliding_attention": True}


def takes_shared_layout(config: Any) -> bool:
    """Whether models of this configuration are known to take the shared layout: recurrent layers never do."""
    return config.model_type in SHARED_LAYOUT and set(getattr(config, "layer_types", None) or ()) <= set(_WINDOWED)


def use_blocks(net: Any) -> None:
    """Let a model that uses SDPA compute the attention of a row branch by branch."""
    if net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(BLOCKS)


def masks(row: PackedRow, config: Any) -> Any:
    """The attention mask of a row in the shared layout for a model of `config`: one, or a dictionary by layer type."""
    form = {"flex_attention": _block_mask, "eager": _added}.get(config._attn_implementation, _boolean)
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ())
    if len(kinds) < 2 and config.model_type not in _BY_LAYER_TYPE:
        windowed = _WINDOWED[kinds.pop()] if kinds else True
        return form(row, window if windowed else None)
    return {kind: form(row, window if _WINDOWED[kind] else None) for kind in kinds or {"full_attention"}}


_BY_LAYER_TYPE = frozenset(["gemma2", "gemma3_text", "olmo3", "cohere2", "gpt_oss"])
"""Model types that look their mask up by layer type even where all layers are of one type."""


@dataclass(frozen=True)
class _Block:
    """The queries [first, last), the keys that they see (a stretch, or places), and which of them each query sees.

    `mask` [queries, keys] is None where the keys are the queries themselves, each of which sees those before it.
    """

    first: int
    last: int
    keys: slice | torch.Tensor
    mask: torch.Tensor | None


def _boolean(row: PackedRow, window: int | None) -> torch.Tensor:
    """[1, 1, length, length] bool, and as its attribute `blocks` the row's blocks. No device is waited for."""
    assert row.ends is not None
    places = torch.arange(len(row.ends), device=row.ends.device)
    mask = _visible(row, window)(None, None, places[:, None], places[None, :])
    blocks = [_block(mask, row.on_host, window, first, last) for first, last in row.blocks]
    mask = mask[None, None]
    mask.blocks = blocks  # type: ignore[attr-defined]
    return mask


def _block(mask: torch.Tensor, row: PackedRow, window: int | None, first: int, last: int) -> _Block:
    """The stretch [first, last) of a row that is on the host; `mask` is the whole row's, where it is computed."""
    assert row.ends is not None
    ends, positions = row.ends, row.positions[0]
    above = ends[:first] > first
    if window is not None:  # a place that no query sees after all is masked
        above &= positions[first:last].min() - positions[:first] < window
    keys = above.nonzero()[:, 0]
    if not len(keys):
        chain = bool((ends[first:last] >= last).all()) and (window is None or last - first <= window)
        return _Block(first, last, slice(first, last), None if chain else mask[first:last, first:last][None, None])
    low = int(keys[0])
    if len(keys) == first - low:
        return _Block(first, last, slice(low, last), mask[first:last, low:last][None, None])
    seen = to_device(torch.cat([keys, torch.arange(first, last)]), mask.device)
    return _Block(first, last, seen, mask[first:last][:, seen][None, None])


def _added(row: PackedRow, window: int | None) -> torch.Tensor:
    mask = _boolean(row, window)
    dtype = torch.get_default_dtype()
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _block_mask(row: PackedRow, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    length = row.input_ids.shape[1]
    return create_block_mask(_visible(row, window), None, None, length, length, device=str(row.input_ids.device))


def _visible(row: PackedRow, window: int | None) -> Callable[..., torch.Tensor]:
    """The rule itself, as FlexAttention's `mask_mod(batch, head, query, key)`; the last two are places in the row."""
    ends, positions = row.ends, row.positions[0]
    assert ends is not None

    def rule(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        seen = (key <= query) & (query < ends[key])
        return seen if window is None else seen & (positions[query] - positions[key] < window)

    return rule


def _by_blocks(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    """SDPA for each block of the mask by itself; without blocks it is SDPA. Tensors: [1, heads, length, d]."""
    blocks = getattr(attention_mask, "blocks", None)
    if blocks is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)

    def attend(block: _Block, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return sdpa_attention_forward(module, q, k, v, block.mask, **more)[0]

    if more.get("dropout"):  # which draws other numbers when it is computed again
        return torch.cat([attend(b, *_of_block(b, query, key, value)) for b in blocks], 1), None
    return _Blocks.apply(attend, blocks, query, key, value), None


def _of_block(block: _Block, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The block's part of query, key and value."""
    query, *others = tensors
    return (query[:, :, block.first : block.last], *(t[:, :, block.keys] for t in others))


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or a copy where it is a part of a larger one (phi3's fused layer), which it would keep in memory."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()


class _Blocks(torch.autograd.Function):
    """Attention block by block; the backward pass computes each block again and adds up what shared keys are sent.

    Without it autograd would keep a copy of a prompt's keys and values for every branch, and fill a tensor as long as
    the row for each of them on the way back.
    """

    @staticmethod
    def forward(
        ctx: Any, attend: Any, blocks: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """[1, length, heads, d], as SDPA's result in transformers."""
        ctx.attend, ctx.blocks = attend, blocks
        ctx.save_for_backward(*map(_alone, (query, key, value)))
        return torch.cat([attend(b, *_of_block(b, query, key, value)) for b in blocks], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = ctx.saved_tensors
        exact = torch.promote_types(saved[0].dtype, torch.float32)  # many branches add to one prompt
        totals = [torch.zeros_like(t, dtype=exact) for t in saved]
        for block in ctx.blocks:
            parts = [t.detach().requires_grad_() for t in _of_block(block, *saved)]
            with torch.enable_grad():
                out = ctx.attend(block, *parts)
            mine = torch.autograd.grad(out, parts, gradients[0][:, block.first : block.last].to(out.dtype))
            for total, part, keys in zip(
                totals, mine, (slice(block.first, block.last), block.keys, block.keys), strict=True
            ):
                if isinstance(keys, slice):
                    total[:, :, keys] += part
                else:
                    total.index_add_(2, keys, part.to(exact))
        return None, None, *(total.to(t.dtype) for total, t in zip(totals, saved, strict=True))


AttentionInterface.register(BLOCKS, _by_blocks)
AttentionMaskInterface.register(BLOCKS, sdpa_mask)
