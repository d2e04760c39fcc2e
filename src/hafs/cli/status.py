"""`hafs status`: what is here, what is running, what to type next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import Json, WorkspaceDir, emit

if TYPE_CHECKING:
    from hafs.workflows.status import Status


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(workspace: WorkspaceDir = None, json: Json = False) -> None:
    """Say what is in the workspace, what is running in it, and what to type next."""
    from hafs.store import workspace_or_none

    if workspace_or_none(workspace) is None:
        text = "there is no workspace here or above\n\nnext: hafs start"
        emit({"root": None, "next": ["hafs start"]}, text, json)
        return
    show_status(workspace, json)


def show_status(directory: Path | None, as_json: bool) -> None:
    """Print how a workspace stands."""
    from hafs.cli.common import workspace_at
    from hafs.workflows.status import status as look

    found = look(workspace_at(directory))
    emit(found.to_dict(), _said(found), as_json)


def _said(s: Status) -> str:
    counts = s.counts
    unscored = f" ({counts['unscored']} unscored)" if counts["unscored"] else ""
    splits = f" ({', '.join(f'{n} {name}' for name, n in s.splits.items())})" if s.splits else ""
    lines = [f"workspace  {s.root}", f"model      {s.model}", f"prompts    {counts['prompts']}{splits}"]
    if s.checkers:
        lines.append(f"checked by {', '.join(f'{name}: {n}' for name, n in s.checkers.items())}")
    lines += [
        f"answers    {counts['candidates']}, {counts['scores']} scores{unscored}, {counts['verdicts']} verdicts,"
        f" {counts['annotations']} of people; {counts['groups']} preference groups"
    ]
    lines += [f"trained    {name}: {how}" for name, how in s.models.items()]
    for name, rates in s.results.items():
        said = ", ".join(f"{b} {'unscored' if r is None else f'{r:.1%}'}" for b, r in rates.items())
        lines.append(f"measured   {name}: {said}")
    if s.loop:
        lines.append(f"loop       {s.loop}")
    if s.best:
        lines.append(f"kept       {s.best.get('name')}: {s.best.get('reason')}")
    lines += [f"running    process {p.pid} for {p.seconds / 60:.1f} minutes: {p.command}" for p in s.running]
    lines += [] if s.running else ["running    nothing on this machine"]
    return "\n".join([*lines, "", *(f"{'next:' if not i else '     '} {c}" for i, c in enumerate(s.next))])
