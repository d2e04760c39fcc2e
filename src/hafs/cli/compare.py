"""`hafs compare`: the table of baseline, SFT and DPO, with intervals, and whether the difference is real."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.evals import EvalResult


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
    """Compare models prompt by prompt: pass rates, paired difference, wins and losses, all with 95 % intervals."""
    from hafs.evals import compare, to_markdown, to_rich
    from hafs.jsonl import atomic_write

    results = {name.partition("=")[0]: evaluated(name, workspace) for name in models}
    comparison = compare(results, reference, strict=strict)
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(to_markdown(comparison))
    emit(comparison.to_dict(), to_rich(comparison), json)


def evaluated(spec: str, workspace: Path | None) -> list[EvalResult]:
    """The newest result of each benchmark under a name, or the results of a file."""
    from hafs.evals import EvalResult

    name, _, file = spec.partition("=")
    if file:
        if not Path(file).is_file():
            raise UsageError(f"there is no file {file}", "it is what `hafs eval --output` writes")
        return [EvalResult.from_dict(row) for row in jsonlib.loads(Path(file).read_text(encoding="utf-8"))]
    found: dict[str, EvalResult] = {}
    with workspace_at(workspace).open_store() as store:
        for run in store.runs(kind="eval"):
            if run.status == "finished" and run.config["name"] == name:
                found.setdefault(str(run.config["benchmark"]), EvalResult.from_dict(run.outputs))
    if not found:
        raise UsageError(
            f"nothing was evaluated under the name {name!r}", f"hafs eval --model MODEL --name {name}"
        )
    return list(found.values())
