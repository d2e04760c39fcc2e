"""The stages of the whole path, each a function of a workspace's store; no algorithm of their own.

Every stage asks the store what is there and does the rest, so it can be killed and repeated. The verbs call these, and
so does the demo.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hafs.backends import Request, answers, is_local, open_backend
from hafs.config import Config, EvalConfig, GenerateConfig, PreferencesConfig
from hafs.errors import HafsError, UsageError
from hafs.evals import EvalResult, SampledResult, eval_result, sampled_result
from hafs.evals.compare import pair_up, winner
from hafs.generate import generate_candidates
from hafs.judge.clients import judge_of
from hafs.models import model_hash, resolve
from hafs.preferences import BuildReport, Stats, group_from_people
from hafs.scorers import Scorer, open_scorer
from hafs.shares import Build, build, few_cycles
from hafs.store import Run, Store
from hafs.types import Annotation, Candidate, PreferenceGroup, Progress, Prompt, Score, content_id, silent

SCORE_CHUNK = 64


@dataclass
class ReferenceReport:
    """How many reference answers were checked, how many are right, what is wrong with the others.

    `unscored` counts, by reason, the answers that could not be checked; they are in neither number.
    """

    total: int = 0
    right: int = 0
    problems: list[str] = field(default_factory=list)
    unscored: Counter[str] = field(default_factory=Counter)


def check_references(prompts: Sequence[Prompt], progress: Progress = silent) -> ReferenceReport:
    """Run the references of `prompts` through each prompt's own checker."""
    report = ReferenceReport()
    for checker in sorted({p.checker for p in prompts if p.checker}):
        mine = [p for p in prompts if p.checker == checker]
        items = [(p, Candidate(p.id, r.text, source=f"reference:{r.name}")) for p in mine for r in p.references]
        with closing(open_scorer(checker)) as scorer:
            for done, ((prompt, candidate), score) in enumerate(zip(items, scorer.score(items), strict=True), 1):
                if score.value is None:
                    report.unscored[score.reason] += 1
                else:
                    report.total += 1
                    report.right += bool(score.passed)
                    if not score.passed:
                        where = f"{prompt.family} {prompt.id} {candidate.source}".strip()
                        report.problems.append(f"{where}: {score.cause or 'wrong'}")
                progress("checking", done, len(items), {})
    report.problems += [f"{p.id}: no checker" for p in prompts if not p.checker]
    report.problems += [f"{p.id}: no reference answer to check" for p in prompts if p.checker and not p.references]
    return report


def scorer_name(config: Config, name: str = "") -> str:
    """The scorer or judge named, or the workspace's where the name is "automatic"."""
    return config.score.scorer if name in ("", "automatic", "auto") else name


def scorer_for(config: Config, name: str = "") -> Scorer:
    """The scorer named, or the workspace's; "automatic" means the workspace's.

    Raises UsageError for a judge, which gives no candidate a value: it compares those of a prompt.
    """
    chosen = scorer_name(config, name)
    if judge_of(chosen):
        raise UsageError(
            f"{chosen} is a judge, which compares answers and gives none a value",
            "a scorer such as `asm` here; for a judge `hafs judge run`, then `hafs judge winrate dpo sft`",
        )
    return open_scorer(chosen, workers=config.score.workers, sandbox=config.score.sandbox)


@dataclass(frozen=True)
class Scored:
    """How many candidates got a value now, and how many are unscored, by reason."""

    scored: int
    unscored: Mapping[str, int]

    @property
    def coverage(self) -> float | None:
        """The share of the candidates tried now that got a value; None when there were none."""
        tried = self.scored + sum(self.unscored.values())
        return self.scored / tried if tried else None


def score_candidates(store: Store, scorer: Scorer, progress: Progress = silent, **filters: Any) -> Scored:
    """Score what has no value yet, new or unscored before; `filters` are those of `Store.to_score`."""
    todo = list(store.to_score(scorer.name, scorer.version, scorer.arguments, **filters))
    return _score(store, scorer, todo, progress)


