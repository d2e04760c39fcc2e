"""Verbs by the names that they have elsewhere: each says what it is called here."""

from __future__ import annotations

from collections.abc import Callable

import typer

from hafs.errors import UsageError

NAMES = {"generate-preferences": "hafs preferences generate", "dpo-trainer": "hafs train dpo"}
_ANYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    for old, new in NAMES.items():
        app.command(old, hidden=True, context_settings=_ANYTHING)(_saying(old, new))


def _saying(old: str, new: str) -> Callable[[], None]:
    def verb() -> None:
        """Say the verb's name."""
        raise UsageError(f"`hafs {old.replace('-', '_')}` is called `{new}`", f"type {new} with the same flags")

    return verb
