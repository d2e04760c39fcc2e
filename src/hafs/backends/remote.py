"""Answers from a server: many requests at a time, each answer on its own, and nothing lost when some fail.

`openai:URL#MODEL` (the model may be left out where the server has one) or `openai:gpt-…`, `ollama:TAG`,
`anthropic:claude-…`. The server applies the model's own chat template and stop tokens. Every answer is a request of its
own with a seed of its own, so a run that was cut off asks for what is missing and for nothing else; servers keep a
prompt that comes again. How a server is asked, `hafs.servers` knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hafs.backends import Answer, Capabilities, Request, Unanswered
from hafs.config import GenerateConfig
from hafs.errors import HafsError, UsageError
from hafs.models.chat import whole
from hafs.models.thoughts import split_thought
from hafs.servers import ollama
from hafs.servers.abilities import LIMIT, QUESTION, SYSTEM, probe
from hafs.servers.address import base_url, key_hint
from hafs.servers.anthropic import AnthropicClient
from hafs.servers.client import Client, Reply, Sampling, clean, member
from hafs.servers.errors import RETRIABLE, CallFailed, EndpointDown
from hafs.servers.limits import LONGEST_PAUSE, Limiter, backoff
from hafs.servers.loop import wait
from hafs.servers.openai import OpenAIClient
from hafs.types import content_id

SAMPLING = ("system", "seed", "temperature", "top_p", "logprobs", "more")
"""What generation would like an endpoint to take."""
OWNERS: dict[str, dict[str, Any]] = {
    "llamacpp": {"top_logprobs": 1, "top_k": 0, "min_p": 0.0},
    "vllm": {"top_k": 0, "min_p": 0.0, "return_token_ids": True},
}
"""What a server needs to sample from the whole distribution and to tell token ids, by what it says it is: llama.cpp
cuts the distribution by default (top_k 40, min_p 0.05), and tells no log-probabilities without alternatives."""
FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_LEFT_OUT = {
    "system": "a system text (it goes before the prompt)",
    "seed": "a seed (a repeated run samples anew)",
    "temperature": "a temperature (it samples at its own)",
    "top_p": "top_p (it samples with its own)",
    "logprobs": "log-probabilities (they are missing)",
    "more": "the fields that ask for the whole distribution",
}
_SHORT = 64  # tokens of the reply to a question that finds out what is taken
AGAIN = "the same command goes on"
_ENGINE_ENDED = "EngineCore encountered an issue"
"""What vLLM says when the process that computes has ended: it answers nothing any more until it is started again."""
_UNSEEDED = (
    'see its log for the cause. Was it "CPU Generator does not use offset": a seed ends vLLM on a CPU where it reads a'
    " prompt in parts, so start it with --no-enable-chunked-prefill"
)


class Refused(Exception):
    """This one request got no answer, and why; others may."""


class ServerGone(Exception):
    """No request will get an answer: `what` happened and `fix`, what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def seed_of(request: Request, config: GenerateConfig) -> int:
    """A seed (31 bits) of the answer's own: prompt, number and the run's seed decide, nothing else."""
    if request.seed is not None:
        return request.seed
    more = [] if request.context == "[]" else [request.context]
    what = [request.text, request.system, *more]
    return int(content_id("sampling", config.seed, what, request.index)[:15], 16) & 0x7FFFFFFF


def turns_of(request: Request) -> list[tuple[str, str]]:
    """The conversation as (role, text), without its system text; raises Refused where it has tools."""
    turns = [m for m in request.messages() if m["role"] != "system"]
    if request.tools != "[]" or any(m["role"] == "tool" or m.get("tool_calls") for m in turns):
        raise Refused("a conversation with tools is not sent to a server yet: generate with the model itself")
    return [(str(m["role"]), str(m["content"])) for m in turns]


