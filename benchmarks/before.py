"""The layout that the token tree replaced, kept to be compared with: prompts once a group, groups side by side.

A group is `prompt[:-1] | p_last, c1[:-1] | p_last, c2[:-1] | ...`. Nothing is shared between candidates or groups, and
attention runs group by group. It is a tree as well, one whose nodes are not distinct, so the engine's own rule holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hafs.training.logprobs import CandidateLogps
from hafs.training.packing import PackedRow, TokenGroup

BEFORE = "hafs_before"


def size(group: TokenGroup) -> int:
    """Tokens of a group."""
    return len(group.prompt) - 1 + sum(map(len, group.candidates))


def pack(groups: Iterable[TokenGroup], row_tokens: int, shared: bool = True) -> list[list[TokenGroup]]:
    """Whole groups to rows, first fit, longest first."""
    rows: list[tuple[int, list[TokenGroup]]] = []
    for group in sorted(groups, key=lambda g: -size(g)):
        for i, (used, row) in enumerate(rows):
            if used + size(group) <= row_tokens:
                row.append(group)
                rows[i] = (used + size(group), row)
                break
        else:
            rows.append((size(group), [group]))
    return [row for _, row in rows]


def row_of(groups: Sequence[TokenGroup]) -> PackedRow:
    """Groups side by side in one line."""
    ids: list[int] = []
    positions: list[int] = []
    ends: list[int] = []
    where: list[int] = []
    blocks: list[tuple[int, int]] = []
    for group in groups:
        *head, last = group.prompt
        first = len(ids)
        end = first + size(group)
        ids += head
        positions += range(len(head))
        ends += [end] * len(head)
        for candidate in group.candidates:
            where += range(len(ids), len(ids) + len(candidate))
            ids += [last, *candidate[:-1]]
            positions += range(len(head), len(head) + len(candidate))
            ends += [len(ids)] * len(candidate)
        blocks.append((first, end))
    candidates = [c for g in groups for c in g.candidates]
    lengths = torch.tensor([len(c) for c in candidates])
    return PackedRow(
        torch.tensor([ids]),
        torch.tensor([positions]),
        torch.tensor(where),
        torch.tensor([token for c in candidates for token in c]),
        torch.arange(len(where)),
        torch.repeat_interleave(torch.arange(len(candidates)), lengths),
        lengths,
        tuple(groups),
        ends=torch.tensor(ends),
        blocks=tuple(blocks),
    )


class Before(CandidateLogps):
    """The model as it was read before."""

    def __init__(self, net: Any) -> None:
        super().__init__(net, shared=True)

    def row(self, groups: Sequence[TokenGroup]) -> PackedRow:
        """The layout of before."""
        return row_of(groups).to(next(self.net.parameters()).device)


@contextmanager
def before(net: Any) -> Iterator[None]:
    """Steps packed and attention computed as before, inside."""
    causal = net.get_base_model() if hasattr(net, "get_base_model") else net
    now = causal.config._attn_implementation
    causal.set_attn_implementation(BEFORE)
    try:
        with patch("hafs.training.packing.pack", pack):
            yield
    finally:
        causal.set_attn_implementation(now)


def _by_groups(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **more: Any
) -> tuple[torch.Tensor, None]:
    parts = [
        sdpa_attention_forward(
            module,
            query[:, :, b.first : b.last],
            key[:, :, b.first : b.last],
            value[:, :, b.first : b.last],
            attention_mask[:, :, b.first : b.last, b.first : b.last],
            **more,
        )[0]
        for b in attention_mask.blocks
    ]
    return torch.cat(parts, 1), None


AttentionInterface.register(BEFORE, _by_groups)
AttentionMaskInterface.register(BEFORE, sdpa_mask)
