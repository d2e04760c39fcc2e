"""`hafs data`: what is in the workspace, and JSON lines in and out of it."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, workspace_at
from hafs.cli.reading import ColumnsOption, Show, mapping, say_reading, show_prompts


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What is in the workspace; JSON lines in and out.", no_args_is_help=True)
    group.command("counts")(counts)
    group.command("import")(import_)
    group.command("export")(export)
    app.add_typer(group, name="data")


def counts(workspace: WorkspaceDir = None, json: Json = False) -> None:
    """How many rows of each kind the workspace holds."""
    with workspace_at(workspace).open_store() as store:
        found, scorers = store.counts(), store.scorers()
    lines = [f"{kind:<12}{n:>10,}" for kind, n in found.items()]
    lines += [
        f"{s['scorer']}@{s['version']}: {s['scored']:,} scored, {s['passed']:,} right, {s['unscored']:,} unscored"
        for s in scorers
    ]
    emit({**found, "scorers": scorers}, "\n".join(lines), json)


def import_(
    kind: str = typer.Argument(help="prompts, candidates, scores, rankings, verdicts, annotations, groups or runs."),
    file: Path = typer.Argument(help="A file of any kind that holds rows."),
    columns: ColumnsOption = None,
    show: Show = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Add the rows of a file; a line that cannot be used is named by number and the rest is kept.

    Of prompts the first three are shown as the model will see them (`--show`).
    """
    from hafs.data.remarks import of_prompts

    with workspace_at(workspace).open_store() as store:
        got = store.import_rows(kind, file, mapping(columns))
    say_reading(file, got.notes, got.bad_rows, of_prompts(got.prompts))
    show_prompts(got.prompts, (0 if json else 3) if show is None else show, None, workspace)
    data = {"read": got.read, "new": got.added, "skipped": len(got.bad)}
    emit(data, f"{got.read} {kind} read, {got.added} new, {len(got.bad)} lines skipped", json)


def export(
    kind: str = typer.Argument(help="prompts, candidates, scores, rankings, verdicts, annotations, groups or runs."),
    file: Path = typer.Argument(help="Where the JSON lines go."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Write all rows of a kind as JSON lines."""
    with workspace_at(workspace).open_store() as store:
        n = store.export_jsonl(kind, file)
    emit({"written": n, "file": str(file)}, f"{n} {kind} in {file}", json)
