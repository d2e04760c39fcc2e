"""Tensors that several processes hold parts of (FSDP), made whole for a checkpoint and parted again from one.

A checkpoint thus knows nothing of how many processes wrote it. Everything here is the identity for plain tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether a process holds only a part of them."""
    return any(isinstance(t, DTensor) for t in tensors)


def whole(value: Any) -> Any:
    """`value` with every sharded tensor in it gathered; all processes must call this alike."""
    if isinstance(value, dict):
        return {k: whole(v) for k, v in value.items()}
    if isinstance(value, list):
        return [whole(v) for v in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(full: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """A whole tensor parted as `model` is."""
    if isinstance(model, DTensor):
        return distribute_tensor(full.to(model.device), model.device_mesh, model.placements)
    return full


def like_parameters(state: dict[str, Any], parameters: Sequence[torch.Tensor]) -> dict[str, Any]:
    """An optimiser's state dictionary with each tensor of a parameter's size parted as that parameter is."""
    parted = {
        i: {
            k: like(v, parameters[i]) if torch.is_tensor(v) and v.shape == parameters[i].shape else v
            for k, v in entries.items()
        }
        for i, entries in state["state"].items()
    }
    return {**state, "state": parted}


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number that this process holds of them is one; a single wait for the device."""
    parts = [(t.to_local() if isinstance(t, DTensor) else t).detach() for t in tensors]
    parts = [t for t in parts if t.numel()]
    if not parts:
        return True
    norms = torch._foreach_norm(parts, ord=float("inf"))  # the largest number, so that nothing overflows
    return bool(torch.stack([n.float().to(norms[0].device) for n in norms]).isfinite().all())