class RemoteBackend:
    """A model behind an address. The ones below say how it is named and what it can do."""

    capabilities = Capabilities(n=False, logprobs=True, seed=True, batch=False)
    name: str
    model: str

    def __init__(self, client: Client, where: str, timeout: float) -> None:
        self._client, self.where, self._timeout = client, where, timeout
        self._more: Mapping[str, Any] = {}
        self._asked = False  # whether the endpoint was asked what it takes

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """The requests as they come, one answer each, in batches of `config.batch_size`."""
        single = [replace(r, n=1, index=r.index + i) for r in requests for i in range(r.n)]
        size = config.batch_size
        return [single[i : i + size] for i in range(0, len(single), size)]

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """An answer to each request of the batch, in its order; raises Unanswered when some got none."""
        return wait(_Batch(self, config).all(batch))

    async def ask(self, request: Request, config: GenerateConfig) -> Reply:
        """One attempt at one answer. Raises CallFailed.

        What the endpoint refuses is found out when it first refuses something, and said; then it is asked without it.
        """
        top_p = None if config.top_p == 1.0 else config.top_p
        seed = seed_of(request, config)
        sampling = Sampling(config.temperature, top_p, seed, logprobs=True, more=self._more)
        send = self._client.send
        system, turns = whole(request.system), turns_of(request)
        sent_with = self._client.abilities
        try:
            return await send(system, turns, None, config.max_new_tokens, self._timeout, sampling)
        except CallFailed as e:
            if e.kind != "request" or (self._asked and self._client.abilities is sent_with):
                raise
            async with self._finding_out:
                if not self._asked:
                    await self._find_out(sampling)
            if self._client.abilities == sent_with:
                raise
        return await send(system, turns, None, config.max_new_tokens, self._timeout, sampling)

    @property
    def _finding_out(self) -> asyncio.Lock:
        if not hasattr(self, "_lock"):
            self._lock = asyncio.Lock()
        return self._lock

    async def _find_out(self, sampling: Sampling) -> None:
        """Set the client to what its endpoint takes and say what that leaves out."""
        before = self._client.abilities

        async def send(structured: bool, logprobs: bool) -> Reply:
            how = replace(sampling, logprobs=logprobs)
            reply = await self._client.send(SYSTEM, [("user", QUESTION)], None, _SHORT, self._timeout, how)
            return replace(reply, logprobs=(0.0,))  # taken is enough: what is not told costs nothing to ask for

        try:
            wanted = [a for a in SAMPLING if before.get(a) and (a != "more" or self._more)]
            found = await probe(self._client, send, wanted)
        except (CallFailed, EndpointDown):
            self._client.abilities = before  # it refuses everything: the requests' own reasons say why
        else:
            if lost := [_LEFT_OUT[a] for a in wanted if not found.get(a)]:
                logging.getLogger(__name__).warning("%s does not take %s", self.where, ", ".join(lost))
        self._asked = True

    def failure(self, e: CallFailed) -> Refused | ServerGone:
        """What a failed attempt means for the run."""
        said = e.message.partition(": ")[2] if e.status else e.message
        name = getattr(self._client, "model", "")
        if _ENGINE_ENDED in e.message:
            return ServerGone(f"{self.where}: its engine has ended", f"start it again, then {AGAIN}; {_UNSEEDED}")
        if (e.retry_after or 0.0) > LONGEST_PAUSE:
            return ServerGone(f"{self.where} asks to wait {e.retry_after:.0f} s", f"then {AGAIN}")
        if e.kind in ("connection", "timeout") or (e.kind == "cut" and e.status is None):
            return ServerGone(f"{self.where} does not answer ({e.message})", f"start the server, then {AGAIN}")
        if e.kind == "auth":
            return ServerGone(
                f"{self.where} refuses the key: {said}",
                f"{key_hint(self._client.endpoint)} with the right key; {AGAIN}",
            )
        if e.kind == "missing":
            return ServerGone(f"{self.where} has no model {name!r}: {said}", "check the address and the model's name")
        if e.kind == "rate_limit":
            return ServerGone(f"{self.where} still says to slow down: {said}", f"lower --concurrency; later {AGAIN}")
        if e.status in (502, 503, 504, 529):
            return ServerGone(
                f"{self.where} is not ready (HTTP {e.status}): {said}", f"wait or start it again, then {AGAIN}"
            )
        return Refused(f"HTTP {e.message}" if e.status not in (None, 200) else e.message)


