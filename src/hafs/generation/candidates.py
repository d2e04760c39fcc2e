"""Candidates into the workspace: every planned batch is stored as it comes, and a batch that is there is not repeated.

The plan of batches depends only on the prompts and the settings, and a batch samples from its own seed, so a run that
was killed ends with the candidates of one that was not. A server is asked for each answer alone, so there a run goes on
with the answers that are missing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hafs.backends import Answer, Backend, Request, Unanswered, is_local, open_backend
from hafs.cluster import Crew
from hafs.config import GenerateConfig
from hafs.errors import HafsError
from hafs.store import Store, open_store
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
    store: Store,
    backend: Backend,
    prompts: Sequence[Prompt],
    config: GenerateConfig,
    progress: Progress = silent,
    crew: Crew | None = None,
) -> Generated:
    """`config.candidates` answers for each different prompt, from the store where it has them, else from the backend.

    With `config.greedy` the likeliest answer of each comes after them. Adds the prompts to the store. Raises HafsError
    when the backend can go on no more; the answers that it gave before are kept. With a `crew` its workers sample, each
    with the backend of this name, and `backend` only plans.
    """
    if config.greedy:
        return _with_greedy(store, backend, prompts, config, progress, crew)
    unique = {p.id: p for p in prompts}
    store.add_prompts(unique.values())
    sampler = Sampler(store, backend, config)
    sampler.look(list(unique))
    known = sampler.known
    plan = backend.plan(_requests(backend, unique, known, config), config)
    todo = [batch for batch in plan if sampler.missing(batch)]
    new, done, failed = 0, len(plan) - len(todo), Counter[str]()
    stop: SampledBatch | None = None
    if done:
        progress("generating", done, len(plan), {})
    for sampled in _sampled(sampler, todo, crew):
        new += sampled.new
        done += 1
        failed.update(sampled.failed)
        stop = stop or (sampled if sampled.error else None)
        progress("generating", done, len(plan), {})
    if crew is not None:
        sampler.look(list(unique))
    if stop is not None:
        have, total = sum(map(len, known.values())), len(unique) * config.candidates
        raise HafsError(f"{stop.error}; {have} of {total} answers are in the workspace", stop.fix)
    if failed and not any(known.values()):
        reason = failed.most_common(1)[0][0]
        raise HafsError(f"none of {len(unique)} prompts could be answered: {reason}", "correct the prompts")
    order = dict.fromkeys(r.key for batch in plan for r in batch) if backend.capabilities.batch else unique
    found = [known[id][i] for id in order for i in range(config.candidates) if i in known[id]]
    return Generated(found, new, sum(c.finish == "length" for c in found), dict(failed))


def _sampled(sampler: Sampler, todo: Sequence[list[Request]], crew: Crew | None) -> Iterator[SampledBatch]:
    """Each batch as it is done, here or by the workers of a cluster; none is begun after one that says to stop."""
    if crew is None:
        for batch in todo:
            with sampler.store.claimed(sampler.claim):  # one at a time, who looks first at what the others made
                sampled = sampler(batch)
            yield sampled
            if sampled.error:
                return
        return
    stopped = False
    config = sampler.config
    share = max(1, config.concurrency // crew.room(is_local(sampler.backend.name)))
    job = SamplingJob(sampler.store.url, sampler.backend.name, config.model_copy(update={"concurrency": share}))
    crew.claim(sampler.claim, lambda: sampler.store.claimed(sampler.claim, workers=True))
    for _, sampled in crew.map(job, (b for b in todo if not stopped), len(todo)):
        stopped = stopped or bool(sampled.error)
        yield sampled


@dataclass(frozen=True)
class SampledBatch:
    """What came of a batch: how many candidates are new, how many answers failed by reason.

    Where asking on is of no use `error` says why, and `fix` what to do.
    """

    new: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    fix: str = ""


class Sampler:
    """Does planned batches, one at a time: looks for what is there, samples what is missing, keeps it."""

    def __init__(self, store: Store, backend: Backend, config: GenerateConfig) -> None:
        self.store, self.backend, self.config = store, backend, config
        self._sampling = sampling_of(config)
        self.claim = content_id("generate", backend.model, config.seed, self._sampling)
        self.known: dict[str, dict[int, Candidate]] = defaultdict(dict)

    def __call__(self, batch: Sequence[Request]) -> SampledBatch:
        """One planned batch, under the claim."""
        self.look([r.key for r in batch])
        missing = self.missing(batch)
        if not missing:
            return SampledBatch()
        made, stopped = _answers(self.backend, batch if self.backend.capabilities.batch else missing, self.config)
        new = self._keep(made)
        if stopped is None:
            return SampledBatch(new)
        useless = stopped.fatal or not (stopped.answers or stopped.refused)
        return SampledBatch(new, stopped.failed, stopped.what if useless else "", stopped.fix)

    def look(self, prompt_ids: list[str]) -> None:
        """Add to `known` the answers that the store has by now."""
        found = self.store.candidates(model=self.backend.model, prompt_ids=prompt_ids, source="generate")
        for candidate in found:
            if candidate.seed == self.config.seed and dict(candidate.sampling) == self._sampling:
                self.known[candidate.prompt_id].setdefault(candidate.index, candidate)

    def missing(self, batch: Sequence[Request]) -> list[Request]:
        """The requests of a batch that have an answer without a candidate."""
        return [r for r in batch if not set(range(r.index, r.index + r.n)) <= self.known[r.key].keys()]

    def _keep(self, made: Sequence[Answer]) -> int:
        """Write answers with their exact token ids, none for a number that has one; returns how many are new."""
        rows = [(self._candidate(a), a) for a in made if a.index not in self.known[a.key]]
        for candidate, _ in rows:
            self.known[candidate.prompt_id][candidate.index] = candidate
        return self.store.add_candidates([c for c, _ in rows], {c.id: a.token_ids for c, a in rows})

    def _candidate(self, answer: Answer) -> Candidate:
        return Candidate(
            prompt_id=answer.key,
            text=answer.text,
            model=self.backend.model,
            model_name=self.backend.name,
            seed=self.config.seed,
            index=answer.index,
            sampling=self._sampling,
            logprob=answer.logprob,
            n_tokens=answer.length,
            finish=answer.finish,
            thought=answer.thought,
        )


@dataclass(frozen=True)
class SamplingJob:
    """A worker's part in sampling: the database that it opens, the model that it loads, the settings."""

    database: str
    model: str
    config: GenerateConfig

    @property
    def accelerated(self) -> bool:
        """Weights of its own want an accelerator; a server has them."""
        return is_local(self.model)

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[Request]], SampledBatch]]:
        """Load the model and join the claim; yields what does a planned batch."""
        with open_store(self.database) as store:
            sampler = Sampler(store, open_backend(self.model), self.config)

            def sample(batch: Sequence[Request]) -> SampledBatch:
                sampler.known.clear()  # a worker does many batches, each once
                return sampler(batch)

            with store.joined(sampler.claim):
                yield sample


def _with_greedy(
    store: Store,
    backend: Backend,
    prompts: Sequence[Prompt],
    config: GenerateConfig,
    progress: Progress,
    crew: Crew | None,
) -> Generated:
    """The sampled answers, then the likeliest one of each prompt, which is a candidate like them."""
    sampled = generate_candidates(store, backend, prompts, config.model_copy(update={"greedy": False}), progress, crew)
    likeliest = {"greedy": False, "candidates": 1, "temperature": 0.0, "top_p": 1.0}
    one = generate_candidates(store, backend, prompts, config.model_copy(update=likeliest), progress, crew)
    failed = Counter(sampled.failed) + Counter(one.failed)
    return Generated([*sampled.candidates, *one.candidates], sampled.new + one.new, sampled.cut + one.cut, dict(failed))


def sampling_of(config: GenerateConfig) -> dict[str, Any]:
    """The settings that a candidate's text depends on, beside model, prompt and seed; in the store's order of keys."""
    names = ("batch_size", "candidates", "max_new_tokens", "temperature", "top_p")
    thinking = {} if config.thinking == "keep" else {"thinking": config.thinking}
    return {name: getattr(config, name) for name in names} | thinking


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
