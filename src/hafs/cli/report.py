"""`hafs report`: one self-contained HTML page and its Markdown twin."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at
from hafs.cli.compare import evaluated


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    models: list[str] = typer.Argument(help="Names given to `hafs eval --name`, in order: baseline sft dpo."),
    reference: str = typer.Option("sft", help="Which one the others are compared with."),
    output: Path = typer.Option(None, help="Where the page goes; by default report.html in the workspace."),
    open_page: bool = typer.Option(False, "--open", help="Open it in a browser."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write the report of an evaluation: table, curves, failures, examples where the models differ."""
    from hafs.evals import compare
    from hafs.evidence import facts, gather_report
    from hafs.pipeline import newest_groups
    from hafs.report import Rerun, write_report

    space = workspace_at(workspace)
    results = {name.partition("=")[0]: evaluated(name, workspace) for name in models}
    comparison = compare(results, reference)
    with space.open_store() as store:
        groups = newest_groups(store)
    command = f"hafs report {' '.join(models)} --reference {reference}"
    rerun = Rerun((command,), (space.root / "hafs.toml").read_text(encoding="utf-8"), facts(results))
    title = f"{space.root.name}: {', '.join(results)}"
    data = gather_report(title, results, comparison, space.root / "models", groups, rerun=rerun)
    page, twin = write_report(data, output or space.root / "report.html")
    emit({"html": str(page), "markdown": str(twin)}, f"{page}\n{twin}", json)
    if open_page:
        typer.launch(page.as_uri())
