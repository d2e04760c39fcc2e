"""A reward model as a scorer: `reward:PATH`, any sequence-classification checkpoint with one output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hafs.errors import UsageError
from hafs.models.chat import encode_answer, encode_prompt
from hafs.models.loading import load_tokenizer, pick_precision
from hafs.models.naming import model_hash, resolve
from hafs.types import Candidate, Prompt, Score

TOKENS = 4096
"""Tokens of one forward pass, padding included."""


class RewardScorer:
    """Scores a candidate by a reward model: the key is its scalar, the value σ of it.

    `arguments` hold the model's content hash. An answer longer than the model takes is unscored.
    """

    name = "reward"
    version = "1"
    accelerated = True
    """It is a model: a worker takes an accelerator for it where there are any."""

    def __init__(self, argument: str = "", **_: Any) -> None:
        """`argument` is its path. Raises UsageError when no sequence-classification model with one output is there."""
        import torch
        from transformers import AutoModelForSequenceClassification

        if not argument:
            raise UsageError("the scorer `reward` needs a reward model", "name it reward:PATH")
        inside = Path(argument) / "model"  # of a run of `hafs train reward`
        where = Path(resolve(str(inside) if inside.is_dir() else argument))
        self.arguments: Mapping[str, Any] = {"model": model_hash(where)}
        self._tokenizer = load_tokenizer(where)
        dtype = torch.bfloat16 if pick_precision() == "bf16" else torch.float32
        try:
            self._net, info = AutoModelForSequenceClassification.from_pretrained(
                str(where), dtype=dtype, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as e:
            raise UsageError(f"no reward model could be loaded from {argument}: {e}", "`hafs train reward`") from e
        if info["missing_keys"] or self._net.config.num_labels != 1:
            raise UsageError(f"{argument} is no reward model: it has no scalar head", "`hafs train reward` makes one")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._net = self._net.to(device).eval()
        self._limit = getattr(self._net.config, "max_position_embeddings", None)

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in the order of the items; items of like length are computed together."""
        encoded = [
            [
                *encode_prompt(self._tokenizer, p.text, p.system, p.context, p.tools),
                *encode_answer(self._tokenizer, c.text, end=c.finish != "length"),
            ]
            for p, c in items
        ]
        rewards = self._rewards(encoded)
        for (_, candidate), reward in zip(items, rewards, strict=True):
            if reward is None:
                why = f"longer than the {self._limit} tokens that the reward model takes"
                yield Score(candidate.id, self.name, self.version, self.arguments, reason=why)
            else:
                yield Score(candidate.id, self.name, self.version, self.arguments, _sigmoid(reward), key=(reward,))

    def close(self) -> None:
        """Nothing is held beside memory."""

    def _rewards(self, encoded: Sequence[Sequence[int]]) -> list[float | None]:
        fits = [i for i, ids in enumerate(encoded) if self._limit is None or len(ids) <= self._limit]
        found: list[float | None] = [None] * len(encoded)
        order = sorted(fits, key=lambda i: -len(encoded[i]))
        while order:
            size = max(1, TOKENS // len(encoded[order[0]]))
            batch, order = order[:size], order[size:]
            for i, reward in zip(batch, self._forward([encoded[i] for i in batch]), strict=True):
                found[i] = reward
        return found

    def _forward(self, batch: Sequence[Sequence[int]]) -> list[float]:
        import torch

        pad, width = self._net.config.pad_token_id, max(map(len, batch))
        device = self._net.device
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=device)
        with torch.no_grad():
            return self._net(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()


def _sigmoid(x: float) -> float:
    from math import exp

    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
