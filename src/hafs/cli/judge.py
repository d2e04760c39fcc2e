"""`hafs judge`: the LLM judge."""

from __future__ import annotations

import typer

from hafs.cli import judge_calibrate


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The LLM judge, and what it is worth.", no_args_is_help=True)
    judge_calibrate.register_into(group)
    app.add_typer(group, name="judge")
