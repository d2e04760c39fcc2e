"""`hafs judge`: a language model says which answers are better; what that is worth, and what it costs."""

from __future__ import annotations

import typer

from hafs.cli.judge import calibrate, run


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="A language model as judge: verdicts, costs, reliability.", no_args_is_help=True)
    for first in (run.run, run.probe, run.ledger):
        group.command(first.__name__)(first)
    for later in (calibrate.calibrate, calibrate.plan, calibrate.build, calibrate.hybrid, calibrate.winrate):
        group.command(later.__name__)(later)
    app.add_typer(group, name="judge")
