"""Sending one question to a judge, through the vendors' own SDKs with their retries off, so that every attempt is ours
to count.

`open_client` takes names as one writes them: `claude-opus-4-5` goes to Anthropic, `gpt-5` to OpenAI, everything else,
such as `hafs-coder:14b` or `gpt-oss:20b`, to an OpenAI-compatible server (Ollama, vLLM, llama.cpp, LM Studio): the one
of `--base-url`, the one written behind the name (`NAME@URL`), or the local Ollama where it answers.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hafs import registry
from hafs.errors import HafsError, MissingTool, UsageError

OLLAMA = "http://127.0.0.1:11434"
ABILITIES = ("structured", "system", "seed", "temperature", "logprobs")
RETRIABLE = ("rate_limit", "server", "timeout", "cut", "connection")
NOT_RECORDED = "not_recorded"
PERHAPS_PAID = ("timeout", "cut")
"""Failures after which the vendor may have done the work and taken the money."""

Messages = Sequence[tuple[str, str]]
"""Turns of a conversation: ("user" or "assistant", text)."""


@dataclass(frozen=True)
class Reply:
    """What came back: `stop` is "stop", "length" (cut off at the limit) or "refusal"; tokens None where not said."""

    text: str
    stop: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    logprobs: bool = False


class CallFailed(Exception):
    """An attempt without a reply. `kind`: rate_limit, server, timeout, cut, connection, request, auth, not_recorded.

    `retry_after` is how many seconds the endpoint asks to wait, None when it does not say.
    """

    def __init__(self, kind: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message[:2000]
        self.retry_after = retry_after


class EndpointDown(HafsError):
    """The endpoint answers nothing, or refuses everything: going on would be of no use."""


class Client(Protocol):
    """A model at an endpoint."""

    model: str
    endpoint: str
    abilities: Mapping[str, bool]

    async def send(
        self,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        timeout: float,
        logprobs: bool = False,
    ) -> Reply:
        """One attempt. Raises CallFailed."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class AnthropicClient:
    """A Claude model through the `anthropic` SDK; its address is $ANTHROPIC_BASE_URL where that is set."""

    batch_limit = 10_000  # requests; the API takes 100,000 or 256 MB

    def __init__(self, model: str) -> None:
        try:
            import anthropic
        except ImportError as e:
            raise MissingTool("the anthropic SDK is not installed", "pip install 'hafs[judge]'") from e
        self.model = model
        self.abilities: Mapping[str, bool] = dict.fromkeys(("structured", "system"), True)
        self.sdk = anthropic.AsyncAnthropic(max_retries=0)
        if not (self.sdk.api_key or self.sdk.auth_token or self.sdk.credentials):
            raise UsageError(f"{model} needs a key for Anthropic", "export ANTHROPIC_API_KEY=…, or give --base-url")
        self.endpoint = str(self.sdk.base_url).rstrip("/")

    def body(
        self, system: str, messages: Messages, schema: Mapping[str, Any] | None, max_tokens: int
    ) -> dict[str, Any]:
        """The request as the Messages API takes it, alone or in a batch."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "system": system,
            "messages": [{"role": role, "content": text} for role, text in messages],
        }
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
        logprobs: bool = False,
    ) -> Reply:
        """See `Client`."""
        body = self.body(system, messages, schema, max_tokens)
        return self.reply(await attempt(lambda: _post(self, "/v1/messages", body, timeout), timeout))

    @staticmethod
    def reply(message: Any) -> Reply:
        """The reply that an API message is. Raises CallFailed for one that is none."""
        blocks, stop = _get(message, "content"), _get(message, "stop_reason")
        if not isinstance(blocks, list) or not isinstance(stop, str):
            raise CallFailed("cut", "the reply is no message")
        texts = [_get(b, "text") for b in blocks if _get(b, "type") == "text"]
        short = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refusal"}
        usage = _get(message, "usage")
        parts = [_count(usage, n) for n in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
        return Reply(
            "".join(t for t in texts if isinstance(t, str)),
            short.get(stop, "stop"),
            None if parts[0] is None else sum(n or 0 for n in parts),
            _count(usage, "output_tokens"),
        )

    async def close(self) -> None:
        """See `Client`."""
        await self.sdk.close()


class OpenAIClient:
    """A model through the `openai` SDK's chat completions; with `base_url`, of any server that speaks them."""

    batch_limit = 10_000  # requests; the API takes 50,000 or 200 MB

    def __init__(self, model: str, base_url: str | None = None) -> None:
        try:
            import openai
        except ImportError as e:
            raise MissingTool("the openai SDK is not installed", "pip install 'hafs[judge]'") from e
        self.model = model
        self.abilities: Mapping[str, bool] = dict.fromkeys(("structured", "system", "seed", "temperature"), True)
        try:
            key = os.environ.get("OPENAI_API_KEY") or ("none" if base_url else None)
            self.sdk = openai.AsyncOpenAI(api_key=key, base_url=base_url, max_retries=0)
        except openai.OpenAIError as e:
            raise UsageError(f"{model} needs a key for OpenAI", "export OPENAI_API_KEY=…, or give --base-url") from e
        self.endpoint = str(self.sdk.base_url).rstrip("/")
        self._limit = "max_completion_tokens" if "api.openai.com" in self.endpoint else "max_tokens"

    def body(
        self, system: str, messages: Messages, schema: Mapping[str, Any] | None, max_tokens: int
    ) -> dict[str, Any]:
        """The request as chat completions take it, alone or in a batch."""
        can = self.abilities.get
        turns = [{"role": role, "content": text} for role, text in messages]
        if system and can("system"):
            turns.insert(0, {"role": "system", "content": system})
        elif system:
            turns[0] = {"role": turns[0]["role"], "content": f"{system}\n\n{turns[0]['content']}"}
        body: dict[str, Any] = {"model": self.model, "messages": turns, self._limit: max_tokens}
        if can("temperature"):
            body["temperature"] = 0
        if can("seed"):
            body["seed"] = 0
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
        logprobs: bool = False,
    ) -> Reply:
        """See `Client`."""
        body = self.body(system, messages, schema, max_tokens)
        if logprobs:
            body["logprobs"] = True
        return self.reply(await attempt(lambda: _post(self, "/chat/completions", body, timeout), timeout))

    @staticmethod
    def reply(completion: Any) -> Reply:
        """The reply that a chat completion is. Raises CallFailed for one that is none."""
        choices = _get(completion, "choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = _get(choice, "message")
        if not isinstance(message, Mapping):
            raise CallFailed("cut", "the reply is no chat completion")
        refusal, finish = message.get("refusal"), _get(choice, "finish_reason")
        stop = "refusal" if refusal or finish == "content_filter" else "length" if finish == "length" else "stop"
        text, usage = refusal or message.get("content"), _get(completion, "usage")
        return Reply(
            text if isinstance(text, str) else "",
            stop,
            _count(usage, "prompt_tokens"),
            _count(usage, "completion_tokens"),
            bool(_get(_get(choice, "logprobs"), "content")),
        )

    async def close(self) -> None:
        """See `Client`."""
        await self.sdk.close()


class ReplayClient:
    """Sends nothing: a question that the ledger has no answer to fails as "not_recorded", and is no attempt."""

    endpoint = "replay"
    abilities: Mapping[str, bool] = dict.fromkeys(ABILITIES, False)

    def __init__(self, model: str) -> None:
        self.model = model

    async def send(
        self,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        max_tokens: int,
        timeout: float,
        logprobs: bool = False,
    ) -> Reply:
        """See `Client`."""
        raise CallFailed(NOT_RECORDED, "the ledger has no answer to this question")

    async def close(self) -> None:
        """See `Client`."""


_VENDORS = re.compile(r"ft:|(claude|gpt-(?!oss)|chatgpt-|o\d)(?!.*:)")  # with a tag it is a model of Ollama's
_TAGGED = re.compile(r"[\w./-]+:[\w.-]+")  # as Ollama names a model


def judge_of(scorer: str) -> str | None:
    """The judge that `--scorer` names, as `open_client` takes it; None for the name or expression of a scorer.

    `judge:NAME` is a judge whatever NAME is; without it, a vendor's model, NAME@URL and NAME:TAG are, unless there is
    a scorer of that name.
    """
    if scorer.startswith("judge:"):
        return scorer.removeprefix("judge:")
    if re.split(r"[^\w-]", scorer, maxsplit=1)[0] in registry.names("scorers"):
        return None
    named = _VENDORS.match(scorer) or "@http" in scorer or _TAGGED.fullmatch(scorer)
    return scorer if named else None


def judge_name(spec: str) -> str:
    """The judge of `NAME` or `NAME@URL`."""
    return re.split(r"@(?=https?://)", spec, maxsplit=1)[0]


def open_client(spec: str, base_url: str | None = None, replay: bool = False) -> Client:
    """The client for a judge written `NAME` or `NAME@URL`; `base_url` is where a name without one is served.

    Raises UsageError when nothing serves it or a key is missing, MissingTool without the SDK.
    """
    name, _, url = spec.partition("@") if "@http" in spec else (spec, "", "")
    if not name:
        raise UsageError("a judge needs a name", "--judge claude-opus-4-5, or --judge hafs-coder:14b")
    if replay:
        return ReplayClient(name)
    if where := url or base_url:
        _port(where, "NAME@http://HOST:PORT/v1, or --base-url http://HOST:PORT/v1")
        return OpenAIClient(name, where)
    if not _VENDORS.match(name):
        return OpenAIClient(name, _ollama(name))
    return AnthropicClient(name) if name.startswith("claude") else OpenAIClient(name)


def _ollama(name: str) -> str:
    """The address of the local Ollama's OpenAI-compatible API. Raises UsageError when it does not answer."""
    host = os.environ.get("OLLAMA_HOST", "") or OLLAMA
    root = (host if "://" in host else f"http://{host}").rstrip("/").replace("0.0.0.0", "127.0.0.1")
    if _port(root, "OLLAMA_HOST=HOST:PORT") is None:
        root += ":11434"
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(f"{root}/api/version", timeout=3).close()
    except (OSError, urllib.error.URLError, ValueError) as e:
        raise UsageError(
            f"{name!r} is no model of Anthropic or OpenAI, and no Ollama answers at {root}",
            f"`ollama serve` and `ollama pull {name}`, or say where it is served with --base-url",
        ) from e
    return f"{root}/v1"


def _port(url: str, form: str) -> int | None:
    """The port in an address, None where it has none. Raises UsageError for what is no address of `form`."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as e:
        raise UsageError(f"{url} is no address: {e}", f"write it as {form}") from e
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url} is no address that begins with http:// or https://", f"write it as {form}")
    return port


def is_local(endpoint: str) -> bool:
    """Whether an endpoint is on this machine or in a private network, where tokens cost nothing."""
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host in ("", "localhost") or host.endswith((".local", ".internal")) or "." not in host


def looks_local(spec: str, base_url: str | None = None) -> bool:
    """Whether a judge as written would be served for nothing: at a local address, or without one by the Ollama here."""
    name = judge_name(spec)
    url = spec[len(name) + 1 :] or base_url
    return is_local(url) if url else not _VENDORS.match(name)


async def attempt(send: Any, timeout: float) -> Any:
    """Await `send()` for at most `timeout` seconds, however slowly it drips; SDK errors become CallFailed."""
    try:
        async with asyncio.timeout(timeout):
            return await send()
    except TimeoutError as e:
        raise CallFailed("timeout", f"no whole reply in {timeout:g} s") from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise CallFailed("cut", f"the reply is no JSON: {e}") from e
    except Exception as e:
        failed = _failure(e)
        if failed is None:
            raise
        raise failed from e


def _failure(e: Exception) -> CallFailed | None:
    """What an SDK's exception means; None when it is none of theirs."""
    names = {c.__name__ for c in type(e).__mro__}
    if "APITimeoutError" in names:
        return CallFailed("timeout", str(e))
    if "APIResponseValidationError" in names:
        return CallFailed("cut", str(e))
    if "APIConnectionError" in names:
        cause = type(e.__cause__).__name__
        unsent = cause in ("ConnectError", "ConnectTimeout", "PoolTimeout", "UnsupportedProtocol")
        return CallFailed("connection" if unsent else "cut", f"{e} ({e.__cause__ or cause})")
    status = getattr(e, "status_code", None)
    if isinstance(status, int):
        return CallFailed(_kind(status), f"{status}: {e}", _retry_after(getattr(e, "response", None)))
    if names & {"AnthropicError", "OpenAIError", "CredentialsError"} or (
        isinstance(e, TypeError) and "authentication" in str(e)
    ):
        return CallFailed("auth", str(e))
    return None


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit"
    if status in (401, 403, 402):
        return "auth"
    if status in (408, 409) or status >= 500:
        return "server"
    return "request"


def _retry_after(response: Any) -> float | None:
    """Seconds that the response asks to wait (`retry-after-ms`, or `Retry-After` in seconds or as a date)."""
    headers = getattr(response, "headers", {})
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except KeyError:
        return None
    except ValueError:
        when = email.utils.parsedate_tz(headers.get("retry-after", ""))
        return max(0.0, email.utils.mktime_tz(when) - time.time()) if when else None


async def _post(client: AnthropicClient | OpenAIClient, path: str, body: Mapping[str, Any], timeout: float) -> Any:
    """Send through an SDK and get plain JSON: its typed classes would take most of the time of a call."""
    return await client.sdk.post(client.endpoint + path, cast_to=object, body=body, options={"timeout": timeout})


def _get(data: Any, name: str) -> Any:
    return data.get(name) if isinstance(data, Mapping) else None


def _count(usage: Any, name: str) -> int | None:
    n = _get(usage, name)
    return n if isinstance(n, int) and n >= 0 else None
