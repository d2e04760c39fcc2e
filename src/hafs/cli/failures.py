"""`hafs failures`: why answers fail, by cause and error, and what changed."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir, emit


def register(app: typer.Typer) -> None:
    app.command("failures")(failures)


def failures(
    model: str = typer.Argument(help="A name given to `hafs eval --name`, or NAME=FILE of its --output."),
    before: str = typer.Option(None, help="An earlier evaluation to show the change from, named the same way."),
    benchmark: list[str] = typer.Option(None, help="Only these benchmarks; may be repeated."),
    html: Path = typer.Option(None, help="Also write a page here (one HTML file)."),
    markdown: Path = typer.Option(None, help="Also write the tables here as Markdown."),
    open_page: bool = typer.Option(False, "--open", help="Open the page in a browser."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Say why a model's answers fail: clusters by cause and error, families, change, examples."""
    from rich.console import Group

    from hafs.evals import failures
    from hafs.files.jsonl import atomic_write
    from hafs.report.failures import write_failures
    from hafs.store import workspace_or_none
    from hafs.workflows.results import evaluated

    space = workspace_or_none(workspace)
    chosen = evaluated(model, space, benchmark)
    earlier = {r.benchmark: r for r in evaluated(before, space, [r.benchmark for r in chosen])} if before else {}
    reports = [failures(r, earlier.get(r.benchmark)) for r in chosen]
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write("\n".join(r.to_markdown() for r in reports))
    page = html or (Path("failures.html") if open_page else None)
    if page is not None:
        write_failures(reports, page)
    emit({"reports": [r.to_dict() for r in reports]}, Group(*(r.to_rich() for r in reports)), json)
    if open_page and page is not None:
        typer.launch(page.resolve().as_uri())
