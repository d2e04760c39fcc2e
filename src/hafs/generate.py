"""Candidates into the workspace: every planned batch is stored as it comes, and a batch that is there is not repeated.

The plan of batches depends only on the prompts and the settings, and a batch samples from its own seed, so a run that
was killed ends with the candidates of one that was not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hafs.backends import Answer, Backend, Request
from hafs.config import GenerateConfig
from hafs.store import Store
from hafs.types import Candidate, Progress, Prompt, silent


@dataclass(frozen=True)
class Generated:
    """The candidates of every prompt, how many of them are new, and how many answers were cut at the token limit."""

    candidates: list[Candidate]
    new: int
    cut: int


def generate_candidates(
    store: Store,
    backend: Backend,
    prompts: Sequence[Prompt],
    config: GenerateConfig,
    progress: Progress = silent,
) -> Generated:
    """`config.candidates` answers for each different prompt, from the store where it has them, else from the backend.

    Adds the prompts to the store. Raises what the backend raises; batches done before that are kept.
    """
    unique = {p.id: p for p in prompts}
    store.add_prompts(unique.values())
    requests = [Request(id, p.text, p.system, config.candidates) for id, p in unique.items()]
    sampling = sampling_of(config)
    known: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in store.candidates(model=backend.model, prompt_ids=list(unique), source="generate"):
        if candidate.seed == config.seed and dict(candidate.sampling) == sampling:
            known[candidate.prompt_id].append(candidate)
    plan = backend.plan(requests, config)
    found: list[Candidate] = []
    new = 0
    for done, batch in enumerate(plan, 1):
        if not all(len(known[r.key]) >= r.n for r in batch):
            made = [_candidate(a, backend, config, sampling) for a in backend.generate(batch, config)]
            new += store.add_candidates(made)
            for request in batch:
                known[request.key] = [c for c in made if c.prompt_id == request.key]
        for request in batch:
            found += known[request.key][: request.n]
        progress("generating", done, len(plan), {})
    return Generated(found, new, sum(c.finish == "length" for c in found))


def sampling_of(config: GenerateConfig) -> dict[str, Any]:
    """The settings that a candidate's text depends on, beside model, prompt and seed; in the store's order of keys."""
    names = ("batch_size", "candidates", "max_new_tokens", "temperature", "top_p")
    return {name: getattr(config, name) for name in names}


def _candidate(answer: Answer, backend: Backend, config: GenerateConfig, sampling: dict[str, Any]) -> Candidate:
    return Candidate(
        prompt_id=answer.key, text=answer.text, model=backend.model, model_name=backend.name, seed=config.seed,
        index=answer.index, sampling=sampling, logprob=answer.logprob, n_tokens=len(answer.token_ids),
        finish=answer.finish,
    )  # fmt: skip
