"""Memory and operations of a training run, estimated from shapes.

The formulas follow what PyTorch keeps for the backward pass of a transformers decoder layer. `tests/test_plan.py` holds
them against the tensors that autograd really saves and against the memory that a process really takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hafs.config import TrainConfig, override
from hafs.models.loading import pick_precision
from hafs.training.logprobs import CHUNK
from hafs.training.packing import StepRows, TokenGroup, shared_row, tokens_of
from hafs.training.shapes import Layer, Linear, Shape

NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""Bits a weight in NF4 with double quantisation: 4, an 8-bit constant every 64 weights, and a 32-bit constant every 256
of those: 4.127 (Dettmers et al. 2023, "QLoRA", section 3)."""

FRAMEWORK = {"cpu": 500 << 20, "cuda": 700 << 20}
"""Bytes of Python and its libraries, or of a CUDA context with cuBLAS's workspace."""

HEAP_BLOCK = 32 << 20
"""glibc gives blocks from this size (DEFAULT_MMAP_THRESHOLD_MAX) back to the system; smaller ones leave holes."""

HEAP_SLACK = 1.5
"""Holes in the heap on CPU, as a share of the inputs and outputs of all linear layers: measured with glibc 2.36 as 1.2
to 1.9 after three steps, with activation checkpointing as without."""

CACHE_SLACK = 0.1
"""An allowance for what CUDA's caching allocator holds beyond what is in use."""


@dataclass(frozen=True)
class Work:
    """A row: tokens, distinct labels, and the pairs of query and key that attention takes."""

    tokens: int
    labels: int
    pairs: int


