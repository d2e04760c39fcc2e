"""A benchmark answered by a model and checked; pass rate measured on a model in training.

Every stage asks the store what is there and does the rest, so it can be killed and repeated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hafs.backends import Request, answers, is_local, open_backend, open_planner
from hafs.cluster import Crew
from hafs.config import EvalConfig, GenerateConfig
from hafs.errors import HafsError, UsageError
from hafs.evals import EvalResult, SampledResult, eval_result, sampled_result
from hafs.evals.compare import pair_up, winner
from hafs.evals.results import MIN_COVERAGE
from hafs.generation.candidates import generate_candidates
from hafs.models.naming import model_hash, resolve
from hafs.scorers import Scorer, prepare
from hafs.scorers.run import checkers, identity, score_all
from hafs.store import Store
from hafs.types import Candidate, Progress, Prompt, Score, content_id, silent

_DEFAULTS = GenerateConfig.model_validate({}).model_dump()


def greedy(config: EvalConfig, benchmark: str = "") -> GenerateConfig:
    """The decoding of evaluations: the likeliest token each time, thinking as the benchmark has it."""
    return GenerateConfig(
        candidates=1,
        temperature=0.0,
        top_p=1.0,
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        thinking=config.thinking_of.get(benchmark, config.thinking),
    )


def evaluate(
    store: Store,
    scorer: Scorer,
    model: str,
    name: str,
    benchmark: str,
    prompts: Sequence[Prompt],
    config: EvalConfig,
    progress: Progress = silent,
    crew: Crew | None = None,
) -> EvalResult:
    """Answer a benchmark greedily and check the answers; what the store has is not done again.

    `scorer` checks all prompts, or for "automatic" each prompt's own checker does. The result is kept as a run of kind
    "eval", and comes from there when it is complete; one with unscored prompts is a failed run, and what is missing is
    tried again next time. With a `crew` its workers answer and check.
    """
    if not prompts:
        raise UsageError(f"the benchmark {benchmark} has no prompts", "check the file")
    decoding = greedy(config, benchmark)
    prepare(scorer, prompts)
    settings = {
        "name": name,
        "benchmark": benchmark,
        "decoding": decoding.model_dump(),
        "scorer": identity(scorer, prompts),
        "prompts": content_id([p.id for p in prompts]),
    }
    backend = None if is_local(model) else open_backend(model)
    where = backend.name if backend else str(resolve(model))
    made_by = {"model": backend.model if backend else model_hash(where)}
    known = store.once("eval", settings, made_by, {"decoding": _DEFAULTS})
    if known.done is not None:
        return EvalResult.from_dict(known.renew().outputs)
    started = time.monotonic()
    backend = backend or (open_backend(model) if crew is None else open_planner(model))
    made = generate_candidates(store, backend, _held_out(prompts), decoding, progress, crew).candidates
    scores = _scores(store, scorer, prompts, made, backend.model, progress, crew)
    result = eval_result(
        name,
        backend.model,
        where,
        benchmark,
        decoding.model_dump(),
        prompts,
        made,
        {s.candidate_id: s for s in scores},
        seconds=time.monotonic() - started,
    )
    figures = {"passed": result.passed, "scored": result.scored}
    known.finish(figures, result.to_dict(), model=backend.model, whole=not result.unscored())
    return result


def evaluate_sampled(
    store: Store,
    scorer: Scorer,
    model: str,
    name: str,
    benchmark: str,
    prompts: Sequence[Prompt],
    sampling: GenerateConfig,
    progress: Progress = silent,
    crew: Crew | None = None,
) -> SampledResult:
    """Sample `sampling.candidates` answers to each prompt of a benchmark and check them, as `evaluate` does.

    The result is a run of kind "eval-sampled"; pass@k comes from it.
    """
    path = resolve(model)
    prepare(scorer, prompts)
    settings = {
        "name": name,
        "benchmark": benchmark,
        "decoding": sampling.model_dump(),
        "scorer": identity(scorer, prompts),
        "prompts": content_id([p.id for p in prompts]),
    }
    known = store.once("eval-sampled", settings, {"model": model_hash(path)}, {"decoding": _DEFAULTS})
    if known.done is not None:
        return SampledResult.from_dict(known.renew().outputs)
    started = time.monotonic()
    backend = open_backend(model) if crew is None else open_planner(model)
    made = generate_candidates(store, backend, _held_out(prompts), sampling, progress, crew).candidates
    scores = _scores(store, scorer, prompts, made, backend.model, progress, crew)
    result = sampled_result(
        name,
        backend.model,
        str(path),
        benchmark,
        sampling.model_dump(),
        prompts,
        made,
        {s.candidate_id: s for s in scores},
        seconds=time.monotonic() - started,
    )
    known.finish({"answers": len(made)}, result.to_dict(), model=backend.model, whole=not result.unscored())
    return result


def _held_out(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts as they enter the store: what a model is tested with is no training prompt by default."""
    return [replace(p, split="test") if p.split == "train" else p for p in prompts]


