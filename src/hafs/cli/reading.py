"""What every verb that reads data says of it: how it was read, what was left out, what is odd, what the model sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import note
from hafs.errors import HafsError

if TYPE_CHECKING:
    from hafs.data import BadRow, Columns
    from hafs.data.remarks import Shown
    from hafs.preferences import Preferences
    from hafs.types import PreferenceGroup, Prompt

ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="What the columns are for: prompt=question,chosen=best; a+b joins two, -name leaves one out.",
        show_default=False,
    ),
]
Show = Annotated[
    int | None, typer.Option("--show", min=0, help="Show so many rows as the model sees them.", show_default=False)
]
LINES = 10
"""How many bad rows are named; all of them are in the file beside the data."""


def mapping(columns: str | None) -> Columns | None:
    """What `--columns` says."""
    from hafs.data import parse_columns

    return parse_columns(columns) if columns else None


def say_reading(source: Path, notes: Iterable[str], bad: Sequence[BadRow], odd: Sequence[Shown]) -> None:
    """Say how a file was read, which rows could not be used and where they are, and what is odd about the others."""
    from hafs.data import set_aside
    from hafs.data.remarks import remarks

    for line in notes:
        note(f"note: {line}")
    for name, rows in groupby(bad[:LINES], lambda row: row.file):
        for row in rows:
            note(f"{source / name}:{row.line}: skipped, {row.reason}")
    if bad:
        more = f"; {len(bad) - LINES} more than these" if len(bad) > LINES else ""
        try:
            beside = set_aside(source, bad)
            note(f"{source}: {len(bad)} rows could not be used{more}; they are in {beside}, with the reasons")
        except HafsError as e:
            note(f"{source}: {len(bad)} rows could not be used{more}; they could not be written down: {e.what}")
    for line in remarks(odd):
        note(f"warning: {source}: {line}")


def prompts_from(path: Path, columns: str | None = None) -> list[Prompt]:
    """The prompts of a file; bad rows are named, and a prompt that comes twice is taken once."""
    from hafs.data import read_prompts
    from hafs.data.remarks import of_prompts

    loaded = read_prompts(path, mapping(columns))
    unique = {p.id: p for p in reversed(loaded.rows)}
    found = list(reversed(unique.values()))
    say_reading(path, loaded.notes, loaded.bad_rows, of_prompts(found))
    if repeated := len(loaded.rows) - len(unique):
        note(f"{path}: {repeated} prompts repeat an earlier one and were left out")
    return found


def examples_from(path: Path, answers: int = 0, columns: str | None = None) -> list[PreferenceGroup]:
    """The examples of a file; bad rows are named and kept aside."""
    from hafs.data import read_examples
    from hafs.data.remarks import of_groups

    loaded = read_examples(path, answers, mapping(columns))
    say_reading(path, loaded.notes, loaded.bad_rows, of_groups(loaded.rows))
    return loaded.rows


def preferences_from(path: Path, format: str = "", columns: str | None = None) -> Preferences:
    """The preferences of a file; bad rows are named and kept aside, and so is what else came to nothing."""
    from hafs.data.remarks import of_groups
    from hafs.preferences import read_preferences

    found = read_preferences(path, format, mapping(columns))
    say_reading(path, found.notes, found.bad_rows, of_groups(found.groups))
    for count, words in (
        (found.repeated, "rows repeat what an earlier one says of the same two answers"),
        (found.contradictions, "pairs of answers have rows on both sides"),
        (found.draws, "pairs of answers weigh the same on both sides and are left out"),
        (found.unpaired, "labelled answers have none of the other label: only `--loss kto` learns from them"),
    ):
        if count:
            note(f"{path}: {count} {words}")
    return found


# ---- rows as the model sees them

LONGEST = 800
"""Characters of a text that are shown."""


def show_rows(groups: Sequence[PreferenceGroup], n: int, model: str) -> list[dict[str, Any]]:
    """Print the first `n` groups as the model reads them, special tokens and ends of lines visible.

    Returns what was shown. Without a tokenizer of the model nothing is shown, and that is said.
    """
    if not n:
        return []
    from hafs.models.loading import load_tokenizer
    from hafs.models.naming import resolve

    try:
        tokenizer = load_tokenizer(resolve(model))
    except HafsError as e:
        note(f"note: rows are not shown as the model sees them: {e.what} (--model NAME for another)")
        return []
    shown = [_as_seen(tokenizer, group) for group in groups[:n]]
    for number, one in enumerate(shown, 1):
        note(f"row {number} of {len(groups)} as the model sees it, {one['prompt_tokens']} tokens and the answers:")
        for name, text in (("prompt", one["prompt"]), *((a["as"], a["text"]) for a in one["answers"])):
            cut = f"… ({len(text) - LONGEST} more characters)" if len(text) > LONGEST else ""
            lines = (text[:LONGEST] + cut).replace("\n", "⏎\n").split("\n")
            note("\n".join(f"  {name if at == 0 else '':<9} {line}" for at, line in enumerate(lines)))
    return shown


def _as_seen(tokenizer: Any, group: PreferenceGroup) -> dict[str, Any]:
    from hafs.models.chat import TemplateRefuses, encode_answer, encode_prompt

    try:
        prompt = encode_prompt(tokenizer, group.prompt, group.system, group.context, group.tools)
    except TemplateRefuses as e:
        return {"prompt": f"({e.what})", "prompt_tokens": 0, "answers": []}
    wins, loses = {e.winner for e in group.edges}, {e.loser for e in group.edges}
    answers = []
    for i, candidate in enumerate(group.candidates):
        name = "answer" if candidate.label is None else "good" if candidate.label.good else "bad"
        if i in wins | loses:
            name = "between" if i in wins & loses else "chosen" if i in wins else "rejected"
        ids = encode_answer(tokenizer, candidate.text, end=not candidate.cut)
        answers.append({"as": name, "text": _visible(tokenizer, ids), "tokens": len(ids)})
    return {"prompt": _visible(tokenizer, prompt), "prompt_tokens": len(prompt), "answers": answers}


def _visible(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of token ids with each control token in brackets, so that a text that spells one can be told from it."""
    special = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", {})}
    parts = []
    for is_special, run in groupby(ids, lambda i: i in special):
        listed = list(run)
        parts += [f"⟦{tokenizer.decode([i])}⟧" for i in listed] if is_special else [tokenizer.decode(listed)]
    return "".join(parts)
