"""The command line: one file per verb. Only here are arguments parsed, results printed and workspaces opened.

Verbs import what they need when they run, so `hafs --help` loads neither torch nor the store.
"""

from __future__ import annotations

import sys
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo, TyperInfo

from hafs import __version__
from hafs.cli import (
    annotate,
    compare,
    config,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    failures,
    generate,
    init,
    install,
    judge,
    lock,
    loop,
    methods,
    open,
    preferences,
    renamed,
    report,
    score,
    serve,
    start,
    status,
    tasks,
    train,
)
from hafs.cli.options import expanded
from hafs.errors import HafsError

VERBS = {
    "Start": (start, status, demo, init, open, doctor, install, config),
    "Data": (tasks, data, generate, score, preferences),
    "Judges and people": (annotate, judge),
    "Training": (train,),
    "Proof": (evaluate, failures, compare, methods, report, explain, lock, loop),
    "Sharing": (export, serve, renamed),
}
"""The verbs' modules by the panel of the help page that they stand in, in the order of the work."""


class _Panels(TyperGroup):
    """The help page with the verbs under headings, in the order in which they were registered."""

    commands_in_order: ClassVar[list[str]] = []

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: c for name in self.list_commands(ctx) if (c := self.get_command(ctx, name)) and not c.hidden}
        width = formatter.width - 6 - max(len(name) for name in shown)
        for panel in VERBS:
            rows = [
                (n, c.get_short_help_str(width))
                for n, c in shown.items()
                if getattr(c, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=self.commands_in_order.index)


def build_app(verb: str | None = None) -> typer.Typer:
    """The command line. With `verb` only that one gets its flags from settings: the others are listed, not called."""
    app = typer.Typer(
        name="hafs",
        cls=_Panels,
        help="Make your own fine-tuned model better with preferences, on one machine, and prove that it got better.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": lambda flag: flag.replace("_", "-"),
        },
    )
    app.callback(invoke_without_command=True)(_root)
    order = _Panels.commands_in_order = []
    for panel, modules in VERBS.items():
        for module in modules:
            part = typer.Typer()
            module.register(part)
            for command in part.registered_commands:
                command.rich_help_panel = panel
                _expand(command, verb in (None, command.name))
                app.registered_commands.append(command)
                order.append(command.name or "")
            for group in part.registered_groups:
                group.rich_help_panel = panel
                assert group.typer_instance is not None
                typed = group.typer_instance
                for inner in typed.registered_commands:
                    _expand(inner, verb in (None, group.name))
                if typed.registered_callback is not None:
                    _expand(typed.registered_callback, verb in (None, group.name))
                app.registered_groups.append(group)
                order.append(group.name or "")
    return app


def _root(version: bool = typer.Option(False, "--version", is_eager=True, help="Say which hafs this is.")) -> None:
    if version:
        print(f"hafs {__version__}")
        raise typer.Exit


def _expand(command: CommandInfo | TyperInfo, flags: bool) -> None:
    if command.callback is not None:
        command.callback = expanded(command.callback, flags)


INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, a failure in one and exit code 1."""
    try:
        build_app(next((word.replace("_", "-") for word in sys.argv[1:] if not word.startswith("-")), ""))()
    except HafsError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except RecursionError:
        print(
            "error: what was read is nested too deep\n  fix: look at the files that the command reads", file=sys.stderr
        )
        sys.exit(1)
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        print(
            f"error: {where}{e.strerror or e}\n  fix: see that there is space and that you may write there,"
            " then run the same command again",
            file=sys.stderr,
        )
        sys.exit(1)
    except SystemExit as e:
        if e.code == INTERRUPTED:
            print("stopped; the same command goes on from here", file=sys.stderr)
        raise
