"""`hafs compare`: the table of baseline, SFT and DPO, with intervals, and whether the difference is real."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at
from hafs.errors import DataError, UsageError

if TYPE_CHECKING:
    from hafs.evals import EvalResult, SampledResult
    from hafs.evals.tables import Table
    from hafs.store import Store


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    models: list[str] = typer.Argument(
        help="Names given to `hafs eval --name`, or NAME=FILE of its --output; in order."
    ),
    reference: str = typer.Option("sft", help="Which one the others are compared with."),
    benchmark: list[str] = typer.Option(None, help="Only these benchmarks; may be repeated."),
    strict: bool = typer.Option(False, help="Promote only when the interval of the gain is above zero."),
    level: float = typer.Option(0.95, min=0.5, max=0.999, help="Level of the intervals."),
    training_data: list[Path] = typer.Option(
        None, help="Also look for benchmark prompts in this training file (JSON lines); may be repeated."
    ),
    allow_contaminated: bool = typer.Option(
        False, help="Compare although benchmark prompts are in the training data; the table says so."
    ),
    markdown: Path = typer.Option(None, help="Also write the tables here as Markdown."),
    html: Path = typer.Option(None, help="Also write them here as one HTML page."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Compare models prompt by prompt: pass rates, paired difference, wins and losses, all with intervals.

    Refused when benchmark prompts, or near copies of them, are in what a model was trained on.
    """
    from rich.console import Group

    from hafs.evals import compare, to_markdown, to_rich
    from hafs.evals.tables import markdown_table, rich_table
    from hafs.files.jsonl import atomic_write
    from hafs.report import ReportData, render_html
    from hafs.store import workspace_or_none

    space = workspace_or_none(workspace)
    results = {name.partition("=")[0]: evaluated(name, workspace, benchmark) for name in models}
    notes = check_contamination(results, workspace, training_data or (), allow_contaminated)
    said: dict[str, Any] = {}
    sampled: dict[str, list[SampledResult]] = {}
    if space is not None:
        with space.open_store() as store:
            said, more = opinions(store, results, reference, level)
            notes += more
            sampled = sampled_results(store, results)
    comparison = compare(results, reference, **said, level=level, strict=strict, notes=notes)
    extra, tries = pass_at_k_table(sampled, reference, level)
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(to_markdown(comparison) + (f"\n{markdown_table(extra)}\n" if extra else ""))
    if html is not None:
        with atomic_write(html) as f:
            f.write(render_html(ReportData(f"Comparison: {', '.join(results)}", comparison=comparison, sampled=extra)))
    data = comparison.to_dict()
    if extra:
        data["sampled"] = {
            n: {r.benchmark: {str(k): vars(r.pass_at(k, level)) for k in tries if k <= r.samples} for r in rows}
            for n, rows in sampled.items()
        }
    shown = to_rich(comparison)
    emit(data, Group(shown, rich_table(extra)) if extra else shown, json)


def evaluated(spec: str, workspace: Path | None, benchmarks: Sequence[str] | None = None) -> list[EvalResult]:
    """The newest result of each benchmark under a name, or the results of a file; only `benchmarks` where given.

    Raises UsageError when there is none, or when they are of different models.
    """
    from hafs.tasks import benchmark_name

    name, given, file = spec.partition("=")
    if not name:
        raise UsageError(f"{spec!r} names no model", "give a name, or NAME=FILE")
    found = _of_file(Path(file).expanduser()) if given else _newest(name, workspace)
    asked = {benchmark_name(b) for b in benchmarks or ()}
    wanted = [r for r in found if not asked or r.benchmark in asked]
    if not wanted:
        known = ", ".join(r.benchmark for r in found)
        raise UsageError(f"{name} has no result on {', '.join(benchmarks or ())}", f"use some of: {known}")
    by_model: dict[str, list[str]] = {}
    for r in wanted:
        by_model.setdefault(r.model, []).append(r.benchmark)
    if len(by_model) > 1:
        said = "; ".join(f"{model[:12]} on {', '.join(on)}" for model, on in by_model.items())
        raise UsageError(
            f"{name} was evaluated as {len(by_model)} models: {said}",
            "evaluate it again on all benchmarks, or choose some with --benchmark",
        )
    return wanted


