"""`hafs doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

import typer

from hafs.cli.common import Json, emit

_MARK = {"ok": "[green]ok[/]", "warn": "[yellow]note[/]", "missing": "[red]missing[/]"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    device: bool = typer.Option(False, help="Also load torch, name the device it would use, and what trains there."),
    cards: bool = typer.Option(False, help="Only say which models train on which card, and the command to type."),
    json: Json = False,
) -> None:
    """Check python, torch, sandbox, assembler, emulator, model, judge keys and disk; say how to get what is missing."""
    from rich.markup import escape
    from rich.table import Table

    from hafs.doctor import checks

    if cards:
        _cards(json)
        return
    found = checks(device=device)
    table = Table(box=None, header_style="bold")
    for column in ("check", "state", "what is here", "how to get it"):
        table.add_column(column, overflow="fold")
    for c in found:
        table.add_row(c.name, _MARK[c.status], escape(c.detail), escape(c.fix))
    emit({"ok": all(c.status != "missing" for c in found), "checks": [c.to_dict() for c in found]}, table, json)
    if any(c.status == "missing" for c in found):
        raise typer.Exit(1)


def _cards(as_json: bool) -> None:
    """The planner's table of common cards."""
    from hafs.training.cards import CARDS, fits, table

    rows = [{"card_gb": card, **f.to_dict(card * 10**9)} for card in CARDS for f in fits()]
    emit({"rows": rows}, "\n".join(table()), as_json)
