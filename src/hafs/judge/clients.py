"""Judges by name.

`open_client` takes names as one writes them: `claude-opus-4-5` goes to Anthropic, `gpt-5` to OpenAI, everything else,
such as `hafs-coder:14b` or `gpt-oss:20b`, to an OpenAI-compatible server (Ollama, vLLM, llama.cpp, LM Studio): the one
of `--base-url`, the one written behind the name (`NAME@URL`), or the local Ollama where it answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hafs import registry
from hafs.errors import UsageError
from hafs.servers import ollama
from hafs.servers.abilities import JUDGING
from hafs.servers.address import is_local, port_of
from hafs.servers.client import GREEDY, Client, Messages, Reply, Sampling
from hafs.servers.errors import CallFailed

NOT_RECORDED = "not_recorded"


class ReplayClient:
    """Sends nothing: a question that the ledger has no answer to fails as "not_recorded", and is no attempt."""

    endpoint = "replay"
    abilities: Mapping[str, bool] = dict.fromkeys(JUDGING, False)

    def __init__(self, model: str) -> None:
        self.model = model

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
        raise CallFailed(NOT_RECORDED, "the ledger has no answer to this question")

    async def close(self) -> None:
        """See `Client`."""


_VENDORS = re.compile(r"ft:|(claude|gpt-(?!oss)|chatgpt-|o\d)(?!.*:)")  # with a tag it is a model of Ollama's
_TAGGED = re.compile(r"[\w./-]+:[\w.-]+")  # as Ollama names a model


_FUNCTION = re.compile(r"[^\s:]+\.py\b")
"""How an expression of scorers begins that names a function of a Python file."""


def judge_of(scorer: str) -> str | None:
    """The judge that `--scorer` names, as `open_client` takes it; None for the name or expression of a scorer.

    `judge:NAME` is a judge whatever NAME is; without it, a vendor's model, NAME@URL and NAME:TAG are, unless there is
    a scorer of that name.
    """
    if scorer.startswith("judge:"):
        return scorer.removeprefix("judge:")
    if re.split(r"[^\w-]", scorer, maxsplit=1)[0] in registry.names("scorers") or _FUNCTION.match(scorer):
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
    from hafs.servers.anthropic import AnthropicClient
    from hafs.servers.openai import OpenAIClient

    name, _, url = spec.partition("@") if "@http" in spec else (spec, "", "")
    if not name:
        raise UsageError("a judge needs a name", "--judge claude-opus-4-5, or --judge hafs-coder:14b")
    if replay:
        return ReplayClient(name)
    if where := url or base_url:
        port_of(where, "NAME@http://HOST:PORT/v1, or --base-url http://HOST:PORT/v1")
        return OpenAIClient(name, where)
    if not _VENDORS.match(name):
        return OpenAIClient(name, _ollama(name))
    return AnthropicClient(name) if name.startswith("claude") else OpenAIClient(name)


def _ollama(name: str) -> str:
    """The address of the local Ollama's OpenAI-compatible API. Raises UsageError when it does not answer."""
    root = ollama.address()
    if not ollama.answers():
        raise UsageError(
            f"{name!r} is no model of Anthropic or OpenAI, and no Ollama answers at {root}",
            f"`ollama serve` and `ollama pull {name}`, or say where it is served with --base-url",
        )
    return f"{root}/v1"


def looks_local(spec: str, base_url: str | None = None) -> bool:
    """Whether a judge as written would be served for nothing: at a local address, or without one by the Ollama here."""
    name = judge_name(spec)
    url = spec[len(name) + 1 :] or base_url
    return is_local(url) if url else not _VENDORS.match(name)
