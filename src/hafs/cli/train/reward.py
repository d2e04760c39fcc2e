"""`hafs train reward` and `hafs reward score`: models that give an answer a number."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import typer

from hafs.cli.common import AllowContaminated, Json, WorkspaceDir, emit, note, progress_bars, say_unscored
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, Show, mapping, say_reading
from hafs.cli.train import common
from hafs.errors import UsageError


@with_settings("reward", trackers="--tracker", activation_checkpointing="--activation-checkpointing/--keep-activations")
def reward(
    *,
    sft_model: str = typer.Option(None, help="The model that gets a scalar head; usually the SFT model. [required]"),
    preference_data: Path = typer.Option(
        None, help="Preferences, in a file of any kind. Without it: the groups that were built last."
    ),
    columns: ColumnsOption = None,
    show: Show = None,
    output_dir: common.Output = None,
    allow_uncalibrated: common.AllowUncalibrated = False,
    allow_contaminated: AllowContaminated = False,
    dry_run: common.DryRun = False,
    memory_limit: common.MemoryLimit = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
    settings: Given,
) -> None:
    """Train a reward model on preferences; it is a checkpoint that AutoModelForSequenceClassification loads."""
    if sft_model is None:
        raise UsageError("`hafs train reward` needs the model to start from", "--sft-model DIRECTORY")
    common.run_training(
        common.TrainingRequest(
            "reward",
            sft_model,
            preference_data,
            output_dir,
            workspace,
            json,
            dict(settings),
            columns=columns,
            show=show,
            dry_run=dry_run,
            memory_limit=memory_limit,
            allow_uncalibrated=allow_uncalibrated,
            allow_contaminated=allow_contaminated,
        )
    )


def score(
    file: Path = typer.Argument(help="Rows with `prompt` (or `text`), `answer` (or `response`), maybe `system`."),
    columns: ColumnsOption = None,
    model: str = typer.Option(help="A reward model: the output of `hafs train reward`, or a directory."),
    output: Path = typer.Option(None, help="Write every row with its `reward` here (JSON lines)."),
    json: Json = False,
) -> None:
    """Score the rows of a file with a reward model; rows that cannot be scored are named and left out."""
    from hafs.data import load
    from hafs.files.jsonl import write_jsonl
    from hafs.scorers.reward import RewardScorer
    from hafs.types import Candidate, Prompt

    def parse(row: dict[str, Any]) -> tuple[dict[str, Any], Prompt, Candidate]:
        text, answer = _either(row, "prompt", "text"), _either(row, "answer", "response", "completion")
        prompt = Prompt(text, str(row.get("system") or ""))
        return row, prompt, Candidate(prompt.id, answer)

    loaded = load(file, parse, mapping(columns))
    say_reading(file, loaded.notes, loaded.bad_rows, [])
    with closing(RewardScorer(model)) as scorer, progress_bars(quiet=json) as progress:
        scores = []
        for done, found in enumerate(scorer.score([(p, c) for _, p, c in loaded.rows]), 1):
            scores.append(found)
            progress("scoring", done, len(loaded.rows), {})
    rows = [{**row, "reward": s.key[0]} for (row, _, _), s in zip(loaded.rows, scores, strict=True) if s.key]
    unscored: dict[str, int] = {}
    for s in scores:
        if s.value is None:
            unscored[s.reason] = unscored.get(s.reason, 0) + 1
    say_unscored(unscored)
    if output is not None:
        write_jsonl(output, rows)
    mean = sum(r["reward"] for r in rows) / len(rows) if rows else None
    figures = {
        "scored": len(rows),
        "unscored": unscored,
        "bad": len(loaded.bad),
        "mean": mean,
        "output": str(output) if output else None,
    }
    if output is None and not json:
        for row in rows:
            print(f"{row['reward']:+.3f}  {_either(row, 'answer', 'response', 'completion')[:80]!r}")
    text = f"{len(rows)} of {len(scores)} rows scored" + (f", mean reward {mean:+.3f}" if rows else "")
    emit({**figures, **({} if output else {"rewards": [r["reward"] for r in rows]})}, text, json)
    if not rows:
        note("error: nothing could be scored\n  fix: see the reasons above")
        raise typer.Exit(1)


def _either(row: dict[str, Any], *names: str) -> str:
    for name in names:
        if isinstance(row.get(name), str) and row[name].strip():
            return str(row[name])
    raise KeyError(names[0])
