"""Candidates into the workspace: every planned batch is stored as it comes, and a batch that is there is not repeated.

The plan of batches depends only on the prompts and the settings, and a batch samples from its own seed, so a run that
was killed ends with the candidates of one that was not. A server is asked for each answer alone, so there a run goes on
with the answers that are missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hafs.backends import Answer, Backend, Request, Unanswered
from hafs.config import GenerateConfig
from hafs.errors import HafsError
from hafs.store import Store
from hafs.types import Candidate, Progress, Prompt, content_id, silent


@dataclass(frozen=True)
class Generated:
    """The candidates of every prompt, how many of them are new, and how many answers were cut at the token limit.

    `failed` counts the answers that a server did not give, by reason.
    """

    candidates: list[Candidate]
    new: int
    cut: int
    failed: Mapping[str, int] = field(default_factory=dict)


def generate_candidates(
    store: Store, backend: Backend, prompts: Sequence[Prompt], config: GenerateConfig, progress: Progress = silent
) -> Generated:
    """`config.candidates` answers for each different prompt, from the store where it has them, else from the backend.

    With `config.greedy` the likeliest answer of each comes after them. Adds the prompts to the store. Raises HafsError
    when the backend can go on no more; the answers that it gave before are kept.
    """
    if config.greedy:
        return _with_greedy(store, backend, prompts, config, progress)
    unique = {p.id: p for p in prompts}
    store.add_prompts(unique.values())
    sampling = sampling_of(config)
    known: dict[str, dict[int, Candidate]] = defaultdict(dict)
    _look(store, backend, list(unique), config, sampling, known)
    claim = content_id("generate", backend.model, config.seed, sampling)
    plan = backend.plan(_requests(backend, unique, known, config), config)
    new, failed = 0, Counter[str]()
    for done, batch in enumerate(plan, 1):
        if not _missing(batch, known):
            progress("generating", done, len(plan), {})
            continue
        with store.claimed(claim):  # one process samples these at a time, and looks first at what the others made
            _look(store, backend, [r.key for r in batch], config, sampling, known)
            missing = _missing(batch, known)
            if backend.capabilities.batch and missing:
                missing = batch
            made, stopped = _answers(backend, missing, config) if missing else ([], None)
            new += _keep(store, made, backend, config, sampling, known)
        if stopped is not None:
            failed.update(stopped.failed)
            _go_on_or_raise(stopped, sum(map(len, known.values())), len(unique) * config.candidates)
        progress("generating", done, len(plan), {})
    if failed and not any(known.values()):
        reason = failed.most_common(1)[0][0]
        raise HafsError(f"none of {len(unique)} prompts could be answered: {reason}", "correct the prompts")
    order = dict.fromkeys(r.key for batch in plan for r in batch) if backend.capabilities.batch else unique
    found = [known[id][i] for id in order for i in range(config.candidates) if i in known[id]]
    return Generated(found, new, sum(c.finish == "length" for c in found), dict(failed))


def _with_greedy(
    store: Store, backend: Backend, prompts: Sequence[Prompt], config: GenerateConfig, progress: Progress
) -> Generated:
    """The sampled answers, then the likeliest one of each prompt, which is a candidate like them."""
    sampled = generate_candidates(store, backend, prompts, config.model_copy(update={"greedy": False}), progress)
    likeliest = {"greedy": False, "candidates": 1, "temperature": 0.0, "top_p": 1.0}
    one = generate_candidates(store, backend, prompts, config.model_copy(update=likeliest), progress)
    failed = Counter(sampled.failed) + Counter(one.failed)
    return Generated([*sampled.candidates, *one.candidates], sampled.new + one.new, sampled.cut + one.cut, dict(failed))


def sampling_of(config: GenerateConfig) -> dict[str, Any]:
    """The settings that a candidate's text depends on, beside model, prompt and seed; in the store's order of keys."""
    names = ("batch_size", "candidates", "max_new_tokens", "temperature", "top_p")
    thinking = {} if config.thinking == "keep" else {"thinking": config.thinking}
    return {name: getattr(config, name) for name in names} | thinking


def _look(
    store: Store,
    backend: Backend,
    prompt_ids: list[str],
    config: GenerateConfig,
    sampling: dict[str, Any],
    known: dict[str, dict[int, Candidate]],
) -> None:
    """Add to `known` the answers that the store has by now."""
    for candidate in store.candidates(model=backend.model, prompt_ids=prompt_ids, source="generate"):
        if candidate.seed == config.seed and dict(candidate.sampling) == sampling:
            known[candidate.prompt_id].setdefault(candidate.index, candidate)


def _missing(batch: Sequence[Request], known: Mapping[str, Mapping[int, Candidate]]) -> list[Request]:
    """The requests of a batch that have an answer without a candidate."""
    return [r for r in batch if not set(range(r.index, r.index + r.n)) <= known[r.key].keys()]


def _requests(
    backend: Backend,
    prompts: Mapping[str, Prompt],
    known: Mapping[str, Mapping[int, Candidate]],
    config: GenerateConfig,
) -> list[Request]:
    """One request for each prompt; where answers do not depend on their batch, one for each that is missing."""
    if backend.capabilities.batch:
        return [Request.of(p, config.candidates, key=id) for id, p in prompts.items()]
    return [
        Request.of(p, 1, index, id)
        for id, p in prompts.items()
        for index in range(config.candidates)
        if index not in known[id]
    ]


def _answers(
    backend: Backend, batch: Sequence[Request], config: GenerateConfig
) -> tuple[list[Answer], Unanswered | None]:
    try:
        return backend.generate(batch, config), None
    except Unanswered as e:
        return e.answers, e


def _keep(
    store: Store,
    made: Sequence[Answer],
    backend: Backend,
    config: GenerateConfig,
    sampling: dict[str, Any],
    known: dict[str, dict[int, Candidate]],
) -> int:
    """Write answers with their exact token ids, none for a number that has one; returns how many are new."""
    rows = [(_candidate(a, backend, config, sampling), a) for a in made if a.index not in known[a.key]]
    for candidate, _ in rows:
        known[candidate.prompt_id][candidate.index] = candidate
    return store.add_candidates([c for c, _ in rows], {c.id: a.token_ids for c, a in rows})


def _go_on_or_raise(stopped: Unanswered, have: int, total: int) -> None:
    """Raise where asking on is of no use: the server is gone, or the batch got no answer at all."""
    if stopped.fatal or not (stopped.answers or stopped.refused):
        raise HafsError(f"{stopped.what}; {have} of {total} answers are in the workspace", stopped.fix) from stopped


def _candidate(answer: Answer, backend: Backend, config: GenerateConfig, sampling: dict[str, Any]) -> Candidate:
    return Candidate(
        prompt_id=answer.key,
        text=answer.text,
        model=backend.model,
        model_name=backend.name,
        seed=config.seed,
        index=answer.index,
        sampling=sampling,
        logprob=answer.logprob,
        n_tokens=answer.length,
        finish=answer.finish,
        thought=answer.thought,
    )
