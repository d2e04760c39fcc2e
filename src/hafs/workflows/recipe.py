"""The whole path as one run of a workspace: baseline, SFT, candidates, preference groups, SFT on their right winners,
DPO from there (from SFT where no winner was right), proof, decision.

A recipe is a typed set of figures; `run` does what of it the workspace does not have yet. It can be killed at any
moment and started again: it goes on where it was and ends with the same table. The better model is promoted; a DPO
model that is not at least as good as its SFT model is not, and where DPO cannot be told from SFT on the same right
winners, that cheaper one is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hafs import tasks
from hafs.config import Config, parse_config
from hafs.evals import WINNERS, Attribution, Comparison, EvalResult, attribute, compare
from hafs.evals.attribution import cheaper
from hafs.evals.words import model_title
from hafs.report import Rerun, Stage, write_report
from hafs.report.gather import facts, gather_report
from hafs.scorers.run import scorer_for
from hafs.store import Workspace
from hafs.types import Progress, Prompt, silent
from hafs.workflows.stages import Say, Stages, check_scorer, no_groups


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
        return {**asdict(self), "config": self.config.model_dump(mode="json", exclude={"loop", "cluster"})}


@dataclass
class RecipeOutcome:
    """What came of a recipe: the comparison, the promoted model's name and directory, the report, seconds by stage, and
    how much of the gain is the data's (None where no winner could be taught)."""

    comparison: Comparison
    promoted: str
    promoted_path: Path
    report: Path
    stages: tuple[Stage, ...] = ()
    attribution: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        gain = self.comparison.overall["dpo"].difference
        seconds = {s.name: round(s.seconds, 1) for s in self.stages}
        over = self.attribution["preferences"]["value"] if self.attribution else None
        return {
            "gain": gain.value,
            "low": gain.low,
            "high": gain.high,
            "over_sft_on_winners": over,
            "minutes": round(sum(seconds.values()) / 60, 1),
            "promoted": self.promoted,
            "promoted_path": str(self.promoted_path),
            "report": str(self.report),
            "seconds": seconds,
            "comparison": self.comparison.to_dict(),
            "attribution": self.attribution,
        }

    def record(self, root: Path) -> dict[str, Any]:
        """The same for the workspace's record, in which paths are seen from `root`: a workspace may be moved."""
        paths = {name: getattr(self, name) for name in ("promoted_path", "report")}
        inside = {k: str(p.relative_to(root) if p.is_relative_to(root) else p) for k, p in paths.items()}
        return {**self.to_dict(), **inside}

    @classmethod
    def of_record(cls, row: Mapping[str, Any], root: Path) -> RecipeOutcome:
        """The inverse of `record`; a whole path of an older record means the same place below `root` where it is."""
        stages = tuple(Stage(name, seconds) for name, seconds in row["seconds"].items())
        comparison = Comparison.from_dict(row["comparison"])
        promoted, report = (_below(root, Path(row[name]), n) for name, n in (("promoted_path", 3), ("report", 1)))
        return cls(comparison, row["promoted"], promoted, report, stages, row.get("attribution"))


def _below(root: Path, path: Path, parts: int) -> Path:
    """Where a recorded path is in a workspace, of which it names so many `parts`."""
    if not path.is_absolute():
        return root / path
    here = root.joinpath(*path.parts[-parts:])
    return here if here.exists() else path


def run(recipe: Recipe, workspace: Workspace, say: Say = lambda _: None, progress: Progress = silent) -> RecipeOutcome:
    """Run `recipe` in `workspace`, or finish it, or return its outcome at once when it is done.

    Raises HafsError when a tool, the sandbox or the model is missing, or when nothing could be scored.
    """
    with workspace.open_store() as store:
        defaults = replace(recipe, config=parse_config({})).to_dict()["config"]
        known = store.once("recipe", recipe.to_dict(), defaults={"config": defaults})
        if known.done is not None:
            outcome = RecipeOutcome.of_record(known.done.outputs, workspace.root)
            if outcome.report.is_file():
                return outcome
        with closing(scorer_for(recipe.config)) as scorer:
            stages = Stages({"recipe": recipe.to_dict()}, workspace.root, store, scorer, say, progress)
            outcome = _run(stages, recipe)
        made = outcome.record(workspace.root)
        known.finish({"promoted": outcome.promoted}, made)
        return outcome


