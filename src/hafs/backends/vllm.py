"""Answers from vLLM in this process: `vllm:DIR` (extra `vllm`, a GPU). No test of ours has run this file: no machine
of ours has vLLM. Where it fails, `vllm serve DIR` and `openai:http://127.0.0.1:8000/v1` take its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hafs.backends import Answer, Capabilities, Request
from hafs.backends.remote import seed_of
from hafs.config import GenerateConfig
from hafs.errors import MissingTool
from hafs.models.chat import decode_answer, encode_prompt, stop_ids
from hafs.models.loading import generation_config, load_tokenizer
from hafs.models.naming import model_hash, resolve


class VllmBackend:
    """A transformers model run by vLLM: prompts are tokenised here, so training and sampling see the same ids."""

    capabilities = Capabilities(n=True, logprobs=True, seed=True, batch=False)

    def __init__(self, name: str) -> None:
        try:
            import vllm
        except ImportError as e:
            raise MissingTool("vllm: needs the package vllm and a GPU", "pip install vllm") from e
        path = resolve(name)
        self.name, self.model = f"vllm:{name}", model_hash(path)
        self.tokenizer: Any = load_tokenizer(path)
        self._vllm: Any = vllm
        self._llm: Any = vllm.LLM(model=str(path))
        self._generation = generation_config(path)

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """Batches of at most `config.batch_size` requests; vLLM schedules inside them."""
        return [list(requests[i : i + config.batch_size]) for i in range(0, len(requests), config.batch_size)]

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """Sample `n` answers for each request of the batch."""
        prompts = [{"prompt_token_ids": encode_prompt(self.tokenizer, r.text, r.system)} for r in batch]
        stops = stop_ids(self.tokenizer, self._generation)
        params = [
            self._vllm.SamplingParams(
                n=r.n,
                temperature=config.temperature,
                top_p=config.top_p,
                max_tokens=config.max_new_tokens,
                seed=seed_of(r, config),
                logprobs=0,
                stop_token_ids=stops,
            )
            for r in batch
        ]
        found = self._llm.generate(prompts, params, use_tqdm=False)
        return [
            Answer(
                r.key,
                r.index + i,
                decode_answer(self.tokenizer, one.token_ids),
                tuple(one.token_ids),
                one.cumulative_logprob,
                one.finish_reason or "",
            )
            for r, out in zip(batch, found, strict=True)
            for i, one in enumerate(out.outputs)
        ]
