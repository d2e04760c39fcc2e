"""`hafs tools install` and `hafs models pull`: what hafs needs beside Python packages, pinned, into the cache."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, emit, note, progress_bars
from hafs.errors import UsageError


def register(app: typer.Typer) -> None:
    tools = typer.Typer(help="The programs that check answers: an assembler and an emulator.", no_args_is_help=True)
    tools.command("install")(install)
    app.add_typer(tools, name="tools")
    models = typer.Typer(help="The embedded model, and where an adapter finds its base.", no_args_is_help=True)
    models.command("pull")(pull)
    models.command("rebase")(rebase)
    app.add_typer(models, name="models")


def install(
    names: list[str] = typer.Argument(None, help="asar, bsnes; all without a name."), json: Json = False
) -> None:
    """Fetch the programs that check answers (asar, bsnes) at pinned versions; does nothing when they are there."""
    from hafs.tasks.domain import domains

    known = [row["name"] for domain in domains() for row in domain.tools()]
    if unknown := [name for name in names or () if name not in known]:
        raise UsageError(f"there is no tool named {unknown[0]!r}", f"use one of: {', '.join(known) or 'none here'}")
    with progress_bars(quiet=json) as progress:
        for domain in domains():
            domain.install_tools(names or None, progress)
    status = [row for domain in domains() for row in domain.tools()]
    for s in status:
        if not s["pinned"] and s["detail"]:
            note(f"note: {s['name']}: {s['detail']}")
    emit({"tools": status}, "\n".join(f"{s['name']:<8} {s['version']:<28} {s['path']}" for s in status), json)


def pull(name: str = typer.Argument("default", help="`default`, the embedded model."), json: Json = False) -> None:
    """Fetch the embedded model and turn it into a Hugging Face directory in the cache."""
    from hafs.models import naming as models

    with progress_bars(quiet=json) as progress:
        path = models.pull(name, progress=progress)
    emit({"model": name, "path": str(path), "hash": models.model_hash(path)}, f"{name}  {path}", json)


def rebase(
    adapter: Path = typer.Argument(..., help="The adapter's directory."),
    base: str = typer.Option(..., help="Where the model is that it was trained on: a directory or a hub id."),
    json: Json = False,
) -> None:
    """Write into an adapter where its base model is now, after checking that the adapter fits it."""
    from hafs.models.loading import rebase_adapter

    hash = rebase_adapter(adapter, base)
    emit({"adapter": str(adapter), "base": base, "hash": hash}, f"{adapter} is an adapter of {base}", json)
