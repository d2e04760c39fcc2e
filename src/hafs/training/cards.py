"""Which models train on which card: the planner's answer for common sizes, and the command to type.

An answer is as long with its prompt as the heading says. The row is one answer with its prompt (two-pass), so the
number of answers does not matter; the adapter has rank 32 on every linear layer. Activations that do not fit are
computed twice. `hafs doctor --cards` prints the table, `python docs/cards.py` writes docs/cards.md from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from hafs.config import DPOConfig
from hafs.training.estimate import RunEstimate
from hafs.training.packing import TokenGroup
from hafs.training.shapes import Shape, on_meta

CARDS = (8, 12, 16, 24, 48, 80)
"""GB (10^9 bytes) of common cards; what the system keeps of them is not in the figure."""

LENGTHS = (512, 2048, 8192)
METHODS = {"LoRA bf16": "none", "QLoRA": "nf4"}

_QWEN = {
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
    "14B": (5120, 13824, 48, 40, 8, 152064, False),
    "32B": (5120, 27648, 64, 40, 8, 152064, False),
}
"""The sizes of Qwen2.5: width, inner width, layers, heads, key heads, vocabulary, one matrix for both ends."""

MODELS = tuple(_QWEN)


@dataclass(frozen=True)
class Fit:
    """What training one model by one method at one length takes: bytes with activations kept, and computed twice."""

    model: str
    method: str
    tokens: int
    kept: int
    again: int

    def command(self, available: int) -> str:
        """What to type for a card of so many bytes; nothing where it does not fit."""
        if min(self.kept, self.again) > available:
            return ""
        flags = ["--quantize nf4"] if METHODS[self.method] == "nf4" else []
        flags += ["--activation-checkpointing"] if self.kept > available else []
        lengths = f"--two-pass --row-tokens {self.tokens} --max-length {self.tokens}"
        return " ".join(["hafs train dpo --sft-model MODEL", *flags, lengths])

    def word(self, available: int) -> str:
        """Whether it fits on a card of so many bytes: yes, computed twice, or what it would need (GB)."""
        if self.kept <= available:
            return f"yes, {self.kept / 1e9:.1f}"
        return f"twice, {self.again / 1e9:.1f}" if self.again <= available else f"no: {self.again / 1e9:.1f}"

    def to_dict(self, available: int) -> dict[str, Any]:
        """The row as JSON for a card of so many bytes."""
        return {**asdict(self), "fits": bool(self.command(available)), "command": self.command(available)}


@cache
def shape_of(model: str) -> Shape:
    """The shapes of one of `MODELS`."""
    from transformers import AutoConfig

    width, inner, layers, heads, keys, words, tied = _QWEN[model]
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        vocab_size=words,
        tie_word_embeddings=tied,
    )
    return Shape.of(on_meta(config))


@cache
def fits() -> tuple[Fit, ...]:
    """Every model by every method at every length."""
    return tuple(_fit(m, method, n) for m in MODELS for method in METHODS for n in LENGTHS)


def _fit(model: str, method: str, tokens: int) -> Fit:
    settings = {"precision": "bf16", "quantize": METHODS[method], "two_pass": True}
    config = DPOConfig.model_validate({**settings, "row_tokens": tokens, "max_length": tokens})
    prompt = tokens // 4
    row = [TokenGroup((0,) * prompt, ((1,) * (tokens - prompt),))]
    peaks = [
        RunEstimate(shape_of(model), config.model_copy(update={"activation_checkpointing": again}), row, "cuda").peak
        for again in (False, True)
    ]
    return Fit(model, method, tokens, *peaks)


def rows_of(available: int) -> list[Fit]:
    """For a card of so many bytes: of every method and length the largest model that fits."""
    found = []
    for method in METHODS:
        for tokens in LENGTHS:
            mine = [f for f in fits() if (f.method, f.tokens) == (method, tokens) and f.command(available)]
            found += mine[-1:]
    return found


def largest(available: int) -> Iterator[tuple[str, str, str]]:
    """For a card of so many bytes (method, the largest models that fit in words, the command for the last of them)."""
    for method in METHODS:
        mine = [f for f in rows_of(available) if f.method == method]
        sizes = ", ".join(f"{f.model} at {f.tokens:,} tokens" for f in mine)
        yield method, sizes or "no model of 1.5B or more", mine[-1].command(available) if mine else ""


def table(cards: Sequence[int] = CARDS) -> Iterator[str]:
    """The whole table in Markdown, one for each length, then the commands."""
    for tokens in LENGTHS:
        yield f"## {tokens:,} tokens"
        yield ""
        yield "| model | method | " + " | ".join(f"{c} GB" for c in cards) + " |"
        yield "| --- | --- |" + " --- |" * len(cards)
        for f in fits():
            if f.tokens == tokens:
                yield f"| {f.model} | {f.method} | " + " | ".join(f.word(c * 10**9) for c in cards) + " |"
        yield ""
        yield from _commands(tokens, cards)
        yield ""


def _commands(tokens: int, cards: Sequence[int]) -> Iterator[str]:
    """What to type where the table says yes, or twice."""
    said = {}
    for f in (f for f in fits() if f.tokens == tokens):
        for size in (c * 10**9 for c in cards):
            if command := f.command(size):
                said[f.method, f.word(size).partition(",")[0]] = command
    yield "```"
    for (method, word), command in sorted(said.items()):
        yield f"# {method}, {word}"
        yield command
    yield "```"
