"""`hafs start`: five questions, and a workspace in which `hafs loop run` does the rest."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from hafs.cli.common import Json, emit, note, progress_bars
from hafs.cli.reading import ColumnsOption, mapping, say_reading, show_rows
from hafs.errors import HafsError, UsageError

if TYPE_CHECKING:
    from hafs.data import Loaded
    from hafs.types import Prompt
    from hafs.workflows.start import ChosenCheck, Started, Trial

T = TypeVar("T")
MINUTES = 10.0
"""How much time is offered."""
SHOWN = 3
"""Rows that are shown as they will be used."""


def register(app: typer.Typer) -> None:
    app.command("start")(start)


def start(
    model: str = typer.Option(
        None, help="What to improve: a HF directory, a hub id, or `default`.", show_default=False
    ),
    prompts: Path = typer.Option(None, help="Your prompts, in a file of any kind.", show_default=False),
    check: str = typer.Option(
        None,
        help="How an answer is checked: tests, exact, my_check.py:score, command:RUN {file}, regex:PATTERN,"
        " schema:FILE, judge:NAME, people.",
        show_default=False,
    ),
    minutes: float = typer.Option(None, min=1, help="How much time there is.", show_default=False),
    directory: Path = typer.Option(None, "--workspace", "-w", help="Where the workspace goes.", show_default=False),
    columns: ColumnsOption = None,
    overwrite: bool = typer.Option(False, "--overwrite", help="Write the settings and tasks of a workspace anew."),
    json: Json = False,
) -> None:
    """Ask five questions, try the check, split the prompts, write `hafs.toml`, and say what to type next.

    Every answer can be a flag; on a terminal what is missing is asked for. Repeated, it says what is there.
    """
    from hafs.workflows import start as work

    ask = _asking(json)
    if directory is not None and _there(directory, overwrite, json):
        return
    name, small = ask("Model", "--model", model, "default", work.check_model)
    file, loaded = ask("File of prompts", "--prompts", prompts, "", lambda text: _read(Path(text), columns))
    if ask.asked and check is None:
        _list_checks()
    likely = work.guess(loaded.rows)
    how, rows = ask("How is an answer checked", "--check", check, likely, lambda text: _checked(text, loaded))
    trial = _tried(rows, how, json) if how.decides else None
    rows = work.without_wrong(rows, trial) if trial else rows
    made = work.split(rows)
    time = ask("Minutes", "--minutes", minutes, f"{MINUTES:g}", _minutes)
    root = ask("Where to", "--workspace", directory, file.stem or "work", lambda text: Path(text).expanduser())
    if directory is None and _there(root, overwrite, json):
        return
    _show(rows, name)
    toml = work.settings(name, made.parts, how, time, work.answer_tokens(rows, name), small)
    done = work.begin(root, name, made, how, time, toml, overwrite)
    repeats = len(loaded.rows) - len(rows)
    data = {
        **done.to_dict(),
        "check": str(how),
        "repeats": repeats,
        "bad": len(loaded.bad),
        "clusters": len(made.clusters),
        "references": {"tried": trial.tried, "right": trial.right} if trial else None,
    }
    emit(data, _said(done, how, repeats, len(made.clusters)), json)


class _asking:
    """Takes the answer that was given, or asks for it on a terminal; one that cannot be used is asked for again."""

    def __init__(self, quiet: bool) -> None:
        self.asked = sys.stdin.isatty() and sys.stderr.isatty() and not quiet

    def __call__(self, what: str, flag: str, given: Any, default: str, use: Callable[[str], T]) -> T:
        if given is not None:
            return use(str(given))
        if not self.asked:
            raise UsageError(f"`hafs start` is not told: {what[:1].lower()}{what[1:]}", f"give {flag}")
        while True:
            text = str(typer.prompt(what, default=default or None, err=True))
            try:
                return use(text)
            except HafsError as e:
                note(f"  {e.what}" + (f"\n  fix: {e.fix}" if e.fix else ""))


def _there(directory: Path, overwrite: bool, as_json: bool) -> bool:
    """Say what is in a workspace that is there, and that it stays."""
    if overwrite or not (directory.expanduser() / "hafs.toml").exists():
        return False
    from hafs.cli.status import show_status

    note(f"note: {directory} is a workspace already; nothing was changed (--overwrite writes its settings anew)")
    show_status(directory.expanduser(), as_json)
    return True


def _read(file: Path, columns: str | None) -> tuple[Path, Loaded[Prompt]]:
    from hafs.data.remarks import of_prompts
    from hafs.workflows.start import read

    loaded = read(file, mapping(columns))
    say_reading(file, loaded.notes, loaded.bad_rows, of_prompts(loaded.rows))
    return file, loaded


def _list_checks() -> None:
    from hafs.workflows.start import KINDS

    note("Answers can be checked by:")
    for kind, words in KINDS.items():
        note(f"  {kind:<9} {words}")


def _checked(text: str, loaded: Loaded[Prompt]) -> tuple[ChosenCheck, list[Prompt]]:
    from hafs.workflows.start import parse_check, with_check

    how = parse_check(text)
    return how, with_check(loaded.rows, how)


def _tried(rows: Sequence[Prompt], how: ChosenCheck, as_json: bool) -> Trial:
    """Try the check and say what it said."""
    from hafs.workflows.start import try_checks

    with progress_bars(quiet=as_json) as progress:
        trial = try_checks(rows, progress)
    if trial.tried:
        note(f"check: {how}; {trial.right} of {trial.tried} reference answers are right")
    else:
        note(f"check: {how}; no row has a reference answer to try it on")
    if trial.slow:
        note(f"  {trial.slow} more were not decided in time: a slow check, or a busy machine; they are kept")
    for what, said in trial.shown:
        note(f"  {what:<50} {said}")
    for id, cause in list(trial.wrong.items())[:SHOWN]:
        note(f"  left out: the reference answer of prompt {id} ({cause})")
    if len(trial.wrong) > SHOWN:
        note(f"  and {len(trial.wrong) - SHOWN} more reference answers that the check refuses")
    return trial


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 1 <= found < 1e6:
        raise UsageError(f"{text!r} is no number of minutes from 1 on", "--minutes 10")
    return found


def _show(rows: Sequence[Prompt], model: str) -> None:
    """Three rows as the model sees them."""
    from hafs.types import GroupCandidate, PreferenceGroup

    def group(p: Prompt) -> PreferenceGroup:
        answers = tuple(GroupCandidate(r.text) for r in p.references[:1])
        return PreferenceGroup(p.text, answers, (), system=p.system, context=p.context, tools=p.tools, prompt_id=p.id)

    show_rows([group(p) for p in rows], SHOWN, model)


def _said(done: Started, how: ChosenCheck, repeats: int, clusters: int) -> str:
    sizes = ", ".join(f"{n} {name}" for name, n in done.sizes.items())
    teach = "SFT on the reference answers, then " * done.sft
    does = "rounds that keep a model only where it is at least as good" if how.decides else "preferences and DPO"
    return "\n".join(
        [
            f"prompts    {sizes}; split by {done.by}, {clusters} clusters of near copies kept together,"
            f" {repeats} repeats left out",
            f"workspace  {done.root} (hafs.toml, tasks/tasks.jsonl, tasks/test.jsonl)",
            f"plan       {teach}{does}, in about {done.minutes:g} minutes: a guess, which the machine decides",
            "",
            f"next: cd {shlex.quote(str(done.root))}",
            *(f"      {command}" for command in done.next),
        ]
    )
