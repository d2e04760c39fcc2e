"""`hafs report`: one self-contained HTML page and its Markdown twin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, workspace_at
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.store import Workspace


def register(app: typer.Typer) -> None:
    app.command("report")(report)


def report(
    models: list[str] = typer.Argument(
        None,
        help="Names given to `hafs eval --name`, in order: baseline sft dpo. Without any: the newest loop or demo.",
        show_default=False,
    ),
    reference: str = typer.Option("sft", help="Which one the others are compared with."),
    benchmark: list[str] = typer.Option(None, help="Only these benchmarks; may be repeated."),
    allow_contaminated: bool = typer.Option(
        False, help="Show it although benchmark prompts are in the training data; the page says so."
    ),
    output: Path = typer.Option(None, help="Where the page goes; by default report.html in the workspace."),
    open_page: bool = typer.Option(False, "--open", help="Open it in a browser."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write the report of an evaluation (table, curves, failures, examples), or find the page of the newest loop.

    Refused when benchmark prompts, or near copies of them, are in what a model was trained on.
    """
    from hafs.workflows.results import comparison_page

    space = workspace_at(workspace)
    if models:
        page, twin = comparison_page(models, space, reference, output, benchmarks=benchmark, allowed=allow_contaminated)
    else:
        page, twin = _newest(space)
    emit({"html": str(page), "markdown": str(twin)}, f"{page}\n{twin}", json)
    if open_page:
        show(page)


def show(page: Path) -> None:
    """Open a page in a browser, or say where it is when there is none."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        note(f"no browser could be started; open {page}")


def _newest(space: Workspace) -> tuple[Path, Path]:
    """The page of the loop or demo that ended last (or of a loop before its end), and its Markdown twin."""
    with space.open_store() as store:
        ended = [r for r in store.ended(["loop", "recipe"]) if r.outputs.get("report")]
    pages = [space.root / r.outputs["report"] for r in reversed(ended)]
    page = next((p for p in [*pages, space.root / "loop.html"] if p.is_file()), None)
    if page is None:
        raise UsageError(
            f"{space.root} has no page of a loop or demo",
            "name evaluated models, or run the loop (once more: it writes its page again)",
        )
    return page, page.with_suffix(".md")