@dataclass
class _Batch:
    """The requests of one batch under way."""

    backend: RemoteBackend
    config: GenerateConfig
    gone: list[ServerGone] = field(default_factory=list)

    async def all(self, batch: Sequence[Request]) -> list[Answer]:
        """The answers in the order of the batch. Raises Unanswered."""
        self.limiter = Limiter(self.config.concurrency)
        results = await asyncio.gather(*map(self._one, batch))
        answered = [r for r in results if isinstance(r, Answer)]
        failed = Counter(r for r in results if isinstance(r, str))
        if self.gone:
            raise Unanswered(self.gone[0].what, self.gone[0].fix, answers=answered, failed=failed, fatal=True)
        if failed:
            reason, _ = failed.most_common(1)[0]
            what = f"{sum(failed.values())} of {len(batch)} requests got no answer: {reason}"
            raise Unanswered(what, answers=answered, failed=failed)
        return answered

    async def _one(self, request: Request) -> Answer | str | None:
        """The answer, why there is none, or None where the server was gone before it was asked."""
        try:
            for n in range(self.config.retries + 1):
                try:
                    async with self.limiter:
                        if self.gone:
                            return None
                        reply = await self.backend.ask(request, self.config)
                    self.limiter.good()
                    return answer_of(request, reply)
                except CallFailed as e:
                    self._heed(e, n)
                    await asyncio.sleep(backoff(n, e.retry_after))
        except Refused as e:
            return str(e)
        except ServerGone as e:
            self.gone.append(e)
        return None

    def _heed(self, e: CallFailed, n: int) -> None:
        """Slow down after a failure that may pass; raises Refused or ServerGone for one that does not."""
        if e.kind in ("rate_limit", "server", "timeout"):
            self.limiter.pushed_back(e.retry_after)
        passes = e.kind in RETRIABLE and (e.retry_after or 0.0) <= LONGEST_PAUSE and _ENGINE_ENDED not in e.message
        if not passes or n == self.config.retries:
            raise self.backend.failure(e) from e


async def _patiently(send: Callable[[], Awaitable[Any]], attempts: int = 3) -> Any:
    """Await `send()`, again after failures that pass: a server that starts says where it is before it listens."""
    for n in range(1, attempts + 1):
        try:
            return await send()
        except CallFailed as e:
            if e.kind not in RETRIABLE or e.status == 200 or n == attempts or (e.retry_after or 0.0) > LONGEST_PAUSE:
                raise
            await asyncio.sleep(backoff(n, e.retry_after))
    raise AssertionError("unreachable")


def answer_of(request: Request, reply: Reply) -> Answer:
    """The answer that a reply is; raises Refused when it is none."""
    if reply.stop == "refusal":
        raise Refused(f"the model refused ({reply.finish if reply.finish == 'content_filter' else 'refusal'})")
    logprob = sum(reply.logprobs) if reply.logprobs else None
    finish = FINISH.get(reply.finish, reply.finish)
    length = len(reply.logprobs) or reply.output_tokens
    said = split_thought(reply.text)
    if said.thought and length is not None:  # the answer's share of what the server counted, by length of text
        length = round(length * len(said.text) / max(1, len(said.text) + len(said.thought)))
    about = (reply.token_ids, logprob, finish, length, reply.logprobs, said.thought)
    return Answer(request.key, request.index, said.text, *about)


