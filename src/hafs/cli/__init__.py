"""The command line: one file per verb. Only here are arguments parsed, results printed and workspaces opened.

Verbs import what they need when they run, so `hafs --help` loads neither torch nor the store.
"""

from __future__ import annotations

import sys

import typer

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
    preferences,
    renamed,
    report,
    rlhf,
    score,
    serve,
    sft,
    tasks,
    train,
)
from hafs.errors import HafsError

app = typer.Typer(
    name="hafs",
    help="Make your own fine-tuned model better with preferences, on one machine, and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda flag: flag.replace("_", "-"),
    },
)

for verb in (
    demo,
    init,
    doctor,
    install,
    config,
    tasks,
    data,
    sft,
    generate,
    score,
    annotate,
    judge,
    preferences,
    train,
    rlhf,
    evaluate,
    failures,
    compare,
    methods,
    explain,
    lock,
    loop,
    report,
    export,
    serve,
    renamed,
):
    verb.register(app)


INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main() -> None:
    """Run the command line; a user's mistake ends in a message and exit code 2, a failure in one and exit code 1."""
    try:
        app()
    except HafsError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
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
