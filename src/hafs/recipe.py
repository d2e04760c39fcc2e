"""The whole path as one run of a workspace: baseline, SFT, candidates, preference groups, DPO, proof, decision.

A recipe is a typed set of figures; `run` does what of it the workspace does not have yet. It can be killed at any
moment and started again: it goes on where it was and ends with the same table. The better model is promoted; a DPO
model that is not at least as good as its SFT model is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hafs import tasks
from hafs.config import Config
from hafs.errors import HafsError
from hafs.evals import Comparison, EvalResult, compare
from hafs.jsonl import atomic_write
from hafs.models import model_hash, resolve
from hafs.pipeline import PassRate, evaluate, preference_groups, score_candidates, scorer_for
from hafs.preferences import BuildReport
from hafs.report import (
    Pairs,
    PairSource,
    ReportData,
    Rerun,
    Stage,
    Training,
    differing_examples,
    failures_by_cause,
    write_report,
)
from hafs.scorers import Scorer
from hafs.store import Store, Workspace
from hafs.types import Candidate, PreferenceGroup, Progress, Prompt, silent

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What to run: a task pack, how many prompts each stage gets, the benchmarks, and the settings of the stages.

    The prompts of SFT and those of the preferences are different ones of the train split; `validation` prompts pick
    the DPO checkpoint by pass rate. `tags` narrow the pack's families ("easy").
    """

    name: str
    pack: str
    sft_prompts: int
    preference_prompts: int
    validation_prompts: int
    benchmarks: tuple[str, ...]
    config: Config
    tags: tuple[str, ...] = ()
    model: str = "default"

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON, for the record of the run."""
        return {**asdict(self), "config": self.config.model_dump(mode="json")}


@dataclass
class Outcome:
    """What came of a recipe: the comparison, the promoted model's name and directory, the report, seconds by stage."""

    comparison: Comparison
    promoted: str
    promoted_path: Path
    report: Path
    stages: tuple[Stage, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "promoted": self.promoted, "promoted_path": str(self.promoted_path), "report": str(self.report),
            "seconds": {s.name: round(s.seconds, 1) for s in self.stages}, "comparison": self.comparison.to_dict(),
        }  # fmt: skip


@dataclass
class _Run:
    """One running recipe: the open store, where things go, and the seconds each stage has taken so far."""

    recipe: Recipe
    root: Path
    store: Store
    say: Say
    progress: Progress
    stages: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, number: int, of: int, work: Callable[[], Any]) -> Any:
        """Do a stage; the time of the attempt that ended it is kept in the workspace."""
        self.say(f"{number}/{of} {name}")
        run = self.store.start_run("stage", {"recipe": self.recipe.to_dict(), "stage": name})
        known = self.store.get_run(run)
        done = known is not None and known.status == "finished"
        started = time.monotonic()
        result = work()
        seconds = time.monotonic() - started
        if not done:
            self.store.finish_run(run, "finished", {"seconds": seconds})
        self.stages[name] = float(known.metrics["seconds"]) if known is not None and done else seconds
        return result


def run(recipe: Recipe, workspace: Workspace, say: Say = lambda _: None, progress: Progress = silent) -> Outcome:
    """Run `recipe` in `workspace`, or finish it, or return its outcome at once when it is done.

    Raises HafsError when a tool, the sandbox or the model is missing, or when nothing could be scored.
    """
    with workspace.open_store() as store:
        known = store.get_run(store.start_run("recipe", recipe.to_dict()))
        assert known is not None
        if known.status == "finished" and Path(known.outputs["report"]).is_file():
            return _outcome(known.outputs)
        with closing(scorer_for(recipe.config)) as scorer:
            outcome = _stages(_Run(recipe, workspace.root, store, say, progress), scorer)
        store.finish_run(known.id, "finished", {"promoted": outcome.promoted}, outcome.to_dict())
        return outcome


def _stages(r: _Run, scorer: Scorer) -> Outcome:
    from hafs.training import train_dpo, train_sft
    from hafs.training.data import examples

    recipe, config = r.recipe, r.recipe.config
    taught, asked, held = _prompts(recipe)
    _check_scorer(scorer, taught)
    benchmarks = {name: tasks.benchmark(name) for name in recipe.benchmarks}
    sft, dpo = r.root / "models" / "sft", r.root / "models" / "dpo"

    def judged(name: str, model: str) -> list[EvalResult]:
        return [evaluate(r.store, scorer, model, name, b, prompts, config.eval, r.progress)
                for b, prompts in benchmarks.items()]  # fmt: skip

    results = {"baseline": r.stage("evaluate the baseline", 1, 7, lambda: judged("baseline", recipe.model))}
    r.stage(
        "SFT",
        2,
        7,
        lambda: train_sft(recipe.model, examples(taught, config.sft.answers), config.sft, sft, progress=r.progress),
    )
    results["sft"] = r.stage("evaluate SFT", 3, 7, lambda: judged("sft", str(sft / "model")))
    r.stage("candidates", 4, 7, lambda: _candidates(r, scorer, sft / "model", asked))
    groups, report = r.stage("preferences", 5, 7, lambda: _groups(r, scorer, sft / "model", asked))
    if not groups:
        raise HafsError(f"no preference group came of the candidates: {report}", "more candidates or other prompts")

    def improve() -> Any:
        check = PassRate(_tokenizer(sft / "model"), held, scorer, config.eval)
        return train_dpo(str(sft / "model"), groups, config.dpo, dpo, validate=check, progress=r.progress)

    r.stage("DPO", 6, 7, improve)
    results["dpo"] = r.stage("evaluate DPO", 7, 7, lambda: judged("dpo", str(dpo / "model")))
    comparison = compare(results, "sft", level=config.eval.level)
    promoted = "dpo" if comparison.promote else "sft"
    path = _promote(r.root, promoted, {"sft": sft / "model", "dpo": dpo / "model"}[promoted], comparison.reason)
    stages = tuple(Stage(name, seconds) for name, seconds in r.stages.items())
    rerun = Rerun(
        (f"hafs {recipe.name}",),
        json.dumps(recipe.to_dict(), indent=1),
        {"promoted": promoted, **facts(results)},
    )
    title = f"hafs {recipe.name}: baseline, SFT, DPO"
    data = gather_report(title, results, comparison, r.root / "models", groups, report.skipped, stages, rerun)
    page, _ = write_report(data, r.root / "report.html")
    return Outcome(comparison, promoted, path, page, stages)