class OpenAIBackend(RemoteBackend):
    """A model behind an OpenAI-compatible address: vLLM, llama.cpp, LM Studio, `hafs serve`, or the original."""

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        url, _, model = name.partition("#") if "://" in name else ("", "", name.removeprefix("#"))
        client = OpenAIClient(model, base_url(url, "openai:http://HOST:PORT/v1#MODEL") if url else None)
        super().__init__(client, client.endpoint if url else "OpenAI", timeout)
        self._remote, self._adapter = client, ""
        served = wait(self._served())
        client.model = self._base = model or _only(served, self.where)
        about = served.get(client.model, {})
        self._more = OWNERS.get(str(about.get("owned_by", "")), {})
        client.abilities = {**dict.fromkeys(SAMPLING, True), LIMIT: True}
        self.name = f"openai:{name}"
        self.model = identity(self.where, client.model, about)

    def use_adapter(self, path: Path | None) -> None:
        """Ask for the adapter in `path`, which the server reads from the disk that they share; None: for the model.

        The interface is vLLM's. Raises UsageError when the server has none of it.
        """
        before, self._adapter = self._adapter, ""
        if path is not None:
            self._tell("load_lora_adapter", {"lora_name": path.name, "lora_path": str(path.resolve())})
            self._adapter = path.name
        self._remote.model = self._adapter or self._base
        if before:
            self._tell("unload_lora_adapter", {"lora_name": before})

    def _tell(self, what: str, body: dict[str, str]) -> None:
        try:
            wait(_patiently(lambda: self._remote.post(f"/{what}", body, self._timeout)))
        except CallFailed as e:
            if e.kind == "missing":
                raise UsageError(
                    f"{self.where} loads no adapters while it runs: {e.message}",
                    "hafs serve MODEL --adapters DIRECTORY; or vllm serve MODEL --enable-lora, with"
                    " VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment",
                ) from e
            gone = self.failure(e)
            raise HafsError(str(gone), getattr(gone, "fix", "see what the server says, and its log")) from e

    async def _served(self) -> dict[str, dict[str, Any]]:
        """What the server says of each of its models; empty when it does not list them."""
        try:
            listed = member(await _patiently(lambda: self._remote.get("/models", self._timeout)), "data")
        except CallFailed as e:
            if e.kind == "missing" or e.status == 200:
                return {}
            gone = self.failure(e)
            raise HafsError(str(gone), getattr(gone, "fix", "check the address")) from e
        rows = listed if isinstance(listed, list) else []
        return {clean(row["id"]): row for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)}


class OllamaBackend(OpenAIBackend):
    """A model of the Ollama server at $OLLAMA_HOST, by default on this machine.

    Ollama takes top_k, min_p and the context length from the model's Modelfile, not from a request; `hafs export
    --format ollama` writes one that samples from the whole distribution. A model's identity is the digest that Ollama
    gives it.
    """

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        served = ollama.installed()
        if not served:
            raise HafsError(f"Ollama does not answer at {ollama.address()}", "start it: ollama serve")
        tag = name if ":" in name else f"{name}:latest"
        if tag not in served:
            have = ", ".join(sorted(served)[:8])
            raise UsageError(f"Ollama has no model {name!r} (it has: {have})", f"ollama pull {name}, or ollama create")
        super().__init__(f"{ollama.address()}/v1#{tag}", timeout)
        self.name, self.model = f"ollama:{name}", content_id("ollama", served[tag])


class AnthropicBackend(RemoteBackend):
    """A model of Anthropic's (key: $ANTHROPIC_API_KEY).

    They tell no log-probabilities, take no seed, and sample as they like: no temperature and no top_p.
    """

    capabilities = Capabilities(n=False, logprobs=False, seed=False, batch=False)

    def __init__(self, name: str, timeout: float = 600.0) -> None:
        if not name:
            raise UsageError("anthropic: names no model", "give anthropic:MODEL")
        super().__init__(AnthropicClient(name), "Anthropic", timeout)
        self.name, self.model = f"anthropic:{name}", content_id("anthropic", name)


class InProcessVllm:
    """What `vllm:DIR` was: it is refused with what takes its place."""

    def __init__(self, name: str) -> None:
        raise UsageError(
            f"vllm:{name} is no backend any more: vLLM is asked as a server",
            f"`vllm serve {name or 'DIR'}`, then --model openai:http://127.0.0.1:8000/v1",
        )


def identity(where: str, model: str, about: dict[str, Any]) -> str:
    """The content hash that the server tells, else an id of what it says it serves."""
    if told := about.get("hash"):
        return str(told)
    told_meta = about.get("meta")
    meta = told_meta if isinstance(told_meta, dict) else {}
    meta = {k: v for k, v in meta.items() if not k.startswith("n_ctx") or k == "n_ctx_train"}
    return content_id("llamacpp", model, meta) if meta else content_id("openai", where, model)


def _only(served: dict[str, Any], where: str) -> str:
    if len(served) != 1:
        names = ", ".join(sorted(served)) or "it names none"
        raise UsageError(f"{where} does not serve just one model ({names})", "give openai:URL#MODEL")
    return next(iter(served))
