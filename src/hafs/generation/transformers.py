"""Answers from a transformers model in this process: shared prompt prefix, finished rows leave the batch.

`model.generate` keeps every row until the longest ends and computes a prompt once per answer. Here each unique prompt
is computed once, its key-value cache repeated for the answers wanted, and rows are dropped as they finish.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from hafs.backends import Answer, Capabilities, Request, Unanswered
from hafs.config import GenerateConfig
from hafs.errors import UsageError
from hafs.generation.static import FixedDecoder, Pick, decode_fixed, takes_fixed
from hafs.models.chat import TemplateRefuses, check_rows, encode_messages, read_answer, stop_ids
from hafs.models.loading import load_model, load_shape, load_tokenizer
from hafs.models.naming import model_hash, resolve
from hafs.types import content_id


class TransformersBackend:
    """Generates with a model loaded once; `TransformersBackend.of(model, tokenizer)` wraps one that is loaded."""

    capabilities = Capabilities(n=True, logprobs=True, seed=True, batch=True)

    def __init__(self, name: str, precision: str = "auto", weights: bool = True) -> None:
        """Load the model called `name`; without `weights` it only plans, and others generate."""
        path = resolve(name)
        self.name, self.model = name, model_hash(path)
        self.tokenizer: Any = load_tokenizer(path)
        self._net: Any = load_model(path, precision) if weights else load_shape(path)
        self._net.eval()
        self._adapters: list[str] = []
        self._refusals: dict[Request, TemplateRefuses] = {}

    @classmethod
    def of(cls, net: Any, tokenizer: Any, name: str = "in memory", model: str = "") -> TransformersBackend:
        """A backend around a model in memory (a model in training); the caller sets eval mode."""
        self = cls.__new__(cls)
        self.name, self.model, self.tokenizer, self._net, self._adapters = name, model, tokenizer, net, []
        self._refusals = {}
        return self

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """Batches of at most `config.batch_size` answers, prompts of like length together, longest first.

        Raises UsageError when a prompt and its answer may be longer than what the model was made for.
        """
        lengths = {r: len(self._encoded(r, config) or ()) for r in requests}
        ordered = sorted(requests, key=lambda r: (-lengths[r], r.text))
        self._check_length(lengths[ordered[0]] + config.max_new_tokens if ordered else 0, config)
        batches: list[list[Request]] = []
        size = config.batch_size
        for request in ordered:
            if batches and sum(r.n for r in batches[-1]) + request.n <= size:
                batches[-1].append(request)
            else:
                batches.append([request])
        return batches

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """Sample `n` answers for each request of the batch (greedy when the temperature is 0).

        Raises Unanswered, with the answers to the others, when the chat template does not take some.
        """
        encoded = [(r, self._encoded(r, config)) for r in batch]
        batch = [r for r, ids in encoded if ids is not None]
        made = self._answers(batch, [ids for _, ids in encoded if ids is not None], config) if batch else []
        if refused := [r for r, ids in encoded if ids is None]:
            first = self._refusals[refused[0]]
            failed = Counter[str]()
            for request in refused:
                failed[str(self._refusals[request])] += request.n
            raise Unanswered(str(first), first.fix, answers=made, failed=failed, refused=True)
        return made

    def _encoded(self, request: Request, config: GenerateConfig) -> list[int] | None:
        """The prompt's token ids; None, and the reason kept, where the chat template does not take it."""
        try:
            ids = encode_messages(self.tokenizer, request.messages(), json.loads(request.tools), config.thinking)
        except TemplateRefuses as e:
            self._refusals[request] = e
            return None
        check_rows(self.tokenizer, ids, self._net.get_input_embeddings().weight.shape[0])
        return ids

    def _answers(
        self, batch: Sequence[Request], prompts: Sequence[Sequence[int]], config: GenerateConfig
    ) -> list[Answer]:
        own = [seed for r in batch for seed in _own_seeds(r)]
        seeds = own if len(own) == sum(r.n for r in batch) else []
        rows = self.decode(prompts, [r.n for r in batch], config, seeds, _seed_of(batch, config))
        asked = [(request, request.index + i) for request in batch for i in range(request.n)]
        return [
            self._answer(request.key, index, ids, logprob, finish, config)
            for (request, index), (ids, logprob, finish) in zip(asked, rows, strict=True)
        ]

    def _answer(
        self, key: str, index: int, ids: Sequence[int], logprob: float, finish: str, config: GenerateConfig
    ) -> Answer:
        said = read_answer(self.tokenizer, ids, config.thinking)
        n = len(self.tokenizer(said.text, add_special_tokens=False)["input_ids"]) + 1 if said.thought else None
        return Answer(key, index, said.text, tuple(ids), logprob, finish, n, thought=said.thought)

    @torch.no_grad()
    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        counts: Sequence[int],
        config: GenerateConfig,
        seeds: Sequence[int] = (),
        seed: int = 0,
        watch: Watch | None = None,
        adapter: str = "",
    ) -> list[tuple[list[int], float, str]]:
        """(token ids, log-probability, finish) of each answer, `counts[i]` of them for the token ids `prompts[i]`.

        With `seeds`, one a row, a row's random numbers are its own; else all rows draw from `seed` in turn. `watch` is
        told every token as it comes and may end its row. `adapter` is one that was loaded, or none.
        """
        draw = _drawer(next(self._net.parameters()).device, config, seeds, seed)
        if not self._adapters:
            return _decode(self._net, prompts, counts, self.stops(), config, draw, watch)
        self._net.set_adapter(adapter or self._adapters[0])
        with nullcontext() if adapter else self._net.disable_adapter():
            return _decode(self._net, prompts, counts, self.stops(), config, draw, watch)

    def load_adapter(self, name: str, path: Path) -> None:
        """Have the adapter in `path` (PEFT's form) at hand as `name`, beside the model as it is.

        Raises UsageError when there is none that fits. Not while another thread decodes.
        """
        from peft import PeftConfig, PeftModel
        from safetensors import SafetensorError

        try:
            config = PeftConfig.from_pretrained(str(path))
            config.inference_mode = True
            if not self._adapters:
                self._net = PeftModel(self._net, config, adapter_name=name)
            self._adapters.append(name)
            self._net.load_adapter(str(path), adapter_name=name)
        except Exception as e:
            if name in self._adapters:
                self.unload_adapter(name)
            if not isinstance(e, OSError | ValueError | RuntimeError | KeyError | SafetensorError):
                raise
            reason = str(e).splitlines()[0] if str(e) else type(e).__name__
            raise UsageError(f"{path} holds no adapter for {self.name}: {reason}", "check the path and the base") from e
        self._net.eval()

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Not while another thread decodes."""
        self._adapters.remove(name)
        if self._adapters:
            self._net.set_adapter(self._adapters[0])
            if name in self._net.peft_config:  # it is not where loading failed
                self._net.delete_adapter(name)
        else:
            self._net = self._net.unload()

    @property
    def limit(self) -> int | None:
        """The tokens of prompt and answer together that the model was made for, where it says so."""
        return getattr(self._net.config, "max_position_embeddings", None)

    def _check_length(self, tokens: int, config: GenerateConfig) -> None:
        limit = self.limit
        if limit is not None and tokens > limit:
            raise UsageError(
                f"the longest prompt ({tokens - config.max_new_tokens} tokens) and {config.max_new_tokens} new tokens"
                f" are more than the {limit} tokens that {self.name} was made for",
                "leave long prompts out, or lower max_new_tokens",
            )

    def stops(self) -> list[int]:
        """The token ids that end an answer."""
        return stop_ids(self.tokenizer, getattr(self._net, "generation_config", None))


def _seed_of(batch: Sequence[Request], config: GenerateConfig) -> int:
    """A seed of the batch's own content, so a batch samples alike whatever was generated before it."""
    content = [[r.text, r.system, r.n, *_more(r)] for r in batch]
    return int(content_id("sampling", config.seed, content)[:15], 16)


