"""`hafs compare`: the table of baseline, SFT and DPO, with intervals, and whether the difference is real."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit
from hafs.cli.reading import ColumnsOption

if TYPE_CHECKING:
    from hafs.evals import Comparison


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
    columns: ColumnsOption = None,
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

    from hafs.evals import to_rich
    from hafs.evals.tables import rich_table
    from hafs.store import workspace_or_none
    from hafs.workflows.results import compared, pass_at_k_table

    comparison, sampled = compared(
        models,
        workspace_or_none(workspace),
        reference,
        benchmarks=benchmark,
        level=level,
        strict=strict,
        training_data=training_data or (),
        columns=columns,
        allowed=allow_contaminated,
    )
    extra, tries = pass_at_k_table(sampled, reference, level)
    _write(comparison, extra, markdown, html)
    data = comparison.to_dict()
    if extra:
        data["sampled"] = {
            n: {r.benchmark: {str(k): vars(r.pass_at(k, level)) for k in tries if k <= r.samples} for r in rows}
            for n, rows in sampled.items()
        }
    shown = to_rich(comparison)
    emit(data, Group(shown, rich_table(extra)) if extra else shown, json)


def _write(comparison: Comparison, extra: Any, markdown: Path | None, html: Path | None) -> None:
    """Write the tables, with that of pass@k where there is one, as Markdown and as a page."""
    from hafs.evals import to_markdown
    from hafs.evals.tables import markdown_table
    from hafs.files.jsonl import atomic_write
    from hafs.report import ReportData, render_html

    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(to_markdown(comparison) + (f"\n{markdown_table(extra)}\n" if extra else ""))
    if html is not None:
        title = f"Comparison: {', '.join(comparison.models)}"
        with atomic_write(html) as f:
            f.write(render_html(ReportData(title, comparison=comparison, sampled=extra)))
