"""One door for everything that can be added: scorers, backends, task packs, losses, domains.

A name maps to `module:attribute`; the module is imported only when the name is used. An outside package adds names
through the entry-point group `hafs.<kind>`; the built-ins are the table below and are loaded the same way.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from hafs.errors import UsageError

BUILTIN: dict[str, dict[str, str]] = {
    "scorers": {
        "exact": "hafs.scorers.exact:ExactScorer",
        "code": "hafs.scorers.code:CodeScorer",
        "function": "hafs.scorers.function:FunctionScorer",
        "python": "hafs.scorers.python:PythonScorer",
        "reward": "hafs.scorers.reward:RewardScorer",
        "text": "hafs.scorers.text:TextScorer",
    },
    "backends": {
        "transformers": "hafs.generation.transformers:TransformersBackend",
        "openai": "hafs.backends.remote:OpenAIBackend",
        "ollama": "hafs.backends.remote:OllamaBackend",
        "anthropic": "hafs.backends.remote:AnthropicBackend",
        "vllm": "hafs.backends.remote:InProcessVllm",
    },
    "tasks": {"python": "hafs.tasks.python:python"},
    "domains": {},
    "losses": {
        name: f"hafs.training.losses:{name}"
        for name in (
            "sigmoid",
            "sigmoid_norm",
            "robust",
            "ipo",
            "hinge",
            "apo_zero",
            "simpo",
            "orpo",
            "plackett_luce",
            "kto",
        )
    },
}

_ONE = {"scorers": "scorer", "backends": "backend", "tasks": "task", "losses": "loss", "domains": "domain"}


@cache
def _table(kind: str) -> dict[str, str]:
    outside = {e.name: e.value for e in entry_points(group=f"hafs.{kind}")}
    return {**outside, **BUILTIN[kind]}


def names(kind: str) -> list[str]:
    """The names known for `kind` ("scorers", "backends", "tasks", "losses", "domains"), sorted."""
    return sorted(_table(kind))


def load(kind: str, name: str) -> Any:
    """The object registered under `name`; raises UsageError naming what exists when there is none."""
    table = _table(kind)
    if name not in table:
        raise UsageError(f"there is no {_ONE[kind]} named {name!r}", f"use one of: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
