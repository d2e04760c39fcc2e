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
    from hafs.data.remarks import ShownRow
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
ValidateColumns = Annotated[
    str | None, typer.Option("--validate-columns", help="The same for the file of --validate.", show_default=False)
]
BenchmarkColumns = Annotated[
    str | None, typer.Option("--benchmark-columns", help="The same for a file of --benchmark.", show_default=False)
]
PromptColumns = Annotated[
    str | None, typer.Option("--prompt-columns", help="The same for the file of --prompts.", show_default=False)
]
Show = Annotated[
    int | None, typer.Option("--show", min=0, help="Show so many rows as the model sees them.", show_default=False)
]


def mapping(columns: str | None) -> Columns | None:
    """What `--columns` says."""
    from hafs.data import parse_columns

    return parse_columns(columns) if columns else None


def say_reading(source: Path, notes: Iterable[str], bad: Sequence[BadRow], odd: Sequence[ShownRow]) -> None:
    """Say how a file was read, which rows could not be used and where they are, and what is odd about the others."""
    from hafs.workflows import reading

    reading.say_reading(source, notes, bad, odd, note)


def prompts_from(path: Path, columns: str | None = None) -> list[Prompt]:
    """The prompts of a file; bad rows are named, and a prompt that comes twice is taken once."""
    from hafs.workflows.reading import prompts_in_file

    return prompts_in_file(path, columns, say=note)


def examples_from(path: Path, answers: int = 0, columns: str | None = None) -> list[PreferenceGroup]:
    """The examples of a file; bad rows are named and kept aside."""
    from hafs.workflows.reading import examples_in_file

    return examples_in_file(path, answers, columns, say=note)


def preferences_from(path: Path, format: str = "", columns: str | None = None) -> Preferences:
    """The preferences of a file; bad rows are named and kept aside, and so is what else came to nothing."""
    from hafs.workflows.reading import preferences_in_file

    return preferences_in_file(path, format, columns, say=note)


# ---- rows as the model sees them

LONGEST = 800
"""Characters of a text that are shown."""


def show_prompts(prompts: Sequence[Prompt], n: int | None, model: str | None, workspace: Path | None) -> None:
    """Print the first `n` prompts as the model reads them: `model`, or that of the workspace's settings."""
    if not n:
        return
    from hafs.store import workspace_or_none
    from hafs.types import PreferenceGroup

    space = workspace_or_none(workspace)
    groups = [PreferenceGroup(p.text, (), (), system=p.system, context=p.context, tools=p.tools) for p in prompts[:n]]
    show_rows(groups, n, model or (space.config.model.name if space else "default"), total=len(prompts))


def show_rows(groups: Sequence[PreferenceGroup], n: int, model: str, total: int | None = None) -> list[dict[str, Any]]:
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
        rest = " and the answers" if one["answers"] else ""
        of = len(groups) if total is None else total
        note(f"row {number} of {of} as the model sees it, {one['prompt_tokens']} tokens{rest}:")
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