def _more(request: Request) -> list[str]:
    """The conversation and the tools of a request that has them."""
    return [] if (request.context, request.tools) == ("[]", "[]") else [request.context, request.tools]


Draw = Callable[[Sequence[int], int], torch.Tensor]
"""The uniform numbers [rows, 1] that these rows sample with at this step."""

Watch = Callable[[int, int, float], bool]
"""Told (row, token, log-probability) of every token as it is sampled; True ends the row there."""


def _own_seeds(request: Request) -> list[int]:
    """A seed for each answer of a request that has its own; else nothing."""
    if request.seed is None:
        return []
    return [int(content_id("row", request.seed, request.index + i)[:15], 16) for i in range(request.n)]


def _drawer(device: torch.device, config: GenerateConfig, seeds: Sequence[int], seed: int) -> Draw:
    """Random numbers for a batch: every row's from its own seed, or all in turn from one."""
    if not seeds:
        generator = torch.Generator(device=device).manual_seed(seed)
        return lambda rows, step: torch.rand(len(rows), 1, generator=generator, device=device)
    own = [torch.Generator().manual_seed(s) for s in seeds]
    table = torch.stack([torch.rand(config.max_new_tokens, generator=g) for g in own]).to(device)
    return lambda rows, step: table[list(rows), step : step + 1]


