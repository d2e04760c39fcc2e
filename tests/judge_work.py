"""What the tests of judging share: a workspace with candidates, judges at a test server, a run of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hafs.judge import open_protocol
from hafs.judge.prices import load_prices
from hafs.judge.run.calling import Manner
from hafs.judge.run.runner import JudgeResult, Judging, judge
from hafs.judge.work import Selection
from hafs.servers.anthropic import AnthropicClient
from hafs.servers.client import Client
from hafs.servers.openai import OpenAIClient
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt, Reference

OPUS = "claude-opus-4-5"


def filled(path: Path, prompts: int = 4, candidates: int = 3, length: int = 0) -> Store:
    """A store with prompts whose candidates say how good they are; `length` pads each to that many characters."""
    store = open_store(path / "hafs.db")
    made = [Prompt(f"prompt {i}", references=(Reference("r", "quality 9"),)) for i in range(prompts)]
    store.add_prompts(made)
    store.add_candidates(
        Candidate(p.id, f"answer {j} quality {(3 * j + i) % 9 + 1}".ljust(length, "."), index=j)
        for i, p in enumerate(made)
        for j in range(candidates)
    )
    return store


def client_of(kind: str, server: Any, name: str = "") -> Client:
    """A client of either SDK at the test server; the Anthropic one takes its address from the environment."""
    if kind == "anthropic":
        return AnthropicClient(name or OPUS)
    return OpenAIClient(name or "local", server.v1)


def run(
    store: Store,
    *clients: Client,
    protocol: str = "listwise",
    budget: float | None = None,
    batch: bool = False,
    poll: float = 0.02,
    **manner: Any,
) -> list[JudgeResult]:
    """Judge everything in the store."""
    selection = Selection([p.id for p in store.prompts()])
    how = Manner(**{"concurrency": 8, "timeout": 20.0, **manner})
    judging = Judging(open_protocol(protocol), selection, how, budget, batch, poll)
    return judge(store, clients, load_prices(), judging)


def greedy_usage(body: dict[str, Any]) -> tuple[int, int]:
    """As many tokens as could be charged: a token a byte, and the whole reply."""
    texts = [body.get("system", ""), *(m["content"] for m in body["messages"])]
    return sum(len(t.encode()) for t in texts) + 300, int(body["max_tokens"])
