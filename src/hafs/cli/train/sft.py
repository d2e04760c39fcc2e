"""`hafs sft`: supervised fine-tuning with LoRA."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import AllowContaminated, Json, WorkspaceDir
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, Show, ValidateColumns
from hafs.cli.train.common import DryRun, MemoryLimit, Output, TrainingRequest, run_training


@with_settings("sft", trackers="--tracker", activation_checkpointing="--activation-checkpointing/--keep-activations")
def sft(
    *,
    model: str = typer.Option(None, help="The model to start from: HF directory, hub id, or `default`."),
    data: Path = typer.Option(
        None,
        help="Examples, in a file of any kind: task rows, prompt and answer, or conversations."
        " Without it: the workspace's prompts that have references.",
    ),
    preference_data: Path = typer.Option(
        None, help="In place of --data: learn the right winners of these preference groups (rejection sampling)."
    ),
    columns: ColumnsOption = None,
    show: Show = None,
    output_dir: Output = None,
    validate: str = typer.Option(
        None, help="Pick the checkpoint by pass rate on these prompts: a task file, or PACK:N."
    ),
    validate_columns: ValidateColumns = None,
    allow_contaminated: AllowContaminated = False,
    dry_run: DryRun = False,
    memory_limit: MemoryLimit = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
    settings: Given,
) -> None:
    """Teach a model your right answers. Repeated, it goes on from the last checkpoint or says that it is done."""
    run_training(
        TrainingRequest(
            "sft",
            model,
            data,
            output_dir,
            workspace,
            json,
            dict(settings),
            winners_of=preference_data,
            validate=validate,
            validate_columns=validate_columns,
            columns=columns,
            show=show,
            dry_run=dry_run,
            memory_limit=memory_limit,
            allow_contaminated=allow_contaminated,
        )
    )