class RunEstimate:
    """A model with settings and groups: the rows of an epoch, and what they take."""

    def __init__(self, shape: Shape, config: TrainConfig, groups: Sequence[TokenGroup] | None, device: str) -> None:
        self.shape, self.config, self.given, self.device = shape, config, groups, device
        self.groups = list(groups) if groups else [_longest_pair(config.max_length)]
        self.precision = pick_precision(config.precision)
        self.bytes = 2 if self.precision == "bf16" else 4
        self.full = config.method == "full"
        self.targets = [] if self.full else shape.targets(config.lora.targets)
        untied = any(x.name.rpartition(".")[2] in shape.tied for x in self.targets)
        self.parameters = shape.parameters + (shape.vocabulary * shape.hidden if untied else 0)
        self.trainable = shape.parameters if self.full else sum(map(self._adapter, self.targets))
        self.plans = list(self._steps())
        self.steps = max(1, math.ceil(len(self.plans) * config.num_epochs))
        self.longest = max(row.tokens for rows, _ in self.plans for row in rows)

    def _adapter(self, x: Linear) -> int:
        """Parameters of one layer's adapter: A and B (Hu et al. 2021), and DoRA's magnitudes (Liu et al. 2024)."""
        return self.config.lora.rank * (x.inputs + x.outputs) + (x.outputs if self.config.method == "dora" else 0)

    def _steps(self) -> Iterator[tuple[list[Work], bool]]:
        """The rows of each step of the first epoch, in the loop's order, and whether the step takes two passes."""
        config, size = self.config, self.config.batch_size * self.config.gradient_accumulation_steps
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 % 2**63)
        order = torch.randperm(len(self.groups), generator=generator).tolist()
        for first in range(0, len(order), size):
            members = [self.groups[i] for i in order[first : first + size]]
            rows = StepRows(members, config.row_tokens, config.two_pass, shared=self.shape.shared)
            yield [self._work(piece.groups) for piece in rows.of(0)], rows.split

    def _work(self, groups: Sequence[TokenGroup]) -> Work:
        if self.shape.shared:
            row = shared_row(groups)
            tokens, depths = row.input_ids.shape[1], row.positions[0].tolist()
            pairs = sum((b - a) * (depths[a] + b - a) for a, b in row.blocks)
            return Work(tokens, len(row.chosen), tokens**2 if self.shape.eager else pairs)
        labels = sum(len(c) for g in groups for c in g.candidates)
        lines = [len(g.prompt) + len(c) - 1 for g in groups for c in g.candidates]
        return Work(len(lines) * max(lines), labels, len(lines) * max(lines) ** 2)

    def data(self) -> dict[str, Any]:
        """The figures of the data."""
        if not self.given:
            return {
                "prompts": 0,
                "steps": 0,
                "rows_per_step": 0.0,
                "tokens_per_step": 0.0,
                "tokens_per_step_max": 0,
                "tokens_per_epoch": 0,
                "longest_row": self.longest,
                "pair_tokens": 0,
                "tree_tokens": 0,
            }
        tokens = [sum(row.tokens for row in rows) for rows, _ in self.plans]
        return {
            "prompts": len(self.groups),
            "steps": self.steps,
            "rows_per_step": sum(len(rows) for rows, _ in self.plans) / len(tokens),
            "tokens_per_step": sum(tokens) / len(tokens),
            "tokens_per_step_max": max(tokens),
            "tokens_per_epoch": sum(tokens),
            "longest_row": self.longest,
            "pair_tokens": sum(g.pair_tokens for g in self.groups),
            "tree_tokens": tokens_of(self.groups, self.shape.shared),
        }

    def memory(self) -> dict[str, int]:
        """Bytes at the peak by part, for the row that takes most."""
        rows = {row for rows, _ in self.plans for row in rows}
        return max((self._memory(row) for row in rows), key=lambda parts: sum(parts.values()))

    def _memory(self, row: Work) -> dict[str, int]:
        layers = [self.kept(layer, row) for layer in self.shape.layers]
        kept = sum(map(sum, layers))
        if self.config.activation_checkpointing:  # the inputs of all layers, and one layer computed anew
            stream, again = 4 if self.full else self.bytes, self.computed_again
            kept = (
                again * row.tokens * self.shape.hidden * stream + max(map(sum, layers)) + sum(map(sum, layers[again:]))
            )
        parts: dict[str, float] = {
            **self._weights(),
            "gradients": 4 * self.trainable,
            "optimizer": 8 * self.trainable,  # AdamW: two moments in float32
            "activations": kept + row.tokens * self.shape.hidden * 4 + (row.tokens**2 if self.shape.shared else 0),
            "temporaries": self._temporaries(row),
            "logits": self._logits(row),
            "framework": FRAMEWORK[self.device],
        }
        used = parts["activations"] + parts["temporaries"] + parts["logits"]
        parts["allocator"] = CACHE_SLACK * used if self.device == "cuda" else self._holes(row)
        return {name: round(size) for name, size in parts.items()}

    @property
    def computed_again(self) -> int:
        """Layers whose activations are computed twice."""
        every = len(self.shape.layers)
        return min(self.config.checkpointed_layers or every, every) if self.config.activation_checkpointing else 0

    def _holes(self, row: Work) -> float:
        """Memory that the heap holds and does not use, on CPU."""
        linears = (x for layer in self.shape.layers for x in layer.linears)
        blocks = (self.bytes * row.tokens * width for x in linears for width in (x.inputs, x.outputs))
        return HEAP_SLACK * sum(b for b in blocks if b < HEAP_BLOCK)

    def _weights(self) -> dict[str, float]:
        """The base in the run's precision or NF4, and what is trained: float32, with autocast's copies in bf16."""
        shape = self.shape
        four = shape.quantisable if self.config.quantize == "nf4" else 0
        copies = sum(x.inputs * x.outputs for x in shape.linears if not x.embedding) if self.full else self.trainable
        return {
            "base weights": 0 if self.full else four * NF4_BITS / 8 + (self.parameters - four) * self.bytes,
            "trained weights": 4 * self.trainable + (2 * copies if self.bytes == 2 else 0),
        }

    def kept(self, layer: Layer, row: Work) -> list[float]:
        """Sizes in bytes of the tensors that autograd keeps of a decoder layer until the backward pass.

        Norms work in float32 and keep their input (and, when they are trained, what they scale). Attention by blocks
        keeps query, key and value; elsewhere it keeps key and value repeated to all heads, output and the logarithms of
        its sums, too, and SDPA the mask as numbers. A gated MLP keeps gate, activated gate and up. A frozen linear
        layer keeps nothing; its adapter keeps the input (with dropout its own, and the noise), the small middle, and
        for DoRA two outputs.
        """
        shape, config, t, b = self.shape, self.config, row.tokens, self.bytes
        sizes: list[float] = [4 * t * n for n in layer.norms for _ in range(2 if self.full else 1)]
        sizes += [b * t * n for n in layer.middle]
        if self._by_blocks:
            sizes += [b * t * shape.attention, *[b * t * shape.keys] * 2]
        else:
            sizes += [*[b * t * shape.attention] * 4, 4 * t * shape.heads]
        if shape.eager:
            sizes += [(4 + b) * shape.heads * row.pairs]  # the softmax in float32 and in the run's precision
        elif config.attention != "flex" and not self._by_blocks:
            sizes += [b * row.pairs]
        mine = {x.name for x in layer.linears}
        trained = layer.linears if self.full else [x for x in self.targets if x.name in mine]
        sizes += self._inputs(trained, t)
        if not self.full:
            sizes += [b * t * config.lora.rank for _ in trained]
        if config.method == "dora":
            sizes += [b * t * x.outputs for x in trained for _ in range(2)]
        return sizes

    @property
    def _by_blocks(self) -> bool:
        """Whether attention is computed branch by branch."""
        return self.shape.shared and not self.shape.eager and self.config.attention != "flex"

    def _inputs(self, trained: Sequence[Linear], tokens: int) -> list[float]:
        """Bytes of the inputs that trained linear layers keep. Without dropout those of a block share one, unless
        autocast makes a copy for each; the attention's output is one more where attention itself does not keep it."""
        b = self.bytes
        if not self.full and self.config.lora.dropout:
            noise = 1 if self.device == "cuda" else b
            return [size * tokens * x.inputs for x in trained for size in (b, noise)]
        own = self.full and b == 2
        apart = {(x.name if own else x.block, x.closes): x for x in trained}
        if not self._by_blocks:
            apart = {k: x for k, x in apart.items() if not (x.attention and x.closes)}
        return [b * tokens * x.inputs for x in apart.values()]

    def _temporaries(self, row: Work) -> float:
        """The largest moment of one layer: gradients of the MLP's tensors, a weight out of 4 bits, DoRA's products."""
        middle = max(max(layer.middle, default=0) for layer in self.shape.layers)
        size = 4.0 * self.bytes * row.tokens * max(middle, self.shape.attention)
        if self.config.quantize == "nf4":
            size += self.bytes * max(x.inputs * x.outputs for layer in self.shape.layers for x in layer.linears)
        if self.config.method == "dora":  # an identity, B A, and the weight they are added to
            size += 4 * max(x.inputs**2 + 3 * x.inputs * x.outputs for x in self.targets)
        return size

    def _logits(self, row: Work) -> float:
        """One chunk of logits with its float32 copies, and the hidden states and slopes of all labels."""
        shape, b = self.shape, self.bytes
        chunk = min(row.labels, max(1, CHUNK // shape.vocabulary)) * shape.vocabulary
        slopes = row.labels * shape.hidden * (2 * b + 4)
        if self.full:  # gradients of logits too, and that of the whole output layer
            return chunk * (16 if b == 2 else 12) + slopes + shape.vocabulary * shape.hidden * (4 + b)
        return chunk * (12 if b == 2 else 8) + slopes

    def _forward(self, row: Work) -> float:
        """Operations of a forward pass through the layers: 2 a weight and token, and attention's two products."""
        weights = sum(layer.active for layer in self.shape.layers)
        return 2 * row.tokens * weights + 4 * row.pairs * self.shape.attention * len(self.shape.layers)

    def _head(self, row: Work) -> float:
        return 2.0 * row.labels * self.shape.hidden * self.shape.vocabulary

    def layer_flops(self, row: Work, two_pass: bool) -> float:
        """Operations of a row's layers, forward and backward.

        Backward costs a frozen weight as much as forward, a trained one twice that (Kaplan et al. 2020, section 2.1);
        attention 2.5 times (Dao 2023, "FlashAttention-2", section 4.1).
        """
        forward, weights = self._forward(row), sum(layer.active for layer in self.shape.layers)
        attention = 4 * row.pairs * self.shape.attention * len(self.shape.layers)
        adapter = 0.0 if self.full else 2.0 * row.tokens * self.trainable
        if self.config.method == "dora":  # a second product with the weight, and B A itself
            adapter += 2 * row.tokens * weights
            adapter += sum(self.config.lora.rank * 2 * x.inputs * (x.inputs + x.outputs) for x in self.targets)
        backward = 2 * row.tokens * weights * (2 if self.full else 1) + 2.5 * attention + 2 * adapter
        again = self.computed_again / len(self.shape.layers) + (1 if two_pass else 0)
        return (1 + again) * (forward + adapter) + backward

    def head_flops(self, row: Work, two_pass: bool) -> float:
        """Operations of the output layer for a row, forward and backward."""
        return self._head(row) * ((4 if self.full else 2) + (1 if two_pass else 0))

    def step_flops(self) -> float:
        """Operations of a step, on average over an epoch."""
        each = (self.layer_flops(row, two) + self.head_flops(row, two) for rows, two in self.plans for row in rows)
        return sum(each) / len(self.plans)

    def reference_flops(self) -> float:
        """Operations of one forward pass over all groups."""
        return sum(self._forward(row) + self._head(row) for rows, _ in self.plans for row in rows)

    def with_settings(self, groups: Sequence[TokenGroup] | None, **settings: Any) -> RunEstimate:
        """The same run with other settings and groups."""
        return RunEstimate(self.shape, override(self.config, **settings), groups, self.device)

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory().values())


def _longest_pair(max_length: int) -> TokenGroup:
    """Two candidates as long as `max_length` lets them be after a prompt of half of it."""
    prompt = max_length // 2
    return TokenGroup((0,) * prompt, ((0,) * (max_length - prompt), (1,) * (max_length - prompt)))
