"""Answers from a server with OpenAI's interface: vLLM, llama.cpp, LM Studio, `hafs serve`, or the original.

`openai:URL#model` (the model may be left out where the server has one), or `openai:gpt-…` for the original. The server
applies the model's own chat template and stop tokens. Every answer is a request of its own with a seed of its own, so a
run that was cut off asks for what is missing and for nothing else; servers keep a prompt that comes again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hafs.backends import Answer, Capabilities, Request
from hafs.backends.remote import Refused, ask_all, failure, message_of, plan, sdk, seed_of
from hafs.config import GenerateConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import messages_of, whole
from hafs.types import content_id

OWNERS: dict[str, dict[str, Any]] = {
    "llamacpp": {"top_logprobs": 1, "extra_body": {"top_k": 0, "min_p": 0.0}},
    "vllm": {"extra_body": {"top_k": 0, "min_p": 0.0, "return_token_ids": True}},
    "hafs": {},
}
"""What a server needs to sample from the whole distribution and to tell token ids, by what it says it is: llama.cpp
cuts the distribution by default (top_k 40, min_p 0.05), and tells no log-probabilities without alternatives."""


class OpenAIBackend:
    """A model behind an OpenAI-compatible address, asked through the official SDK."""

    capabilities = Capabilities(n=False, logprobs=True, seed=True, batch=False)

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        self._sdk = sdk("openai")
        url, _, model = name.partition("#") if "://" in name else ("", "", name.removeprefix("#"))
        self.url = _base_url(url)
        key = os.environ.get("OPENAI_API_KEY", "")
        if not url and not key:
            raise UsageError("OpenAI's own address needs a key", "export OPENAI_API_KEY=…, or give openai:URL#model")
        self._client = self._sdk.OpenAI(
            base_url=self.url or None, api_key=key or "none", timeout=timeout, max_retries=2
        )
        self.where = self.url or "OpenAI"
        served = self._served()
        self._model = model or _only(served, self.where)
        about = served.get(self._model, {})
        self._adapter = ""
        self._more = OWNERS.get(about.get("owned_by", ""), {})
        self.name = f"openai:{name}"
        self.model = identity(self.where, self._model, about)

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """The requests as they come, one answer each, in batches of `config.batch_size`."""
        return plan(requests, config)

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """An answer to each request of the batch; raises Unanswered when some got none."""
        client = self._client.with_options(max_retries=config.retries)
        return ask_all(batch, config, lambda request: self._ask(client, request, config))

    def use_adapter(self, path: Path | None) -> None:
        """Ask for the adapter in `path`, which the server reads from the disk that they share; None: for the model.

        The interface is vLLM's. Raises UsageError when the server has none of it.
        """
        before, self._adapter = self._adapter, ""
        if path is not None:
            self._tell("load_lora_adapter", {"lora_name": path.name, "lora_path": str(path.resolve())})
            self._adapter = path.name
        if before:
            self._tell("unload_lora_adapter", {"lora_name": before})

    def _tell(self, what: str, body: dict[str, str]) -> None:
        try:
            self._client.post(f"/{what}", body=body, cast_to=str)
        except self._sdk.NotFoundError as e:
            raise UsageError(
                f"{self.where} loads no adapters while it runs: {message_of(e)}",
                "hafs serve MODEL --adapters DIRECTORY; or vllm serve MODEL --enable-lora, with"
                " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment",
            ) from e
        except self._sdk.APIError as e:
            gone = failure(self._sdk, e, self.where, self._model, "OPENAI_API_KEY")
            raise HafsError(str(gone), getattr(gone, "fix", "see what the server says, and its log")) from e

    def _ask(self, client: Any, request: Request, config: GenerateConfig) -> Answer:
        try:
            reply = client.chat.completions.create(
                model=self._adapter or self._model,
                messages=messages_of(whole(request.text), whole(request.system)),
                temperature=config.temperature,
                top_p=config.top_p,
                max_tokens=config.max_new_tokens,
                seed=seed_of(request, config),
                logprobs=True,
                **self._more,
            )
        except self._sdk.APIError as e:
            raise failure(self._sdk, e, self.where, self._model, "OPENAI_API_KEY") from e
        except ValueError as e:
            raise Refused(f"the answer could not be read: {e}") from e
        return answer_of(request, reply)

    def _served(self) -> dict[str, dict[str, Any]]:
        """What the server says of each of its models; empty when it does not list them."""
        try:
            listed = self._client.models.list().data
        except (self._sdk.NotFoundError, ValueError):
            return {}
        except self._sdk.APIError as e:
            gone = failure(self._sdk, e, self.where, "", "OPENAI_API_KEY")
            raise HafsError(str(gone), getattr(gone, "fix", "check the address")) from e
        return {m.id: m.model_dump() for m in listed or ()}


def answer_of(request: Request, reply: Any) -> Answer:
    """The one answer in a chat completion; raises Refused when there is none in it."""
    choices = getattr(reply, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise Refused("the server's reply holds no answer")
    choice = choices[0]
    finish = choice.finish_reason or ""
    if finish == "content_filter" or (choice.message.content is None and getattr(choice.message, "refusal", None)):
        raise Refused(f"the model refused ({finish or 'refusal'})")
    tokens = getattr(choice.logprobs, "content", None) or []
    ids = getattr(choice, "token_ids", None) or [getattr(t, "id", None) for t in tokens]
    known = tuple(ids) if ids and all(isinstance(i, int) for i in ids) else ()
    used = getattr(getattr(reply, "usage", None), "completion_tokens", None)
    logprob = sum(t.logprob for t in tokens) if tokens else None
    return Answer(
        request.key,
        request.index,
        choice.message.content or "",
        known,
        logprob,
        finish,
        len(tokens) or used,
        tuple(t.logprob for t in tokens),
    )


def identity(where: str, model: str, about: dict[str, Any]) -> str:
    """The content hash that the server tells, else an id of what it says it serves."""
    if told := about.get("hash"):
        return str(told)
    meta = {k: v for k, v in (about.get("meta") or {}).items() if not k.startswith("n_ctx") or k == "n_ctx_train"}
    return content_id("llamacpp", model, meta) if meta else content_id("openai", where, model)


def _base_url(url: str) -> str:
    """`url` with the /v1 that servers have where it names no path."""
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no address", "give openai:http://HOST:PORT/v1#MODEL")
    return url.rstrip("/") + ("/v1" if parts.path in ("", "/") else "")


def _only(served: dict[str, Any], where: str) -> str:
    if len(served) != 1:
        names = ", ".join(sorted(served)) or "it names none"
        raise UsageError(f"{where} does not serve just one model ({names})", "give openai:URL#MODEL")
    return next(iter(served))
