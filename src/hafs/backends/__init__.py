"""What generates: a backend turns prompts into answers and says what it can do.

The only built-in so far runs a model in this process through transformers. A backend is opened by name with
`open_backend`; outsiders add theirs through the entry-point group `hafs.backends`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from hafs import registry
from hafs.config import GenerateConfig


@dataclass(frozen=True)
class Request:
    """One prompt to answer `n` times. `key` identifies it to the caller; it plays no part in sampling."""

    key: str
    text: str
    system: str = ""
    n: int = 1


@dataclass(frozen=True)
class Answer:
    """One sampled answer: `logprob` is the sum over its tokens in nats at temperature 1, the end token included."""

    key: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprob: float
    finish: str


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do: several answers a call, log-probabilities, seeding, batches."""

    n: bool
    logprobs: bool
    seed: bool
    batch: bool


class Backend(Protocol):
    """A model that answers. `model` is its content hash, `name` what the user called it."""

    name: str
    model: str
    capabilities: Capabilities

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """Split requests into batches; depends only on the requests and the config, so a resumed run repeats it."""
        ...

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """Answer one planned batch; the same batch with the same config gives the same answers."""
        ...


def open_backend(model: str, kind: str = "transformers", **options: object) -> Backend:
    """The backend that serves `model`; raises UsageError for an unknown kind or model."""
    backend: Backend = registry.load("backends", kind)(model, **options)
    return backend


def answers(backend: Backend, requests: Sequence[Request], config: GenerateConfig) -> Iterator[list[Answer]]:
    """All answers, one planned batch after the other."""
    for batch in backend.plan(requests, config):
        yield backend.generate(batch, config)