def _run(s: Stages, recipe: Recipe) -> RecipeOutcome:
    config = recipe.config
    taught, asked, held = prompts_of(recipe)
    check_scorer(s.scorer, taught)
    benchmarks = {name: tasks.benchmark(name) for name in recipe.benchmarks}
    models = s.root / "models"

    def stage(number: int, name: str, work: Callable[[], Any]) -> Any:
        return s.stage(name, work, f"{number}/9 {name}")

    def judged(number: int, title: str, name: str, model: str | Path) -> list[EvalResult]:
        found: list[EvalResult] = stage(number, title, lambda: s.judged(name, model, benchmarks, config))
        return found

    results = {"baseline": judged(1, "evaluate the baseline", "baseline", recipe.model)}
    sft = stage(2, "SFT", lambda: s.teach(recipe.model, taught, config, models / "sft"))
    results["sft"] = judged(3, "evaluate SFT", "sft", sft)
    s.stage("candidates", lambda: s.answered(sft, [(asked, config.generate)]), "4/9 candidates", once=True)
    groups, report = stage(5, "preferences", lambda: s.groups(sft, asked, config.preferences))
    if not groups:
        raise no_groups(report)
    learn = stage(6, "SFT on winners", lambda: s.teach_winners(sft, groups, held, config, models / WINNERS))
    paths: dict[str, Path] = {"sft": sft, **({WINNERS: learn} if learn else {})}
    if learn:
        results[WINNERS] = judged(7, "evaluate SFT on winners", WINNERS, learn)
    paths["dpo"] = stage(8, "DPO", lambda: s.improve(learn or sft, groups, held, config, models / "dpo"))
    results["dpo"] = judged(9, "evaluate DPO", "dpo", paths["dpo"])
    comparison = compare(results, "sft", level=config.eval.level)
    attribution = attribute(results["sft"], results[WINNERS], results["dpo"]) if learn else None
    promoted, comparison = decide(comparison, attribution)
    path = s.promote(promoted, paths[promoted], comparison.reason)
    rerun = Rerun(
        (f"hafs {recipe.name}",), json.dumps(recipe.to_dict(), indent=1), {"promoted": promoted, **facts(results)}
    )
    title = f"hafs {recipe.name}: {', '.join(model_title(name) for name in results)}"
    data = gather_report(title, results, comparison, models, groups, report.skipped, s.times(), rerun)
    page, _ = write_report(data, s.root / "report.html")
    return RecipeOutcome(comparison, promoted, path, page, s.times(), attribution.to_dict() if attribution else None)


def decide(comparison: Comparison, attribution: Attribution | None) -> tuple[str, Comparison]:
    """The model to keep: DPO, SFT on winners where DPO is not proven better than that, or SFT; and the comparison,
    which says so and where the gain comes from."""
    if attribution is None:
        return ("dpo" if comparison.promote else "sft"), comparison
    said = replace(comparison, notes=(attribution.sentence, *comparison.notes))
    instead = comparison.decisions[WINNERS]
    if not cheaper(attribution, comparison.promote, instead.promote):
        return ("dpo" if comparison.promote else "sft"), said
    reason = f"{instead.reason} DPO is not proven better than SFT on winners, which is the cheaper one."
    decision = replace(comparison.decision, promote=False, reason=reason)
    return WINNERS, replace(said, decisions={**comparison.decisions, comparison.candidate: decision})


def prompts_of(recipe: Recipe) -> tuple[list[Prompt], list[Prompt], list[Prompt]]:
    """(SFT prompts, preference prompts, validation prompts); the first two are different ones of the train split."""
    both = tasks.generate(recipe.pack, "train", recipe.sft_prompts + recipe.preference_prompts, tags=recipe.tags)
    held = tasks.generate(recipe.pack, "validation", recipe.validation_prompts, tags=recipe.tags)
    return both[: recipe.sft_prompts], both[recipe.sft_prompts :], held
