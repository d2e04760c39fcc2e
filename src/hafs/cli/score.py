"""`hafs score`: what a scorer says of the candidates."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, none_scored, progress_bars, workspace_at

ScorerName = Annotated[
    str,
    typer.Option("--scorer", help="`automatic` is the workspace's ([score] in hafs.toml), or a name such as `asm`."),
]


def register(app: typer.Typer) -> None:
    app.command("score")(score)


def score(
    scorer: ScorerName = "automatic",
    split: str = typer.Option(None, help="Only candidates of prompts of this split."),
    output: Path = typer.Option(None, help="Also write the scores here (JSON lines)."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Score the candidates that have no score yet.

    What cannot be scored stays unscored, with the reason, and is tried again next time; exit code 1 when that is all.
    """
    from hafs.pipeline import score_candidates, scorer_for

    space = workspace_at(workspace)
    with space.open_store() as store, closing(scorer_for(space.config, scorer)) as judge:
        with progress_bars(quiet=json) as progress:
            done = score_candidates(store, judge, progress, split=split)
        if output is not None:
            store.export_jsonl("scores", output, scorer=judge.name)
        totals = [s for s in store.scorers() if s["scorer"] == judge.name and s["version"] == judge.version]
    data = {"scored": done.scored, "unscored": dict(done.unscored), "coverage": done.coverage, "totals": totals}
    lines = [f"{done.scored} candidates scored now, {sum(done.unscored.values())} unscored"]
    lines += [f"{t['scorer']}@{t['version']}: {t['scored']} scored, {t['passed']} right, {t['unscored']} unscored,"
              f" coverage {t['scored'] / (t['scored'] + t['unscored']):.0%}"
              for t in totals]  # fmt: skip
    emit(data, "\n".join(lines), json)
    none_scored(done.scored, done.unscored)
