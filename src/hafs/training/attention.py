"""Who sees whom in a row of the shared layout, said to a model in the form that its attention takes.

A token sees its own group's prompt and the earlier tokens of its own segment, inside a layer's window if it has one
(windows count positions, not places in the row). The forms:

- SDPA: a boolean mask (True = attend). Groups do not see each other, so attention runs group by group and the blocks
  between them are never computed (`blocks`, below).
- eager, for models that have nothing else (gemma2, gpt_oss): the same mask to be *added*, 0 or the lowest number.
- FlexAttention, on CUDA: a BlockMask.

A mask given to a transformers model replaces that of every layer. Models that mix full and sliding layers take a
dictionary, one mask a layer type.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hafs.training.packing import Row

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
    """Let a model that uses SDPA compute the attention of a row group by group."""
    if net.config._attn_implementation == "sdpa":
        net.set_attn_implementation(BLOCKS)


def masks(row: Row, config: Any) -> Any:
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


def _boolean(row: Row, window: int | None) -> torch.Tensor:
    """[1, 1, length, length] bool, and as its attribute `spans` where the groups lie."""
    assert row.group is not None
    places = torch.arange(len(row.group), device=row.group.device)
    mask = _visible(row, window)(None, None, places[:, None], places[None, :])[None, None]
    mask.spans = row.spans  # type: ignore[attr-defined]
    return mask


def _added(row: Row, window: int | None) -> torch.Tensor:
    mask = _boolean(row, window)
    dtype = torch.get_default_dtype()
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


def _block_mask(row: Row, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    length = row.input_ids.shape[1]
    return create_block_mask(_visible(row, window), None, None, length, length, device=str(row.input_ids.device))


def _visible(row: Row, window: int | None) -> Callable[..., torch.Tensor]:
    """The rule itself, as FlexAttention's `mask_mod(batch, head, query, key)`; the last two are places in the row."""
    group, segment, positions = row.group, row.segment, row.positions[0]
    assert group is not None and segment is not None

    def rule(batch: Any, head: Any, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        own = (segment[key] == 0) | (segment[key] == segment[query])
        seen = (group[key] == group[query]) & own & (key <= query)
        return seen if window is None else seen & (positions[query] - positions[key] < window)

    return rule


def _by_blocks(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    """SDPA for each span of the mask by itself; without spans it is SDPA as ever. Tensors are [1, heads, length, d]."""
    spans = getattr(attention_mask, "spans", ())
    if len(spans) < 2:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    parts = [
        sdpa_attention_forward(
            module, query[:, :, a:b], key[:, :, a:b], value[:, :, a:b], attention_mask[:, :, a:b, a:b], **more
        )[0]
        for a, b in spans
    ]
    return torch.cat(parts, 1), None


AttentionInterface.register(BLOCKS, _by_blocks)
AttentionMaskInterface.register(BLOCKS, sdpa_mask)
