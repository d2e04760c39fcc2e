"""`hafs compare`: the table of baseline, SFT and DPO, with intervals, and whether the difference is real."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at
from hafs.errors import DataError, UsageError

if TYPE_CHECKING:
    from hafs.evals import EvalResult
    from hafs.store import Run


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    models: list[str] = typer.Argument(
        help="Names given to `hafs eval --name`, or NAME=FILE of its --output; in order."
    ),
    reference: str = typer.Option("sft", help="Which one the others are compared with."),
    strict: bool = typer.Option(False, help="Promote only when the interval of the gain is above zero."),
    markdown: Path = typer.Option(None, help="Also write the tables here as Markdown."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Compare models prompt by prompt: pass rates, paired difference, wins and losses, all with 95 % intervals.

    Human Preference is the share of prompts on which people chose the model over the ones named before it (`hafs
    annotate start --mode ab`).
    """
    from hafs.evals import compare, to_markdown, to_rich
    from hafs.jsonl import atomic_write

    results = {name.partition("=")[0]: evaluated(name, workspace) for name in models}
    comparison = compare(results, reference, human=_human(results, workspace), strict=strict)
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(to_markdown(comparison))
    emit(comparison.to_dict(), to_rich(comparison), json)


def _human(results: Mapping[str, Sequence[EvalResult]], workspace: Path | None) -> dict[str, tuple[int, int]]:
    """(prompts won, prompts decided) of each model in the workspace's A/B answers; empty without a workspace."""
    from hafs.annotate.stats import human_preference

    try:
        space = workspace_at(workspace)
    except UsageError:
        return {}
    names = {rows[0].model: name for name, rows in results.items() if rows and rows[0].model}
    with space.open_store() as store:
        said = list(store.annotations(mode="ab"))
        shown = {id for annotation in said for id in annotation.shown}
        models = {c.id: names[c.model] for c in store.candidates(ids=shown) if c.model in names}
    return human_preference(said, models, list(results))


def evaluated(spec: str, workspace: Path | None) -> list[EvalResult]:
    """The newest result of each benchmark under a name, or the results of a file."""
    from hafs.evals import EvalResult

    name, given, file = spec.partition("=")
    if not name:
        raise UsageError(f"{spec!r} names no model", "give a name, or NAME=FILE")
    if given:
        return _of_file(Path(file).expanduser())
    newest: dict[str, Run] = {}
    with workspace_at(workspace).open_store() as store:
        for run in sorted(store.runs(kind="eval"), key=lambda run: run.finished or run.started):
            if run.outputs and run.config["name"] == name:
                newest[str(run.config["benchmark"])] = run
    if not newest:
        raise UsageError(f"nothing was evaluated under the name {name!r}", f"hafs eval --model MODEL --name {name}")
    return [EvalResult.from_dict(run.outputs) for run in newest.values()]


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
