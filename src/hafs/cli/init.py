"""`hafs init DIR`: make a workspace."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, emit


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(directory: Path = typer.Argument(Path(), help="Where the workspace goes."), json: Json = False) -> None:
    """Make a workspace: `hafs.toml` (settings) and a database for everything that is computed."""
    from hafs.store import init_workspace

    workspace = init_workspace(directory)
    data = {"workspace": str(workspace.root), "settings": str(workspace.root / "hafs.toml")}
    emit(data, f"workspace {workspace.root}\nsettings  {workspace.root / 'hafs.toml'}", json)
