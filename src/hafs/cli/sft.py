"""`hafs sft`: supervised fine-tuning with LoRA."""

from __future__ import annotations

from pathlib import Path

import typer

from hafs.cli.common import Json, WorkspaceDir
from hafs.cli.train import (
    Accumulation,
    BatchSize,
    Epochs,
    LearningRate,
    LoraRank,
    Output,
    Precision,
    Seed,
    run_training,
)


def register(app: typer.Typer) -> None:
    app.command("sft")(sft)


def sft(
    model: str = typer.Option(None, help="The model to start from: HF directory, hub id, or `default`."),
    data: Path = typer.Option(None, help="Examples (JSON lines): task rows, prompt and completion, or messages."
                                         " Without it: the workspace's prompts that have references."),
    output_dir: Output = None,
    learning_rate: LearningRate = None,
    num_epochs: Epochs = None,
    batch_size: BatchSize = None,
    gradient_accumulation_steps: Accumulation = None,
    lora_rank: LoraRank = None,
    precision: Precision = None,
    seed: Seed = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Teach a model your right answers. Repeated, it goes on from the last checkpoint or says that it is done."""
    run_training(
        "sft", model=model, data=data, output=output_dir, workspace=workspace, as_json=json,
        flags={"learning_rate": learning_rate, "num_epochs": num_epochs, "batch_size": batch_size,
               "gradient_accumulation_steps": gradient_accumulation_steps, "lora.rank": lora_rank,
               "lora.alpha": 2 * lora_rank if lora_rank else None, "precision": precision, "seed": seed},
    )  # fmt: skip
