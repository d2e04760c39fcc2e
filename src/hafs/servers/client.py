"""What asking a model at an endpoint is: the conversation, how to sample, and what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from hafs.models.chat import whole
from hafs.servers.errors import CallFailed, failure_of

T = TypeVar("T")

Messages = Sequence[tuple[str, str]]
"""Turns of a conversation: ("user" or "assistant", text)."""
MOST_TOKENS = 10**9
"""A count of tokens above it is no count."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn. None: not said, so the server's own. `more` are fields of one kind of server."""

    temperature: float | None = 0.0
    top_p: float | None = None
    seed: int | None = 0
    logprobs: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


GREEDY = Sampling()


@dataclass(frozen=True)
class Reply:
    """What came back: `stop` is "stop", "length" (cut off at the limit) or "refusal", `finish` the server's own word.

    Tokens are None where not said; `logprobs` and `token_ids` those of the reply's tokens, where told.
    """

    text: str
    stop: str = "stop"
    input_tokens: int | None = None
    output_tokens: int | None = None
    logprobs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    finish: str = ""


class Client(Protocol):
    """A model at an endpoint. `abilities` are what it takes; see `hafs.servers.abilities`."""

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
        sampling: Sampling = GREEDY,
    ) -> Reply:
        """One attempt. Raises CallFailed."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


async def attempt(send: Callable[[], Awaitable[T]], timeout: float) -> T:
    """Await `send()` for at most `timeout` seconds, however slowly it drips.

    What an SDK raises becomes CallFailed, and so does a reply that cannot be read as JSON: cut off, nested too deep, a
    number of thousands of digits, no UTF-8.
    """
    try:
        async with asyncio.timeout(timeout):
            return await send()
    except TimeoutError as e:
        raise CallFailed("timeout", f"no whole reply in {timeout:g} s") from e
    except RecursionError as e:
        raise CallFailed("cut", "the reply is nested too deep", status=200) from e
    except Exception as e:
        failed = failure_of(e)
        if failed is None and isinstance(e, ValueError):
            failed = CallFailed("cut", f"the reply cannot be read: {e}", status=200)
        if failed is None:
            raise
        raise failed from e


def member(data: Any, name: str) -> Any:
    """`data[name]` where data is an object of JSON that has it, else None."""
    return data.get(name) if isinstance(data, Mapping) else None


def count(usage: Any, name: str) -> int | None:
    """A count of tokens, None where there is none that can be."""
    n = member(usage, name)
    return n if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MOST_TOKENS else None


def clean(text: Any) -> str:
    """A text of a reply as it can be kept: every character one that text may have."""
    return whole(text) if isinstance(text, str) else ""
