"""Evaluations brought together: what was evaluated under which name, what is said beside it, the page of it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hafs.data import parse_columns, read_prompts
from hafs.errors import DataError, UsageError
from hafs.evals import Comparison, EvalResult, SampledResult, compare, sampled_table
from hafs.evals.compare import same_models
from hafs.evals.contamination import THRESHOLD, refuse_contaminated
from hafs.evals.human import human_preference
from hafs.evals.kept import newest_results
from hafs.evals.leaks import WorkspaceTexts
from hafs.evals.sealed import sealed_notes
from hafs.evals.tables import Table
from hafs.judge.winrate import judge_preference
from hafs.preferences import read_preferences
from hafs.preferences.collect import newest_groups
from hafs.report import Rerun, write_report
from hafs.report.gather import facts, gather_report
from hafs.store import Store, Workspace, find_workspace
from hafs.tasks import benchmark_name


def compared(
    specs: Sequence[str],
    space: Workspace | None,
    reference: str = "sft",
    *,
    benchmarks: Sequence[str] | None = None,
    level: float = 0.95,
    strict: bool = False,
    training_data: Sequence[Path] = (),
    columns: str | None = None,
    allowed: bool = False,
) -> tuple[Comparison, dict[str, list[SampledResult]]]:
    """Models that were evaluated, prompt by prompt against the `reference`, and what was sampled of them for pass@k.

    `specs` are names given to an evaluation, or NAME=FILE of what it wrote. Raises UsageError for a name that nothing
    was evaluated under, and when prompts of a benchmark, or near copies, are in what a model was trained on, unless
    that is `allowed`.
    """
    results = {name.partition("=")[0]: evaluated(name, space, benchmarks) for name in specs}
    notes = check_contamination(results, space, training_data, allowed, columns)
    said: dict[str, Any] = {}
    sampled: dict[str, list[SampledResult]] = {}
    if space is not None:
        with space.open_store() as store:
            said, more = opinions(store, results, reference, level)
            notes += more
            sampled = sampled_results(store, results)
    return compare(results, reference, **said, level=level, strict=strict, notes=notes), sampled


def evaluated(spec: str, workspace: Workspace | None, benchmarks: Sequence[str] | None = None) -> list[EvalResult]:
    """The newest result of each benchmark under a name, or the results of a file; only `benchmarks` where given.

    Raises UsageError when there is none, or when they are of different models.
    """

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


def _newest(name: str, workspace: Workspace | None) -> list[EvalResult]:
    """The newest result of each benchmark under a name."""
    with (workspace or find_workspace()).open_store() as store:
        found = newest_results(store, name)
    if not found:
        raise UsageError(f"nothing was evaluated under the name {name!r}", f"hafs eval --model MODEL --name {name}")
    return found


def _of_file(file: Path) -> list[EvalResult]:
    """The results in a file that `hafs eval --output` wrote."""

    fix = "it is what `hafs eval --output` writes"
    if not file.is_file():
        raise UsageError(f"there is no file {file}", fix)
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        found = [EvalResult.from_dict(row) for row in rows] if isinstance(rows, list) else []
    except (ValueError, RecursionError) as e:
        raise DataError(f"{file} is not JSON: {e}", fix) from e
    except DataError as e:
        raise DataError(f"{file}: {e.what}", fix) from e
    if not found:
        raise DataError(f"{file} holds no evaluation results", fix)
    return found


def check_contamination(
    results: Mapping[str, Sequence[EvalResult]],
    space: Workspace | None,
    files: Sequence[Path],
    allowed: bool,
    columns: str | None = None,
) -> list[str]:
    """Look for the benchmarks' prompts in what the models were trained on; returns what the table should say.

    Raises UsageError when there are any, unless that is `allowed`.
    """

    prompts = {r.prompt_id: r.prompt for rows in results.values() for e in rows for r in e.results if r.prompt}
    return refuse_contaminated(
        prompts,
        {name: {e.model for e in rows} for name, rows in results.items()},
        [space.root] if space else [],
        {e.model_path for rows in results.values() for e in rows if e.model_path},
        more={str(file): _prompts_of(file, columns) for file in files},
        allowed=allowed,
        threshold=space.config.eval.near_copy if space else THRESHOLD,
        others=WorkspaceTexts(space),
    )


def _prompts_of(file: Path, columns: str | None) -> list[str]:
    """What is asked in a training file of any kind: the last turn of the user in each row."""

    mapped = parse_columns(columns) if columns else None
    try:
        return [p.text for p in read_prompts(file, mapped).rows]
    except DataError:
        return [g.prompt for g in read_preferences(file, columns=mapped).groups]


def opinions(
    store: Store, results: Mapping[str, Sequence[EvalResult]], reference: str, level: float = 0.95
) -> tuple[dict[str, Any], list[str]]:
    """What people and a judge think of the models, as `hafs.evals.compare` takes it, and remarks on the workspace."""

    named = {name: rows[0].model for name, rows in results.items()}
    models = {name: hash for name, hash in named.items() if name not in same_models(named, reference)}
    human, said = human_preference(store, models)
    judged, told = judge_preference(store, models, reference, level)
    sealed = sealed_notes(store, [r.benchmark for r in results.get(reference, ())])
    return {"human": human, "judged": judged}, [*filter(None, (said, told)), *sealed]


def sampled_results(store: Store, results: Mapping[str, Sequence[EvalResult]]) -> dict[str, list[SampledResult]]:
    """By name the newest sampled results of the models and benchmarks that `results` are of."""

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

    tries = sorted({k for rows in sampled.values() for r in rows for k in (1, r.samples)})
    found = {name: rows for name, rows in sampled.items() if rows}
    return (sampled_table(found, tries, reference, level) if tries else None), tries


def comparison_page(
    specs: Sequence[str],
    space: Workspace,
    reference: str = "sft",
    output: Path | None = None,
    *,
    benchmarks: Sequence[str] | None = None,
    allowed: bool = False,
) -> tuple[Path, Path]:
    """Write the page of a comparison, by default `report.html` of the workspace; its path and that of its Markdown
    twin. Raises what `compared` raises."""
    results = {name.partition("=")[0]: evaluated(name, space, benchmarks) for name in specs}
    comparison, sampled = compared(specs, space, reference, benchmarks=benchmarks, allowed=allowed)
    with space.open_store() as store:
        groups = newest_groups(store)
    command = f"hafs report {' '.join(specs)} --reference {reference}"
    rerun = Rerun((command,), (space.root / "hafs.toml").read_text(encoding="utf-8"), facts(results))
    title = f"{space.root.name}: {', '.join(results)}"
    data = gather_report(title, results, comparison, space.root / "models", groups, rerun=rerun)
    table, _ = pass_at_k_table(sampled, reference, comparison.level)
    return write_report(replace(data, sampled=table), output or space.root / "report.html")
