"""Decoding with a cache of fixed size: every token is the same work on the same tensors, so a GPU records it once.

On a GPU a small model spends its time on launching kernels, not on arithmetic. Where every tensor keeps its place and
size, the launches of one token are recorded (a CUDA graph) and played again for each further one. Ended answers stay in
the batch, and the processor looks for them only every `LOOK` tokens, since looking means waiting for the device.

On a processor the same steps run without a recording; the tests hold them against `transformers._decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

LOOK = 16
"""Tokens between two looks at which answers have ended."""

Pick = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(logits, uniform numbers [rows, 1]) -> (tokens, log-probabilities)."""


class FixedLayer(DynamicLayer):
    """Keys and values with room for all tokens to come; the next one goes to the place that the tensor `at` holds."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, room: int, at: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self._keys, self._values = (torch.nn.functional.pad(t, (0, 0, 0, room)) for t in (keys, values))
        self.keys, self.values = self._keys, self._values  # zeros after what is there: a masked NaN would spoil a row
        self._at = at

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token for every row; returns all places, of which the mask says which are filled."""
        self._keys.index_copy_(2, self._at, key_states)
        self._values.index_copy_(2, self._at, value_states)
        return self._keys, self._values


class FixedDecoder:
    """The tokens after a prompt, one after the other, each by the same work on the same tensors."""

    def __init__(
        self,
        net: Any,
        cache: DynamicCache,
        seen: torch.Tensor,
        position: torch.Tensor,
        uniform: torch.Tensor,
        pick: Pick,
    ) -> None:
        """`cache` holds the prompts, `seen` [rows, length] which of its places count, `position` [rows] the last one.

        `uniform` [tokens, rows, 1] are the numbers that are sampled with, a line a token.
        """
        self._net, self._pick, self._uniform = net, pick, uniform
        room, rows = len(uniform), len(seen)
        length = seen.shape[1]
        device = seen.device
        self._at = torch.tensor([length - 1], device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        layers: list[Any] = list(cache.layers)
        cache.layers = [FixedLayer(layer.keys, layer.values, room, self._at) for layer in layers]
        self._cache = cache
        self._mask = torch.nn.functional.pad(seen.bool(), (0, room))[:, None, None]
        self._position = position.clone()[:, None]
        self.tokens = torch.zeros(rows, room, dtype=torch.long, device=device)
        self.logprobs = torch.zeros(rows, room, device=device)
        self._graph: Any = None

    def first(self, logits: torch.Tensor) -> None:
        """The token after the prompt, from its logits [rows, vocabulary]."""
        self._write(logits)

    def further(self) -> None:
        """One more token for every row. On a GPU the second call records it, later ones play the recording."""
        if self._mask.device.type != "cuda":
            self._advance()
        elif self._graph is None:
            self._record()
        else:
            self._graph.replay()

    def _record(self) -> None:
        """Take one step beside the main stream, so that all is set up, and record the next; it is not taken yet."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._advance()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._advance()

    def _advance(self) -> None:
        """The step itself; what it changes, it changes in place."""
        self._at += 1
        self._position += 1
        self._mask.index_fill_(3, self._at, True)
        last = self.tokens.index_select(1, self._step - 1)
        out = self._net(
            input_ids=last,
            attention_mask=self._mask,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._write(out.logits[:, -1].float())

    def _write(self, logits: torch.Tensor) -> None:
        chosen, logprob = self._pick(logits, self._uniform.index_select(0, self._step)[0])
        self.tokens.index_copy_(1, self._step, chosen[:, None])
        self.logprobs.index_copy_(1, self._step, logprob[:, None].float())
        self._step += 1


def takes_fixed(cache: DynamicCache) -> bool:
    """Whether every layer of a cache keeps all tokens; one with a window or a state cannot be fixed so."""
    return all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)


def decode_fixed(
    decoder: FixedDecoder, logits: torch.Tensor, tokens: int, stops: Sequence[int]
) -> list[tuple[list[int], float, str]]:
    """(token ids, log-probability, finish) of every row, at most `tokens` of them, after the prompt's `logits`."""
    stop = torch.tensor(list(stops), device=logits.device, dtype=torch.long)
    decoder.first(logits)
    made = 1
    while made < tokens:
        if made % LOOK == 0 and bool(torch.isin(decoder.tokens[:, :made], stop).any(1).all()):
            break
        decoder.further()
        made += 1
    ends = set(stops)
    found = []
    for ids, logprobs in zip(decoder.tokens[:, :made].tolist(), decoder.logprobs[:, :made].tolist(), strict=True):
        end = next((i + 1 for i, token in enumerate(ids) if token in ends), None)
        n = made if end is None else end
        found.append((ids[:n], sum(logprobs[:n]), "length" if end is None else "stop"))
    return found
