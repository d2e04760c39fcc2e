"""A Claude model through the `anthropic` SDK.

It tells no log-probabilities and takes no seed; newer models sample as they like and take no temperature, which is why
none is sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hafs.errors import MissingTool, UsageError
from hafs.servers.address import ANTHROPIC, check_clear, mask, port_of
from hafs.servers.client import GREEDY, Messages, Reply, Sampling, attempt, clean, count, member
from hafs.servers.errors import CallFailed

STOPS = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refusal"}


class AnthropicClient:
    """A Claude model; its address is $ANTHROPIC_BASE_URL where that is set, its key the environment's for it."""

    batch_limit = 10_000  # requests; the API takes 100,000 or 256 MB

    def __init__(self, model: str) -> None:
        try:
            import anthropic

            from hafs.servers.transport import http_client
        except ImportError as e:
            raise MissingTool("the anthropic SDK is not installed", "pip install 'hafs[judge]'") from e
        self.model = model
        self.abilities: Mapping[str, bool] = dict.fromkeys(("structured", "system"), True)
        address = _address()
        self.sdk = anthropic.AsyncAnthropic(base_url=address, max_retries=0, http_client=http_client(address))
        if not (self.sdk.api_key or self.sdk.auth_token or self.sdk.credentials):
            raise UsageError(f"{model} needs a key for Anthropic", "export ANTHROPIC_API_KEY=…, or give --base-url")
        check_clear(address, "ANTHROPIC_API_KEY")
        self.endpoint = str(self.sdk.base_url).rstrip("/")
        self.key = self.sdk.api_key or self.sdk.auth_token or ""

    def body(
        self,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        sampling: Sampling = GREEDY,
    ) -> dict[str, Any]:
        """The request as the Messages API takes it, alone or in a batch."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "messages": [{"role": role, "content": text} for role, text in messages],
        }
        if system:
            body["system"] = system
        if schema is not None and self.abilities.get("structured"):
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(schema)}}
        return body

    async def send(
        self,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        timeout: float,
        sampling: Sampling = GREEDY,
    ) -> Reply:
        """See `Client`."""
        body = self.body(system, messages, schema, max_tokens, sampling)
        url = f"{self.endpoint}/v1/messages"
        options: Any = {"timeout": timeout}
        try:
            # As plain JSON: the SDK's typed classes would take most of the time of a call.
            data = await attempt(lambda: self.sdk.post(url, cast_to=object, body=body, options=options), timeout)
        except CallFailed as e:
            raise CallFailed(e.kind, mask(e.message, self.key), e.retry_after, e.status) from e
        return self.reply(data)

    def reply(self, message: Any) -> Reply:
        """The reply that an API message is. Raises CallFailed for one that is none."""
        blocks, stop = member(message, "content"), member(message, "stop_reason")
        if not isinstance(blocks, list) or not isinstance(stop, str):
            raise CallFailed("cut", "the reply is no message", status=200)
        text = "".join(clean(member(b, "text")) for b in blocks if member(b, "type") == "text")
        usage = member(message, "usage")
        parts = [count(usage, n) for n in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
        return Reply(
            mask(text, self.key),
            STOPS.get(stop, "stop"),
            None if parts[0] is None else sum(n or 0 for n in parts),
            count(usage, "output_tokens"),
            finish=stop[:40],
        )

    async def close(self) -> None:
        """See `Client`."""
        await self.sdk.close()


def _address() -> str:
    address = (os.environ.get("ANTHROPIC_BASE_URL") or ANTHROPIC).rstrip("/")
    port_of(address, "ANTHROPIC_BASE_URL=https://HOST")
    return address
