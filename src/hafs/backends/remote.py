"""Asking a server: many requests at a time, each answer on its own, and nothing lost when some fail.

The SDKs wait and ask again by themselves (rising pauses, the server's Retry-After); what is left after that is either
one request's own failure, which is counted, or the server's, which ends the batch with the answers it has.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from hafs.backends import Answer, Request, Unanswered
from hafs.config import GenerateConfig
from hafs.errors import MissingTool
from hafs.types import content_id


class Refused(Exception):
    """This one request got no answer, and why; others may."""


class ServerGone(Exception):
    """No request will get an answer: `what` happened and `fix`, what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def plan(requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
    """The requests as they come, one answer each, in batches of `config.batch_size`."""
    single = [replace(r, n=1, index=r.index + i) for r in requests for i in range(r.n)]
    size = config.batch_size
    return [single[i : i + size] for i in range(0, len(single), size)]


def seed_of(request: Request, config: GenerateConfig) -> int:
    """A seed (31 bits) of the answer's own: prompt, number and the run's seed decide, nothing else."""
    if request.seed is not None:
        return request.seed
    return int(content_id("sampling", config.seed, [request.text, request.system], request.index)[:15], 16) & 0x7FFFFFFF


def ask_all(batch: Sequence[Request], config: GenerateConfig, ask: Callable[[Request], Answer]) -> list[Answer]:
    """The answer to every request, `config.concurrency` of them under way at a time, in the order of the batch.

    `ask` answers one request or raises Refused or ServerGone. Raises Unanswered when any got no answer.
    """
    gone: list[ServerGone] = []
    stop = threading.Event()

    def one(request: Request) -> Answer | str | None:
        if stop.is_set():
            return None
        try:
            return ask(request)
        except Refused as e:
            return str(e)
        except ServerGone as e:
            gone.append(e)
            stop.set()
            return None

    with ThreadPoolExecutor(config.concurrency, thread_name_prefix="ask") as pool:
        try:
            results = list(pool.map(one, batch))
        except BaseException:
            stop.set()
            raise
    answered = [r for r in results if isinstance(r, Answer)]
    failed = Counter(r for r in results if isinstance(r, str))
    if gone:
        raise Unanswered(gone[0].what, gone[0].fix, answers=answered, failed=failed, fatal=True)
    if failed:
        reason, _ = failed.most_common(1)[0]
        raise Unanswered(
            f"{sum(failed.values())} of {len(batch)} requests got no answer: {reason}", answers=answered, failed=failed
        )
    return answered


def sdk(name: str) -> Any:
    """The SDK module `name` ("openai", "anthropic"); raises MissingTool with the command that installs it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as e:
        raise MissingTool(f"asking this server needs the package {name}", "pip install 'hafs[judge]'") from e


def failure(sdk: Any, error: Exception, where: str, model: str, key: str) -> Exception:
    """What an SDK's error means for the run; both SDKs name their errors alike. `key` is the variable with the key."""
    said = message_of(error)
    if isinstance(error, sdk.APIConnectionError):  # a timeout, too
        return ServerGone(f"{where} does not answer ({said})", f"start the server, then {AGAIN}")
    if isinstance(error, sdk.AuthenticationError | sdk.PermissionDeniedError):
        return ServerGone(f"{where} refuses the key: {said}", f"export {key}=… with the right key, then {AGAIN}")
    if isinstance(error, sdk.NotFoundError):
        return ServerGone(f"{where} has no model {model!r}: {said}", "check the address and the model's name")
    if isinstance(error, sdk.RateLimitError):
        return ServerGone(f"{where} still says to slow down: {said}", f"lower --concurrency; later {AGAIN}")
    status = getattr(error, "status_code", None)
    if status in (502, 503, 504, 529):
        return ServerGone(f"{where} is not ready (HTTP {status}): {said}", f"wait or start it again, then {AGAIN}")
    return Refused(f"HTTP {status}: {said}" if status else said)


AGAIN = "the same command goes on"


def message_of(error: Exception) -> str:
    """What the server said, in one line."""
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, dict) else None
    text = inner.get("message") if isinstance(inner, dict) else inner
    text = str(text or getattr(error, "message", "") or error)
    return " ".join(text.split())[:300]
