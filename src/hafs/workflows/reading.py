"""Files of any kind read and spoken of: how each was read, what was left out and where it is, what is odd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from hafs.data import BadRow, parse_columns, read_examples, read_prompts, set_aside
from hafs.data.remarks import ShownRow, of_groups, of_prompts, remarks
from hafs.errors import HafsError
from hafs.preferences import Preferences, read_preferences
from hafs.types import PreferenceGroup, Prompt

Say = Callable[[str], None]
"""Takes a remark: a line on standard error for a verb, a warning in a notebook."""

LINES = 10
"""How many bad rows are named; all of them are in the file beside the data."""


def say_reading(source: Path, notes: Iterable[str], bad: Sequence[BadRow], odd: Sequence[ShownRow], say: Say) -> None:
    """Say how a file was read, which rows could not be used and where they are, and what is odd about the others."""
    for line in notes:
        say(f"note: {line}")
    for name, rows in groupby(bad[:LINES], lambda row: row.file):
        for row in rows:
            say(f"{source / name}:{row.line}: skipped, {row.reason}")
    if bad:
        more = f"; {len(bad) - LINES} more than these" if len(bad) > LINES else ""
        try:
            beside = set_aside(source, bad)
            say(f"{source}: {len(bad)} rows could not be used{more}; they are in {beside}, with the reasons")
        except HafsError as e:
            say(f"{source}: {len(bad)} rows could not be used{more}; they could not be written down: {e.what}")
    for line in remarks(odd):
        say(f"warning: {source}: {line}")


def prompts_in_file(path: Path, columns: str | None = None, *, say: Say) -> list[Prompt]:
    """The prompts of a file; bad rows are named, and a prompt that comes twice is taken once."""
    loaded = read_prompts(path, parse_columns(columns) if columns else None)
    unique = {p.id: p for p in reversed(loaded.rows)}
    found = list(reversed(unique.values()))
    say_reading(path, loaded.notes, loaded.bad_rows, of_prompts(found), say)
    if repeated := len(loaded.rows) - len(unique):
        say(f"{path}: {repeated} prompts repeat an earlier one and were left out")
    return found


def examples_in_file(path: Path, answers: int = 0, columns: str | None = None, *, say: Say) -> list[PreferenceGroup]:
    """The examples of a file; bad rows are named and kept aside."""
    loaded = read_examples(path, answers, parse_columns(columns) if columns else None)
    say_reading(path, loaded.notes, loaded.bad_rows, of_groups(loaded.rows), say)
    return loaded.rows


def preferences_in_file(path: Path, format: str = "", columns: str | None = None, *, say: Say) -> Preferences:
    """The preferences of a file; bad rows are named and kept aside, and so is what else came to nothing."""
    found = read_preferences(path, format, parse_columns(columns) if columns else None)
    say_reading(path, found.notes, found.bad_rows, of_groups(found.groups), say)
    for count, words in (
        (found.repeated, "rows repeat what an earlier one says of the same two answers"),
        (found.contradictions, "pairs of answers have rows on both sides"),
        (found.draws, "pairs of answers weigh the same on both sides and are left out"),
        (found.unpaired, "labelled answers have none of the other label: only `--loss kto` learns from them"),
    ):
        if count:
            say(f"{path}: {count} {words}")
    return found
