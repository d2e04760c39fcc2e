"""Answers from Anthropic's models: `anthropic:claude-…`.

They tell no log-probabilities, take no seed, and sample as they like: the interface has no temperature and no top_p.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from hafs.backends import Answer, Capabilities, Request
from hafs.backends.remote import Refused, ask_all, failure, plan, sdk
from hafs.config import GenerateConfig
from hafs.errors import UsageError
from hafs.models.chat import whole
from hafs.types import content_id

FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class AnthropicBackend:
    """A model of Anthropic's, asked through the official SDK (key: $ANTHROPIC_API_KEY)."""

    capabilities = Capabilities(n=False, logprobs=False, seed=False, batch=False)

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        self._sdk = sdk("anthropic")
        if not name:
            raise UsageError("anthropic: names no model", "give anthropic:MODEL")
        if not os.environ.get("ANTHROPIC_API_KEY"):
            raise UsageError("Anthropic's models need a key", "export ANTHROPIC_API_KEY=…")
        self._client = self._sdk.Anthropic(timeout=timeout)
        self._model, self.name = name, f"anthropic:{name}"
        self.model = content_id("anthropic", name)

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """The requests as they come, one answer each, in batches of `config.batch_size`."""
        return plan(requests, config)

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """An answer to each request of the batch; raises Unanswered when some got none."""
        client = self._client.with_options(max_retries=config.retries)
        return ask_all(batch, config, lambda request: self._ask(client, request, config))

    def _ask(self, client: Any, request: Request, config: GenerateConfig) -> Answer:
        more = {"system": whole(request.system)} if request.system else {}
        try:
            reply = client.messages.create(
                model=self._model,
                max_tokens=config.max_new_tokens,
                **more,
                messages=[{"role": "user", "content": whole(request.text)}],
            )
        except self._sdk.APIError as e:
            raise failure(self._sdk, e, "Anthropic", self._model, "ANTHROPIC_API_KEY") from e
        except ValueError as e:
            raise Refused(f"the answer could not be read: {e}") from e
        if getattr(reply, "content", None) is None or reply.stop_reason == "refusal":
            raise Refused(f"the model refused ({getattr(reply, 'stop_reason', 'no answer')})")
        text = "".join(block.text for block in reply.content if block.type == "text")
        finish = FINISH.get(reply.stop_reason, reply.stop_reason or "")
        return Answer(request.key, request.index, text, (), None, finish, reply.usage.output_tokens)