def _check_scorer(scorer: Scorer, prompts: Sequence[Prompt]) -> None:
    """Check one reference answer, so that a missing tool ends the run before the long work and not after it."""
    for prompt in (p for p in prompts[:1] if p.references):
        (score,) = scorer.score([(prompt, Candidate(prompt.id, prompt.references[0].text, source="reference"))])
        if score.value is None:
            raise HafsError(f"answers cannot be checked on this machine: {score.reason}", "hafs doctor")


def _prompts(recipe: Recipe) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """(SFT prompts, preference prompts, validation prompts); the first two are different ones of the train split."""
    both = tasks.generate(recipe.pack, "train", recipe.sft_prompts + recipe.preference_prompts, tags=recipe.tags)
    held = tasks.generate(recipe.pack, "validation", recipe.validation_prompts, tags=recipe.tags)
    return both[: recipe.sft_prompts], both[recipe.sft_prompts :], held


def _candidates(r: _Run, scorer: Scorer, model: Path, prompts: Sequence[Prompt]) -> None:
    from hafs.backends import open_backend
    from hafs.generate import generate_candidates

    backend = open_backend(str(model))
    generate_candidates(r.store, backend, prompts, r.recipe.config.generate, r.progress)
    score_candidates(r.store, scorer, r.progress, prompt_ids=[p.id for p in prompts], model=backend.model)


def _groups(
    r: _Run, scorer: Scorer, model: Path, prompts: Sequence[Prompt]
) -> tuple[list[PreferenceGroup], BuildReport]:
    return preference_groups(
        r.store, scorer, r.recipe.config.preferences,
        prompt_ids=[p.id for p in prompts], model=model_hash(resolve(str(model))),
    )  # fmt: skip


def _tokenizer(path: Path) -> Any:
    from hafs.loading import load_tokenizer

    return load_tokenizer(path)


def _promote(root: Path, name: str, path: Path, reason: str) -> Path:
    """Name the model to use in `models/best.json`."""
    with atomic_write(root / "models" / "best.json") as f:
        json.dump({"name": name, "path": str(path), "hash": model_hash(path), "reason": reason}, f, indent=1)
    return path


def _outcome(outputs: Mapping[str, Any]) -> Outcome:
    stages = tuple(Stage(name, seconds) for name, seconds in outputs["seconds"].items())
    comparison = Comparison.from_dict(outputs["comparison"])
    return Outcome(comparison, outputs["promoted"], Path(outputs["promoted_path"]), Path(outputs["report"]), stages)


def gather_report(
    title: str,
    results: Mapping[str, list[EvalResult]],
    comparison: Comparison,
    models: Path,
    groups: Sequence[PreferenceGroup] = (),
    skipped: Mapping[str, int] | None = None,
    stages: tuple[Stage, ...] = (),
    rerun: Rerun | None = None,
) -> ReportData:
    """What a report shows, from evaluations and from the training logs under `models`/NAME."""
    reference, candidate = comparison.reference, comparison.candidate
    return ReportData(
        title=title,
        comparison=comparison,
        training=tuple(t for name in results if (t := _training(name, models / name)) is not None),
        pairs=Pairs(_sources(groups), dict(skipped or {})) if groups else None,
        failures=failures_by_cause(results[reference], results[candidate]),
        examples=differing_examples(results[reference], results[candidate]),
        stages=stages,
        rerun=rerun,
    )


def _training(name: str, run: Path) -> Training | None:
    """The curves of a training run, when it has any."""
    log = run / "log.jsonl"
    if not log.is_file():
        return None
    rows = tuple(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    result = json.loads((run / "run.json").read_text(encoding="utf-8")).get("result", {})
    return Training(name, rows, kept=result.get("best_step"), note=" ".join(result.get("warnings", ())))


def _sources(groups: Sequence[PreferenceGroup]) -> tuple[PairSource, ...]:
    """How many groups and edges each source has given."""
    by_source: dict[str, list[int]] = {}
    for group in groups:
        for source in {e.source for e in group.edges}:
            count = by_source.setdefault(source, [0, 0])
            count[0] += 1
            count[1] += sum(e.source == source for e in group.edges)
    return tuple(PairSource(name, n, edges) for name, (n, edges) in sorted(by_source.items()))


def facts(results: Mapping[str, list[EvalResult]]) -> dict[str, str]:
    """What a figure depends on beside the settings: model hashes and package versions."""
    hashes = {f"model {name}": rows[0].model for name, rows in results.items()}
    return {**hashes, **{p: version(p) for p in ("hafs", "torch", "transformers", "peft")}}