def _score(
    store: Store, scorer: Scorer, todo: Sequence[tuple[Prompt, Candidate]], progress: Progress = silent
) -> Scored:
    """Score `todo` and keep the scores, a chunk at a time."""
    scored, unscored = 0, dict[str, int]()
    chunk: list[Score] = []
    for done, score in enumerate(scorer.score(todo), 1):
        chunk.append(score)
        if score.value is None:
            unscored[score.reason] = unscored.get(score.reason, 0) + 1
        else:
            scored += 1
        if len(chunk) == SCORE_CHUNK or done == len(todo):
            store.add_scores(chunk)
            chunk = []
        progress("scoring", done, len(todo), {})
    return Scored(scored, unscored)


def greedy(config: EvalConfig) -> GenerateConfig:
    """The decoding of evaluations: the likeliest token each time."""
    return GenerateConfig(
        candidates=1, temperature=0.0, top_p=1.0, max_new_tokens=config.max_new_tokens, batch_size=config.batch_size
    )


def checker_of(prompt: Prompt) -> str:
    """What checks a prompt's answers: its own checker, `exact` where it has only references, else "" (the default)."""
    return prompt.checker or ("exact" if prompt.references else "")


@contextmanager
def checkers_for(config: Config, prompts: Sequence[Prompt]) -> Iterator[dict[str, Scorer]]:
    """The scorers of all checkers that `prompts` name, by that name, judges left out; closed at the end."""
    with ExitStack() as stack:
        names = sorted({checker_of(p) for p in prompts if not judge_of(p.checker)})
        yield {name: stack.enter_context(closing(scorer_for(config, name))) for name in names}


def evaluate(
    store: Store,
    scorer: Scorer | Mapping[str, Scorer],
    model: str,
    name: str,
    benchmark: str,
    prompts: Sequence[Prompt],
    config: EvalConfig,
    progress: Progress = silent,
) -> EvalResult:
    """Answer a benchmark greedily and check the answers; what the store has is not done again.

    `scorer` checks all prompts, or those of `checkers_for` each check their own. The result is kept as a run of kind
    "eval", and comes from there when it is complete; one with unscored prompts is a failed run, and what is missing is
    tried again next time.
    """
    if not prompts:
        raise UsageError(f"the benchmark {benchmark} has no prompts", "check the file")
    decoding = greedy(config)
    settings = {
        "name": name,
        "benchmark": benchmark,
        "decoding": decoding.model_dump(),
        "scorer": _versions(scorer),
        "prompts": content_id([p.id for p in prompts]),
    }
    backend = None if is_local(model) else open_backend(model)
    where = backend.name if backend else str(resolve(model))
    run = store.start_run("eval", settings, {"model": backend.model if backend else model_hash(where)})
    known = store.get_run(run)
    if known is not None and known.status == "finished":
        store.finish_run(run, "finished", known.metrics, known.outputs, known.model)  # now the newest of its name
        return EvalResult.from_dict(known.outputs)
    started = time.monotonic()
    backend = backend or open_backend(model)
    made = generate_candidates(store, backend, _held_out(prompts), decoding, progress).candidates
    scores = _scores(store, scorer, prompts, made, backend.model, progress)
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
    store.finish_run(
        run,
        "failed" if result.unscored() else "finished",
        {"passed": result.passed, "scored": result.scored},
        result.to_dict(),
        model=backend.model,
    )
    return result


def evaluate_sampled(
    store: Store,
    scorer: Scorer | Mapping[str, Scorer],
    model: str,
    name: str,
    benchmark: str,
    prompts: Sequence[Prompt],
    sampling: GenerateConfig,
    progress: Progress = silent,
) -> SampledResult:
    """Sample `sampling.candidates` answers to each prompt of a benchmark and check them, as `evaluate` does.

    The result is a run of kind "eval-sampled"; pass@k comes from it.
    """
    path = resolve(model)
    settings = {
        "name": name,
        "benchmark": benchmark,
        "decoding": sampling.model_dump(),
        "scorer": _versions(scorer),
        "prompts": content_id([p.id for p in prompts]),
    }
    run = store.start_run("eval-sampled", settings, {"model": model_hash(path)})
    known = store.get_run(run)
    if known is not None and known.status == "finished":
        store.finish_run(run, "finished", known.metrics, known.outputs, known.model)
        return SampledResult.from_dict(known.outputs)
    started = time.monotonic()
    backend = open_backend(model)
    made = generate_candidates(store, backend, _held_out(prompts), sampling, progress).candidates
    scores = _scores(store, scorer, prompts, made, backend.model, progress)
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
    status = "failed" if result.unscored() else "finished"
    store.finish_run(run, status, {"answers": len(made)}, result.to_dict(), model=backend.model)
    return result