def _decode(
    net: Any,
    prompts: Sequence[Sequence[int]],
    counts: Sequence[int],
    stops: Sequence[int],
    config: GenerateConfig,
    draw: Draw,
    watch: Watch | None = None,
) -> list[tuple[list[int], float, str]]:
    """(token ids, log-probability, finish) of each answer, `counts[i]` answers for `prompts[i]` in order."""
    cache, logits, mask, position = _read_prompts(net, prompts, counts, config.max_new_tokens)
    if config.cache == "fixed" and watch is None and _takes_fixed(net, cache):
        uniform = torch.stack([draw(range(len(mask)), step) for step in range(config.max_new_tokens)])
        pick: Pick = lambda x, numbers: _sample(x, config, lambda rows, step: numbers, (), 0)  # noqa: E731
        decoder = FixedDecoder(net, cache, mask, position, uniform, pick)
        return decode_fixed(decoder, logits, config.max_new_tokens, stops)
    device, rows = logits.device, len(mask)
    stop = torch.tensor(list(stops), device=device)
    present = list(range(rows))  # the answers that go on
    tokens: list[list[int]] = [[] for _ in present]
    logprobs, finish = [0.0] * len(present), ["length"] * len(present)
    for step in range(config.max_new_tokens):
        chosen, chosen_logprob = _sample(logits, config, draw, present, step)
        ended = torch.isin(chosen, stop).tolist()
        for row, token, lp, end in zip(present, chosen.tolist(), chosen_logprob.tolist(), ended, strict=True):
            if finish[row] == "stop":
                continue
            tokens[row].append(token)
            logprobs[row] += lp
            finish[row] = "stop" if (watch is not None and watch(row, token, lp)) or end else "length"
        going = [i for i, row in enumerate(present) if finish[row] != "stop"]
        if not going or step + 1 == config.max_new_tokens:
            break
        if len(going) <= KEEP_UNTIL * len(present):
            keep = torch.tensor(going, device=device)
            present = [present[i] for i in keep.tolist()]
            cache.batch_select_indices(keep)
            mask, position, chosen = mask[keep], position[keep], chosen[keep]
        position = position + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        out = net(
            input_ids=chosen[:, None],
            attention_mask=mask,
            position_ids=position[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits = out.logits[:, -1].float()
    return list(zip(tokens, logprobs, finish, strict=True))


def _read_prompts(
    net: Any, prompts: Sequence[Sequence[int]], counts: Sequence[int], room: int
) -> tuple[DynamicCache, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(cache, logits after the prompt, places that count, last position) of each answer wanted.

    What all prompts begin with is computed once, and its cache repeated for each of them. The rest of the prompts is
    padded on the left, computed once, and the cache repeated `counts[i]` times.
    """
    device = next(net.parameters()).device
    cache = _cache_with_room(net.config, room)
    shared = _shared_tokens(prompts, cache)
    if shared:
        ids = torch.tensor([list(prompts[0][:shared])], device=device)
        net(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(torch.zeros(len(prompts), dtype=torch.long, device=device))
    rest = [list(p[shared:]) for p in prompts]
    width = max(map(len, rest))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in rest], device=device)
    seen = [[1] * shared + [0] * (width - len(p)) + [1] * len(p) for p in rest]
    mask = torch.tensor(seen, device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
    first = net(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    repeat = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor(counts)).to(device)
    cache.batch_select_indices(repeat)
    return cache, first.logits[repeat, -1].float(), mask[repeat], positions[repeat, -1]


def _takes_fixed(net: Any, cache: DynamicCache) -> bool:
    """Whether the model may decode with a cache of fixed size: it takes a mask of places, and keeps every token."""
    attention = net.config._attn_implementation
    return takes_fixed(cache) and attention not in ("eager", "flex_attention")


def _shared_tokens(prompts: Sequence[Sequence[int]], cache: DynamicCache) -> int:
    """How many tokens all prompts begin with and are worth a pass of their own; each prompt keeps one of its own.

    None where a layer keeps a window or a state: the padding between the two parts would count in it as tokens.
    """
    if not all(isinstance(layer, _RoomyLayer) for layer in cache.layers):
        return 0
    ordered = sorted(map(list, prompts))
    first, last = ordered[0], ordered[-1]  # in their order these two have least in common
    most = min(map(len, prompts)) - 1
    shared = next((i for i in range(most) if first[i] != last[i]), most)
    return shared if shared * (len(prompts) - 1) >= WORTH_A_PASS else 0


WORTH_A_PASS = 64
"""Tokens that must be saved for a pass over what all prompts begin with."""

KEEP_UNTIL = 0.875
"""Ended answers leave the batch once at most this share of its rows goes on: leaving copies the cache."""


class _RoomyLayer(DynamicLayer):
    """A layer's keys and values in tensors that have room for the tokens to come.

    A DynamicLayer copies all of itself for every token, which took most of the decoding time on a CPU.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._buffers: list[torch.Tensor] = []

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if not self._buffers or after > self._buffers[0].shape[-2]:
            old = self._buffers
            self._buffers = [
                s.new_empty(*s.shape[:2], after + self._room, s.shape[-1]) for s in (key_states, value_states)
            ]
            for new, full in zip(self._buffers, old, strict=False):
                new[:, :, :before] = full[:, :, :before]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, before:after] = states
        self.keys, self.values = (buffer[:, :, :after] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        if length:
            old, self._buffers = self._buffers, []
            for buffer in old:
                new = buffer.new_empty(len(indices), *buffer.shape[1:])
                new[:, :, :length] = buffer[indices, :, :length]
                self._buffers.append(new)
            self.keys, self.values = (buffer[:, :, :length] for buffer in self._buffers)


def _cache_with_room(config: Any, tokens: int) -> DynamicCache:
    """The model's own kind of cache; layers that keep everything get room for `tokens` more."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _sample(
    logits: torch.Tensor, config: GenerateConfig, draw: Draw, rows: Sequence[int], step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token for each row of `logits` [rows, vocabulary], and its log-probability at temperature 1 (nats)."""
    probs = torch.softmax(logits if config.temperature in (0, 1) else logits / config.temperature, -1)
    plain = probs
    if config.temperature == 0:
        chosen = logits.argmax(-1)
    else:
        if config.top_p < 1:
            sorted_probs, order = probs.sort(-1, descending=True)
            outside = sorted_probs.cumsum(-1) - sorted_probs >= config.top_p
            probs = torch.zeros_like(probs).scatter(-1, order, sorted_probs.masked_fill(outside, 0.0))
        # One uniform number a row through the inverse of the cumulative distribution: torch.multinomial draws one
        # for every word of the vocabulary, which took 40 % of the decoding time on a CPU.
        cumulative = probs.cumsum(-1)
        at = draw(rows, step) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, at, right=True)[:, 0].clamp(max=probs.shape[-1] - 1)
    if config.temperature not in (0, 1):  # what is likely at another temperature may be too unlikely to write at 1
        return chosen, logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
    likelihood = plain.gather(-1, chosen[:, None])[:, 0]  # half the time of a logsumexp
    return chosen, likelihood.clamp(min=torch.finfo(likelihood.dtype).tiny).log()
