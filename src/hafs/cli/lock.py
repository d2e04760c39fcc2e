"""`hafs lock` and `hafs reproduce`: everything a table depends on in one file, and the table once more from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, note, progress_bars, workspace_at


def register(app: typer.Typer) -> None:
    app.command("lock")(lock)
    app.command("reproduce")(reproduce)


def lock(
    output: Path = typer.Option(None, help="Where the lock goes; by default hafs.lock.json in the workspace."),
    recipe: str = typer.Option("", help="The recipe to lock; by default the recipe or loop that ended last."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write down a table of a recipe or loop and what it depends on: hashes of data, model, settings, versions."""
    from hafs.provenance.lock import lock, write_lock

    space = workspace_at(workspace)
    with space.open_store() as store:
        data = lock(space, store, recipe)
    path = output or space.root / "hafs.lock.json"
    write_lock(data, path)
    made = ", ".join(f"{name} {hash}" for name, hash in data["models"].items())
    text = f"{path}\nbegan with model {data['model']['hash']}, made {made}; promoted {data['promoted']}"
    emit({"file": str(path), **data}, text, json)


def reproduce(
    file: Path = typer.Argument(help="What `hafs lock` wrote."),
    directory: Path = typer.Argument(Path("reproduced"), help="A fresh workspace for the second run."),
    model: str = typer.Option(None, help="Where the model lies that it begins with, when that has moved."),
    anyway: bool = typer.Option(False, help="Run although model or prompts are not those of the lock."),
    json: Json = False,
) -> None:
    """Run a locked recipe or loop again in a fresh workspace and compare the tables; exit code 1 when they differ.

    Killed and repeated, it goes on where it was.
    """
    from hafs.provenance.lock import read_lock, reproduce
    from hafs.store import init_workspace

    locked = read_lock(file)
    with progress_bars(quiet=json) as progress:
        found = reproduce(
            locked,
            init_workspace(directory),
            model,
            anyway=anyway,
            say=(lambda _: None) if json else note,
            progress=progress,
        )
    emit(found.to_dict(), _shown(found), json)
    if not found.identical:
        raise typer.Exit(1)


def _shown(found: Any) -> Any:
    """The table with what differs."""
    from rich.console import Group

    from hafs.cli.loop import closing
    from hafs.evals import to_rich
    from hafs.evals.tables import Cell, Table, rich_table
    from hafs.workflows import recipe

    def table(title: str, rows: Any) -> list[Any]:
        cells = tuple(tuple(map(Cell, row)) for row in rows[:30])
        return [rich_table(Table(title, ("What", "Then", "Now"), cells, plain=True))] if rows else []

    verdict = "The table and every answer are identical." if found.identical else "The table is NOT the locked one."
    outcome = found.outcome
    return Group(
        to_rich(outcome.comparison) if isinstance(outcome, recipe.RecipeOutcome) else closing(outcome),
        *table("Different environment", found.environment),
        *table("Different models", found.models),
        *table("Different results", found.differences),
        verdict,
    )