def _held_out(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts as they enter the store: what a model is tested with is no training prompt by default."""
    return [replace(p, split="test") if p.split == "train" else p for p in prompts]


def _versions(scorer: Scorer | Mapping[str, Scorer]) -> Any:
    """What identifies the checkers of an evaluation: one's version, or the version of each by name."""
    if not isinstance(scorer, Mapping):
        return scorer.version
    versions = {s.name: s.version for s in scorer.values()}
    return next(iter(versions.values())) if len(versions) == 1 else versions


def _scores(
    store: Store,
    scorer: Scorer | Mapping[str, Scorer],
    prompts: Sequence[Prompt],
    made: Sequence[Candidate],
    model: str,
    progress: Progress,
) -> list[Score]:
    """The scores of `made`, computed where the store has none, with the checks of `prompts` as they are given."""
    if isinstance(scorer, Mapping):
        out: list[Score] = []
        for name, one in scorer.items():
            out += _scores(store, one, [p for p in prompts if checker_of(p) == name], made, model, progress)
        return out
    by_id = {p.id: p for p in prompts}
    mine = {c.id: c for c in made if c.prompt_id in by_id}

    def known() -> dict[str, Score]:
        found = store.scores(prompt_ids=list(by_id), model=model, scorer=scorer.name, version=scorer.version)
        same = (s for s in found if s.candidate_id in mine and dict(s.arguments) == dict(scorer.arguments))
        return {s.candidate_id: s for s in same}

    scored = {id for id, s in known().items() if s.value is not None}
    _score(store, scorer, [(by_id[c.prompt_id], c) for id, c in mine.items() if id not in scored], progress)
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

    def __call__(self, step: int, net: Any) -> Mapping[str, float]:
        """Metrics of the network as it is now; "score" picks the checkpoint. Empty when nothing could be scored.

        Raises HafsError when that is so at the start: the checkpoint could not be picked by what was asked for.
        """
        now = self._answered(net)
        if not now.scored:
            if step == 0:
                why = "; ".join(now.unscored())
                raise HafsError(f"no answer to the validation prompts could be scored: {why}", "hafs doctor")
            return {}
        if self.before is None:  # training asks about the model that it starts from first, when it resumes too
            self.before = now
        wins = [winner(new, old) for new, old in pair_up(now, self.before)[0]]
        net_wins = sum(wins) / max(1, len(wins))
        rate = now.passed / now.scored
        return {
            "score": rate + 0.5 * net_wins / now.scored,  # all wins together weigh less than one prompt
            "pass_rate": rate,
            "prompts": now.scored,
            "net_wins": net_wins,
            "builds": sum(r.builds is True for r in now.results) / now.scored,
            "tokens": sum(r.n_tokens or 0 for r in now.results) / len(now.results),
        }

    def _answered(self, net: Any) -> EvalResult:
        """The network's greedy answers to the prompts, checked."""
        from hafs.backends.transformers import TransformersBackend

        backend = TransformersBackend.of(net, self.tokenizer)
        requests = [Request(p.id, p.text, p.system) for p in self.prompts]
        made = [
            Candidate(a.key, a.text, n_tokens=len(a.token_ids), finish=a.finish)
            for batch in answers(backend, requests, greedy(self.config))
            for a in batch
        ]
        by_id = {p.id: p for p in self.prompts}
        scores = {s.candidate_id: s for s in self.scorer.score([(by_id[c.prompt_id], c) for c in made])}
        return eval_result("in training", "", "", "validation", {}, self.prompts, made, scores)


@dataclass(frozen=True)
class BuiltGroups:
    """The groups of a run in the store; they are read when they are gone through, so any number of them fits."""

    store: Store
    run: str
    n: int

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[PreferenceGroup]:
        return self.store.groups(run=self.run)


def preference_groups(
    store: Store, scorer: Scorer, config: PreferencesConfig, progress: Progress = silent, **filters: Any
) -> tuple[BuiltGroups, BuildReport]:
    """The workspace's candidates as preference groups, by what `scorer` says of them.

    They are kept in the store as the groups of a run of kind "preferences", so that builds do not mix.
    """
    arguments, pairing = dict(scorer.arguments), config.model_dump()
    work = Build(store.url, scorer.name, scorer.version, arguments, pairing, filters)
    built = build(store, work, progress)
    about = {"scorer": f"{scorer.name}@{scorer.version}", "arguments": arguments, **pairing}
    return _noted(store, built.ids, about, built.report.to_dict(), built.stats), built.report


def keep_groups(
    store: Store, groups: Iterable[PreferenceGroup], about: Mapping[str, Any], metrics: Callable[[], Mapping[str, Any]]
) -> BuiltGroups:
    """Put groups into the store as those of a run of kind "preferences", with their statistics; never all in memory."""
    stats = Stats()
    ids: list[str] = []
    with few_cycles():
        for rows in store.encoded("groups", stats.counted(groups)):
            store.add_encoded("groups", rows)
            ids += [row["id"] for row in rows]
    return _noted(store, ids, about, metrics(), stats)


def _noted(
    store: Store, ids: Sequence[str], about: Mapping[str, Any], metrics: Mapping[str, Any], stats: Stats
) -> BuiltGroups:
    """Groups that are in the store as those of a run of kind "preferences"."""
    run = store.start_run("preferences", about, {"groups": content_id(ids)})
    store.link_groups(run, ids)
    store.finish_run(run, "finished", metrics, {"stats": stats.to_dict()})
    return BuiltGroups(store, run, len(ids))


def newest_stats(store: Store) -> Stats:
    """What is in the groups that `newest_groups` gives; counted when they were built where that is known."""
    run = _newest_build(store)
    if run is not None and "stats" in run.outputs:
        return Stats.from_dict(dict(run.outputs["stats"]))
    stats = Stats()
    for group in store.groups(run=run.id if run else None):
        stats.add(group)
    return stats


def _newest_build(store: Store) -> Run | None:
    built = [r for r in store.runs(kind="preferences") if r.status == "finished"]
    return max(built, key=lambda r: r.finished or 0.0, default=None)


def groups_from_people(
    store: Store, config: PreferencesConfig, *, annotators: Sequence[str] | None = None, split: str | None = None
) -> tuple[BuiltGroups, BuildReport]:
    """What people said of the workspace's candidates as preference groups; kept like those of `preference_groups`.

    `annotators` are the people that count (all without it), `split` the prompts' split.
    """
    said: dict[str, list[Annotation]] = {}
    for annotation in store.annotations(annotator=annotators):
        said.setdefault(annotation.prompt_id, []).append(annotation)
    report = BuildReport()
    options: dict[str, Any] = {"scheme": config.scheme, "max_candidates": config.max_candidates}

    def made() -> Iterator[PreferenceGroup]:
        for prompt in store.prompts(ids=list(said), split=split):
            report.prompts += 1
            candidates = list(store.candidates(prompt_ids=prompt.id))
            group = group_from_people(prompt, candidates, said[prompt.id], **options)
            if group is None:
                report.skipped["nobody said that one answer is better than another"] += 1
                continue
            report.groups += 1
            report.edges += len(group.edges)
            yield group

    about = {"scorer": "human", "annotators": sorted(annotators or ()), "split": split, **options}
    return keep_groups(store, made(), about, report.to_dict), report


def newest_groups(store: Store) -> list[PreferenceGroup]:
    """The groups of the newest build (of everything imported when nothing was built)."""
    run = _newest_build(store)
    return list(store.groups(run=run.id if run else None))