def _scores(
    store: Store,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    made: Sequence[Candidate],
    model: str,
    progress: Progress,
    crew: Crew | None,
) -> list[Score]:
    """The scores of `made`, computed where the store has none, with the checks of `prompts` as they are given."""
    found: list[Score] = []
    for checker, mine in checkers(scorer, prompts):
        found += _scores_of(store, checker, mine, made, model, progress, crew)
    return found


def _scores_of(
    store: Store,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    made: Sequence[Candidate],
    model: str,
    progress: Progress,
    crew: Crew | None,
) -> list[Score]:
    """The scores of the answers to `prompts` by one checker."""
    by_id = {p.id: p for p in prompts}
    mine = {c.id: c for c in made if c.prompt_id in by_id}

    def known() -> dict[str, Score]:
        found = store.scores(prompt_ids=list(by_id), model=model, scorer=scorer.name, version=scorer.version)
        same = (s for s in found if s.candidate_id in mine and dict(s.arguments) == dict(scorer.arguments))
        return {s.candidate_id: s for s in same}

    scored = {id for id, s in known().items() if s.value is not None}
    todo = [(by_id[c.prompt_id], c) for id, c in mine.items() if id not in scored]
    score_all(store, scorer, todo, progress, crew=crew, given=prompts)
    return list(known().values())


@dataclass
class PassRate:
    """Validation by what counts: the share of held-out prompts answered right, measured on the model in training.

    Pair accuracy can rise while a model forgets how to answer; this cannot. Among equal pass rates the checkpoint that
    wins more prompts against the start (by the scorer's own ordering, such as fewer bytes) is ahead.
    """

    tokenizer: Any
    prompts: Sequence[Prompt]
    scorer: Scorer
    config: EvalConfig
    before: EvalResult | None = None
    progress: Progress = silent

    def __call__(self, step: int, net: Any) -> Mapping[str, float]:
        """Metrics of the network as it is now; "score" picks the checkpoint, and is missing where too few of the
        answers could be scored (`MIN_COVERAGE`, as for a promotion): 3 right of 3 scored of 48 is no pass rate.

        Raises HafsError when that is so at the start: the checkpoint could not be picked by what was asked for.
        """
        now = self._answered(net)
        if not now.scored or now.coverage < MIN_COVERAGE:
            if step == 0:
                raise HafsError(
                    f"{now.scored} of {len(self.prompts)} answers to the validation prompts could be scored, too few to"
                    f" pick a checkpoint by: {'; '.join(now.unscored())}",
                    "hafs doctor",
                )
            return {"coverage": now.coverage, "prompts": now.scored}
        if self.before is None:  # training asks about the model that it starts from first, when it resumes too
            self.before = now
        wins = [winner(new, old) for new, old in pair_up(now, self.before)[0]]
        net_wins = sum(wins) / max(1, len(wins))
        rate = now.passed / now.scored
        built = [r.builds for r in now.results if r.builds is not None]
        return {
            "score": rate + 0.5 * net_wins / now.scored,  # all wins together weigh less than one prompt
            "pass_rate": rate,
            "coverage": now.coverage,
            "prompts": now.scored,
            "net_wins": net_wins,
            **({"builds": sum(built) / len(built)} if built else {}),
            "tokens": sum(r.n_tokens or 0 for r in now.results) / len(now.results),
        }

    def _answered(self, net: Any) -> EvalResult:
        """The network's greedy answers to the prompts, checked."""
        from hafs.generation.transformers import TransformersBackend

        backend = TransformersBackend.of(net, self.tokenizer)
        requests = [Request.of(p) for p in self.prompts]
        made = []
        for batch in answers(backend, requests, greedy(self.config)):
            made += [Candidate(a.key, a.text, n_tokens=a.length, finish=a.finish, thought=a.thought) for a in batch]
            self.progress("validating", len(made), len(requests), {})
        by_id = {p.id: p for p in self.prompts}
        scores = {}
        for s in self.scorer.score([(by_id[c.prompt_id], c) for c in made]):
            scores[s.candidate_id] = s
            self.progress("checking", len(scores), len(made), {})
        return eval_result("in training", "", "", "validation", {}, self.prompts, made, scores)
