"""`hafs sft`: supervised fine-tuning with LoRA."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir
from hafs.cli.reading import ColumnsOption, Show
from hafs.cli.train import (
    Accumulation,
    BatchSize,
    Checkpointing,
    DryRun,
    Epochs,
    LearningRate,
    LoraRank,
    MemoryLimit,
    Method,
    Output,
    Precision,
    Quantize,
    RowTokens,
    Seed,
    Tracker,
    given,
    lora,
    run_training,
)


def register(app: typer.Typer) -> None:
    app.command("sft")(sft)


def sft(
    model: str = typer.Option(None, help="The model to start from: HF directory, hub id, or `default`."),
    data: Path = typer.Option(
        None,
        help="Examples, in a file of any kind: task rows, prompt and answer, or conversations."
        " Without it: the workspace's prompts that have references.",
    ),
    columns: ColumnsOption = None,
    show: Show = None,
    output_dir: Output = None,
    answers: int = typer.Option(None, help="Learn the first so many right answers of a task's prompt; 0: all."),
    learning_rate: LearningRate = None,
    num_epochs: Epochs = None,
    batch_size: BatchSize = None,
    gradient_accumulation_steps: Accumulation = None,
    method: Method = None,
    lora_rank: LoraRank = None,
    quantize: Quantize = None,
    precision: Precision = None,
    row_tokens: RowTokens = None,
    activation_checkpointing: Checkpointing = None,
    tracker: Tracker = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    memory_limit: MemoryLimit = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Teach a model your right answers. Repeated, it goes on from the last checkpoint or says that it is done."""
    run_training(
        "sft",
        model=model,
        data=data,
        output=output_dir,
        workspace=workspace,
        as_json=json,
        dry_run=dry_run,
        columns=columns,
        show=show,
        memory_limit=memory_limit,
        flags={
            **given(
                answers=answers,
                learning_rate=learning_rate,
                num_epochs=num_epochs,
                batch_size=batch_size,
                gradient_accumulation_steps=gradient_accumulation_steps,
                method=method,
                quantize=quantize,
                precision=precision,
                row_tokens=row_tokens,
                activation_checkpointing=activation_checkpointing,
                trackers=tracker,
                seed=seed,
            ),
            **lora(lora_rank),
        },
    )
