"""`hafs config`: every setting with its value."""

from __future__ import annotations

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at


def register(app: typer.Typer) -> None:
    app.command("config")(config)


def config(workspace: WorkspaceDir = None, json: Json = False) -> None:
    """Print every setting of the workspace with its value, as it would stand in hafs.toml."""
    settings = workspace_at(workspace).config.model_dump(mode="json")
    emit(settings, "\n".join(_toml(settings)), json)


def _toml(section: dict[str, object], prefix: str = "") -> list[str]:
    import json

    lines = [f"{k} = {json.dumps(v)}" for k, v in section.items() if not isinstance(v, dict)]
    for name, inner in section.items():
        if isinstance(inner, dict):
            lines += ["", f"[{prefix}{name}]", *_toml(inner, f"{prefix}{name}.")]
    return lines
