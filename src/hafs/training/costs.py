"""The cost of each stage of training in operations and bytes, and which of the machine's two limits it meets first.

A stage cannot take less time than its operations at the speed of a lone matrix product, nor less than its bytes at the
speed of a copy. The formulas count what has to move once: weights for every row and pass, the inputs and outputs of the
linear layers, logits in the precisions they go through, AdamW's states.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from hafs.training.estimate import RunEstimate, Work
from hafs.training.logprobs import CHUNK


@dataclass(frozen=True)
class MachineLimits:
    """Operations a second of a matrix product of the model's sizes, and bytes a second of a copy."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class StageCost:
    """What a stage takes in operations and bytes: the reference of the whole run, the others of an average step."""

    stage: str
    flops: float
    bytes: float

    def seconds(self, limits: MachineLimits) -> float:
        """The least time that it can take."""
        return max(self.flops / limits.flops, self.bytes / limits.bytes)

    def bound(self, limits: MachineLimits) -> str:
        """The limit that it meets first."""
        return "arithmetic" if self.flops / limits.flops >= self.bytes / limits.bytes else "memory"

    def to_dict(self, limits: MachineLimits | None) -> dict[str, Any]:
        """The stage as JSON; without a machine there is no time."""
        more = {"seconds": self.seconds(limits), "limit": self.bound(limits)} if limits else {}
        return {"stage": self.stage, "flops": self.flops, "bytes": self.bytes, **more}


def stage_costs(run: RunEstimate, uses_reference: bool) -> tuple[StageCost, ...]:
    """The stages of a run: the reference's pass, then what an average step is made of."""
    return tuple(_stages(run, uses_reference))


def _stages(run: RunEstimate, uses_reference: bool) -> Iterator[StageCost]:
    if uses_reference:
        rows = [row for rows, _ in run.plans for row in rows]
        moved = sum(_through_layers(run, row) + _through_head(run, row) for row in rows)
        yield StageCost("reference, whole run", run.reference_flops(), moved)
    steps = len(run.plans)
    work = [(row, two) for rows, two in run.plans for row in rows]
    flops = sum(run.layer_flops(row, two) for row, two in work) / steps
    passes = 2 + run.computed_again / len(run.shape.layers)
    moved = sum(_through_layers(run, row) * (passes + (1 if two else 0)) for row, two in work) / steps
    yield StageCost("layers, forward and backward", flops, moved + 4 * run.trainable * len(work) / steps)
    flops = sum(run.head_flops(row, two) for row, two in work) / steps
    yield StageCost(
        "output layer", flops, sum(_through_head(run, row) * (2 if two else 1) for row, two in work) / steps
    )
    yield StageCost("optimiser", 12.0 * run.trainable, 28.0 * run.trainable)


def _through_layers(run: RunEstimate, row: Work) -> float:
    """Bytes of one pass of a row: the layers' weights once, inputs and outputs of the linear ones."""
    each = [x for layer in run.shape.layers for x in layer.linears]
    weights = (
        sum(layer.active for layer in run.shape.layers) * run.bytes * (0.26 if run.config.quantize == "nf4" else 1)
    )
    return weights + run.bytes * row.tokens * sum(x.inputs + x.outputs for x in each)


def _through_head(run: RunEstimate, row: Work) -> float:
    """Bytes of the output layer for a row: its weights twice a chunk, and logits as they are made, as float32, as
    shares."""
    words, width, b = run.shape.vocabulary, run.shape.hidden, run.bytes
    chunks = -(-row.labels * words // CHUNK)
    return 2.0 * chunks * words * width * b + row.labels * words * (2 * b + 8)


def copy_speed(device: str, size: int = 1 << 26) -> float:
    """Bytes a second that a copy reads and writes on this machine, the best of a few."""
    source = torch.empty(size, dtype=torch.uint8, device=device).fill_(1)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size / (time.perf_counter() - began))
    return best
