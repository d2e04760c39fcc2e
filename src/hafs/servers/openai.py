"""A model through the `openai` SDK's chat completions, of OpenAI or of any server that speaks them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from hafs.errors import MissingTool, UsageError
from hafs.servers.abilities import ASSUMED
from hafs.servers.address import NO_KEY, OPENAI, key_for, key_variable, mask, port_of
from hafs.servers.client import GREEDY, Messages, Reply, Sampling, attempt, clean, count, member
from hafs.servers.errors import CallFailed


class OpenAIClient:
    """A model at OpenAI, or with `base_url` at another server; the key is that address's own."""

    batch_limit = 10_000  # requests; the API takes 50,000 or 200 MB

    def __init__(self, model: str, base_url: str | None = None) -> None:
        try:
            import openai

            from hafs.servers.transport import http_client
        except ImportError as e:
            raise MissingTool("the openai SDK is not installed", "pip install 'hafs[judge]'") from e
        self.model = model
        self.abilities: Mapping[str, bool] = dict(ASSUMED)
        address = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        port_of(address)
        self.key = key_for(address)
        if not self.key and not base_url:
            raise UsageError(f"{model or 'OpenAI'} needs a key for OpenAI", "export OPENAI_API_KEY=…, or give a URL")
        self.transport_key = None if self.key and key_variable(address) == "OPENAI_API_KEY" else self.key
        self.sdk = openai.AsyncOpenAI(
            api_key=self.key or NO_KEY,
            base_url=address,
            max_retries=0,
            http_client=http_client(address, self.transport_key),
        )
        self.endpoint = str(self.sdk.base_url).rstrip("/")

    def body(
        self,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        sampling: Sampling = GREEDY,
    ) -> dict[str, Any]:
        """The request as chat completions take it, alone or in a batch: only what the endpoint takes is in it."""
        can = self.abilities.get
        turns = [{"role": role, "content": text} for role, text in messages]
        if system and can("system"):
            turns.insert(0, {"role": "system", "content": system})
        elif system:
            turns[0] = {"role": turns[0]["role"], "content": f"{system}\n\n{turns[0]['content']}"}
        limit = "max_tokens" if can("max_tokens", True) else "max_completion_tokens"
        body: dict[str, Any] = {"model": self.model, "messages": turns, limit: max_tokens}
        for name in ("temperature", "top_p", "seed"):
            if can(name) and (value := getattr(sampling, name)) is not None:
                body[name] = value
        if sampling.logprobs and can("logprobs"):
            body["logprobs"] = True
        if can("more", True):
            body |= sampling.more
        if schema is not None and can("structured"):
            form = {"name": "verdict", "strict": True, "schema": dict(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
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
        return self.reply(
            await self.post("/chat/completions", self.body(system, messages, schema, max_tokens, sampling), timeout)
        )

    async def post(self, path: str, body: Mapping[str, Any], timeout: float) -> Any:
        """Send to `path` and get plain JSON: the SDK's typed classes would take most of the time of a call.

        Raises CallFailed, in which the key is masked.
        """
        options: Any = {"timeout": timeout}
        return await self._attempt(
            lambda: self.sdk.post(self.endpoint + path, cast_to=object, body=body, options=options), timeout
        )

    async def get(self, path: str, timeout: float) -> Any:
        """Plain JSON from `path`. Raises CallFailed."""
        options: Any = {"timeout": timeout}
        return await self._attempt(lambda: self.sdk.get(self.endpoint + path, cast_to=object, options=options), timeout)

    async def _attempt(self, send: Any, timeout: float) -> Any:
        try:
            return await attempt(send, timeout)
        except CallFailed as e:
            raise CallFailed(e.kind, mask(e.message, self.key), e.retry_after, e.status) from e

    def reply(self, completion: Any) -> Reply:
        """The reply that a chat completion is. Raises CallFailed for one that is none."""
        choices = member(completion, "choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = member(choice, "message")
        if not isinstance(message, Mapping):
            raise CallFailed("cut", "the reply is no chat completion", status=200)
        refusal, finish = message.get("refusal"), member(choice, "finish_reason")
        stop = "refusal" if refusal or finish == "content_filter" else "length" if finish == "length" else "stop"
        logprobs, ids = _tokens(choice)
        usage = member(completion, "usage")
        return Reply(
            mask(clean(refusal or message.get("content")), self.key),
            stop,
            count(usage, "prompt_tokens"),
            count(usage, "completion_tokens"),
            logprobs,
            ids,
            clean(finish)[:40],
        )

    async def close(self) -> None:
        """See `Client`."""
        await self.sdk.close()


def _tokens(choice: Any) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The log-probabilities and ids of a choice's tokens, each empty where not all are told."""
    content = member(member(choice, "logprobs"), "content")
    tokens = content if isinstance(content, list) else []
    logprobs = [member(t, "logprob") for t in tokens]
    ids = member(choice, "token_ids") or [member(t, "id") for t in tokens]
    whole_ids = isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) for i in ids)
    told = all(isinstance(x, int | float) and not isinstance(x, bool) for x in logprobs)
    return tuple(map(float, logprobs)) if told else (), tuple(ids) if whole_ids else ()