def _newest(name: str, workspace: Path | None) -> list[EvalResult]:
    """The newest result of each benchmark under a name."""
    from hafs.evals.kept import newest_results

    with workspace_at(workspace).open_store() as store:
        found = newest_results(store, name)
    if not found:
        raise UsageError(f"nothing was evaluated under the name {name!r}", f"hafs eval --model MODEL --name {name}")
    return found


def check_contamination(
    results: Mapping[str, Sequence[EvalResult]], workspace: Path | None, files: Sequence[Path], allowed: bool
) -> list[str]:
    """Look for the benchmarks' prompts in what the models were trained on; returns what the table should say.

    Raises UsageError when there are any, unless that is `allowed`.
    """
    from hafs.evals.contamination import THRESHOLD, refuse_contaminated
    from hafs.store import workspace_or_none

    prompts = {r.prompt_id: r.prompt for rows in results.values() for e in rows for r in e.results if r.prompt}
    space = workspace_or_none(workspace)
    return refuse_contaminated(
        prompts,
        {name: {e.model for e in rows} for name, rows in results.items()},
        [space.root] if space else [],
        {e.model_path for rows in results.values() for e in rows if e.model_path},
        more={str(file): _prompts_of(file) for file in files},
        allowed=allowed,
        threshold=space.config.eval.near_copy if space else THRESHOLD,
    )


def _prompts_of(file: Path) -> list[str]:
    """What is asked in a training file of any kind: the last turn of the user in each row."""
    from hafs.data import read_prompts
    from hafs.preferences import read_preferences

    try:
        return [p.text for p in read_prompts(file).rows]
    except DataError:
        return [g.prompt for g in read_preferences(file).groups]


def opinions(
    store: Store, results: Mapping[str, Sequence[EvalResult]], reference: str, level: float = 0.95
) -> tuple[dict[str, Any], list[str]]:
    """What people and a judge think of the models, as `hafs.evals.compare` takes it, and remarks on the workspace."""
    from hafs.evals.compare import same_models
    from hafs.evals.human import human_preference
    from hafs.evals.sealed import sealed_notes
    from hafs.judge.winrate import judge_preference

    named = {name: rows[0].model for name, rows in results.items()}
    models = {name: hash for name, hash in named.items() if name not in same_models(named, reference)}
    human, said = human_preference(store, models)
    judged, told = judge_preference(store, models, reference, level)
    sealed = sealed_notes(store, [r.benchmark for r in results.get(reference, ())])
    return {"human": human, "judged": judged}, [*filter(None, (said, told)), *sealed]


def sampled_results(store: Store, results: Mapping[str, Sequence[EvalResult]]) -> dict[str, list[SampledResult]]:
    """By name the newest sampled results of the models and benchmarks that `results` are of."""
    from hafs.evals import SampledResult

    wanted = {(name, r.benchmark, r.model) for name, rows in results.items() for r in rows}
    newest: dict[str, dict[str, SampledResult]] = {name: {} for name in results}
    for run in sorted(store.runs(kind="eval-sampled"), key=lambda r: r.finished or r.started):
        if run.outputs:
            found = SampledResult.from_dict(run.outputs)
            if (found.name, found.benchmark, found.model) in wanted:
                newest[found.name][found.benchmark] = found
    return {name: list(found.values()) for name, found in newest.items()}


def pass_at_k_table(
    sampled: Mapping[str, Sequence[SampledResult]], reference: str, level: float
) -> tuple[Table | None, list[int]]:
    """The table of pass@k for one try and for all, with its k; none where nothing was sampled."""
    from hafs.evals import sampled_table

    tries = sorted({k for rows in sampled.values() for r in rows for k in (1, r.samples)})
    found = {name: rows for name, rows in sampled.items() if rows}
    return (sampled_table(found, tries, reference, level) if tries else None), tries


def _of_file(file: Path) -> list[EvalResult]:
    """The results in a file that `hafs eval --output` wrote."""
    from hafs.evals import EvalResult

    fix = "it is what `hafs eval --output` writes"
    if not file.is_file():
        raise UsageError(f"there is no file {file}", fix)
    try:
        rows = jsonlib.loads(file.read_text(encoding="utf-8"))
        found = [EvalResult.from_dict(row) for row in rows] if isinstance(rows, list) else []
    except (ValueError, RecursionError) as e:
        raise DataError(f"{file} is not JSON: {e}", fix) from e
    except DataError as e:
        raise DataError(f"{file}: {e.what}", fix) from e
    if not found:
        raise DataError(f"{file} holds no evaluation results", fix)
    return found
