"""What generates: a backend turns prompts into answers and says what it can do.

transformers.py runs a model in this process; remote.py asks a server, many requests at a time. A model is named by
what runs it and its name there (`ollama:hafs-coder:14b`,
`openai:http://127.0.0.1:8000/v1#my-model`); a name without one is a transformers model. Outsiders add backends
through the entry-point group `hafs.backends`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hafs import registry
from hafs.config import GenerateConfig
from hafs.errors import HafsError
from hafs.models.chat import messages_of, whole_message
from hafs.models.naming import model_hash, resolve
from hafs.types import Prompt


@dataclass(frozen=True)
class Request:
    """One prompt to answer `n` times. `key` identifies it to the caller; it plays no part in sampling.

    `index` is the number of its first answer. With a `seed` it has random numbers of its own: its answers do not
    depend on what else is in the batch (beyond rounding). `context` and `tools` are a prompt's, as JSON texts.
    """

    key: str
    text: str
    system: str = ""
    n: int = 1
    index: int = 0
    seed: int | None = None
    context: str = "[]"
    tools: str = "[]"

    @staticmethod
    def of(prompt: Prompt, n: int = 1, index: int = 0, key: str = "") -> Request:
        """The request for answers to a prompt, with its id as key unless another is given."""
        context, tools = (json.dumps(list(part), sort_keys=True) for part in (prompt.context, prompt.tools))
        return Request(key or prompt.id, prompt.text, prompt.system, n, index, None, context, tools)

    def messages(self) -> list[dict[str, Any]]:
        """The conversation to answer."""
        return [whole_message(m) for m in messages_of(self.text, self.system, json.loads(self.context))]


@dataclass(frozen=True)
class Answer:
    """One sampled answer and why it ended (`finish`: "stop", "length", or a server's own word).

    `logprob` is the sum over its tokens in nats at temperature 1, the end token included (a server may leave that one
    out). What a server does not tell is missing: `logprob` and `n_tokens` None, `token_ids` empty. `logprobs` are the
    tokens' own, in nats, where a server was asked for them. `text` is what stands after the `thought`, and `n_tokens`
    counts it alone where there is one.
    """

    key: str
    index: int
    text: str
    token_ids: tuple[int, ...]
    logprob: float | None
    finish: str
    n_tokens: int | None = None
    logprobs: tuple[float, ...] = ()
    thought: str = ""

    @property
    def length(self) -> int | None:
        """The number of the answer's tokens, where it is known."""
        return self.n_tokens if self.thought else len(self.token_ids) or self.n_tokens


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do.

    `n`: several answers a call; `logprobs`: tells log-probabilities; `seed`: the same seed samples the same; `batch`:
    answers of a planned batch are made together, so a batch is done whole or not at all (otherwise every answer is a
    request of its own and what is missing can be asked alone); `chat`: applies the model's chat template.
    """

    n: bool
    logprobs: bool
    seed: bool
    batch: bool
    chat: bool = True


class Unanswered(HafsError):
    """Some requests of a batch got no answer: `answers` are the others', `failed` counts the reasons.

    `fatal` means that asking on is of no use (the server is gone, or refuses everybody), `refused` that the model's
    chat template does not take those requests: others may be answered.
    """

    def __init__(
        self,
        what: str,
        fix: str = "",
        *,
        answers: Sequence[Answer] = (),
        failed: Mapping[str, int] | None = None,
        fatal: bool = False,
        refused: bool = False,
    ) -> None:
        super().__init__(what, fix)
        self.answers, self.failed = list(answers), dict(failed or {})
        self.fatal, self.refused = fatal, refused


class Backend(Protocol):
    """A model that answers. `model` is its content hash (of a server: of what it says it serves), `name` what the
    user called it."""

    name: str
    model: str
    capabilities: Capabilities

    def plan(self, requests: Sequence[Request], config: GenerateConfig) -> list[list[Request]]:
        """Split requests into batches; depends only on the requests and the config, so a resumed run repeats it."""
        ...

    def generate(self, batch: Sequence[Request], config: GenerateConfig) -> list[Answer]:
        """Answer one planned batch; the same batch with the same config gives the same answers (with `seed`).

        Raises Unanswered with the answers that there are when some requests got none.
        """
        ...


@runtime_checkable
class TakesAdapters(Protocol):
    """A backend that can be given an adapter while it serves, as rollouts of a policy in training need."""

    def use_adapter(self, path: Path | None) -> None:
        """Answer with the LoRA adapter saved in `path` (PEFT's form) from now on; None: with the model as it is.

        The adapter before it is given up. Raises UsageError when the server does not load adapters.
        """
        ...


def open_backend(model: str, kind: str = "", **options: object) -> Backend:
    """The backend that serves `model`; raises UsageError for an unknown kind or model, HafsError for a dead server.

    `kind` "" goes by the name: see `split_name`.
    """
    if not kind:
        kind, model = split_name(model)
    backend: Backend = registry.load("backends", kind)(model, **options)
    return backend


def open_planner(model: str) -> Backend:
    """The backend that serves `model` where others generate: weights are not loaded."""
    return open_backend(model, weights=False) if is_local(model) else open_backend(model)


def split_name(model: str) -> tuple[str, str]:
    """(backend, the model's name there): of `ollama:hafs-coder:14b` ("ollama", "hafs-coder:14b").

    A bare tag (`hafs-coder:14b`) is Ollama's when a server on its usual port has a model of that name.
    """
    kind, colon, rest = model.partition(":")
    if colon and not Path(model).exists():
        if kind in registry.names("backends"):
            return kind, rest
        if "/" not in model and rest and kind:
            from hafs.servers.ollama import installed

            if model in installed():
                return "ollama", model
    return "transformers", model


def is_local(model: str) -> bool:
    """Whether `model` names weights that this process can load (and not a server's model)."""
    return split_name(model)[0] == "transformers"


def identify(model: str) -> str:
    """The content hash that candidates of `model` carry; weights are not loaded for it."""
    return model_hash(resolve(model)) if is_local(model) else open_backend(model).model


def answers(backend: Backend, requests: Sequence[Request], config: GenerateConfig) -> Iterator[list[Answer]]:
    """All answers, one planned batch after the other; what the model's chat template does not take has none."""
    for batch in backend.plan(requests, config):
        try:
            yield backend.generate(batch, config)
        except Unanswered as e:
            if not e.refused:
                raise
            yield e.answers
