"""`hafs train dpo`: preference training, on stored preferences or on answers that are compared in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from hafs.cli.common import AllowContaminated, Json, WorkspaceDir
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, Show, ValidateColumns
from hafs.cli.train import common
from hafs.errors import UsageError
from hafs.presets import PRESETS

_PRESET_HELP = " ".join(f"{name}: {preset[1]}." for name, preset in PRESETS.items())


@with_settings(
    "dpo",
    trackers="--tracker",
    activation_checkpointing="--activation-checkpointing/--keep-activations",
    reference_free="--reference-free/--with-reference",
    two_pass="--two-pass/--one-pass",
)
def dpo(
    *,
    sft_model: str = typer.Option(None, help="The model to improve; frozen, it is also the reference. [required]"),
    preference_data: Path = typer.Option(
        None, help="Preferences, in a file of any kind. Without it: the groups that were built last."
    ),
    columns: ColumnsOption = None,
    show: Show = None,
    output_dir: common.Output = None,
    preset: str = typer.Option(None, help=_PRESET_HELP),
    validate: str = typer.Option(
        None,
        help="Pick the checkpoint by pass rate on these prompts: a task file, or PACK:N"
        " for N prompts of a pack's validation split.",
    ),
    validate_columns: ValidateColumns = None,
    allow_uncalibrated: common.AllowUncalibrated = False,
    allow_contaminated: AllowContaminated = False,
    online: bool = typer.Option(False, "--online", help="Sample and compare anew at every step; needs --scorer."),
    prompts: Path = typer.Option(None, help="With --online: prompts to sample answers to; else the workspace's."),
    scorer: str = typer.Option(None, help="With --online: what compares the answers: `asm`, `automatic`, reward:RUN."),
    rollouts: int = typer.Option(None, help="With --online: answers sampled for each prompt of a step."),
    reference_every: int = typer.Option(
        None, help="With --online: steps after which the policy becomes its own reference; 0: never."
    ),
    max_minutes: float = typer.Option(None, help="With --online: stop after so many minutes of training."),
    dry_run: common.DryRun = False,
    memory_limit: common.MemoryLimit = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
    settings: Given,
) -> None:
    """Make a model prefer the better answers. Repeated, it goes on from the last checkpoint or says that it is done."""
    if sft_model is None:
        raise UsageError("`hafs train dpo` needs the model to improve", "--sft-model DIRECTORY")
    request = common.TrainingRequest(
        "dpo",
        sft_model,
        preference_data,
        output_dir,
        workspace,
        json,
        {**_preset(preset), **settings},
        validate=validate,
        validate_columns=validate_columns,
        columns=columns,
        show=show,
        dry_run=dry_run,
        memory_limit=memory_limit,
        allow_uncalibrated=allow_uncalibrated,
        allow_contaminated=allow_contaminated,
    )
    more = common.given_flags(rollouts=rollouts, reference_every=reference_every, max_minutes=max_minutes)
    _train(request, online, prompts, scorer, more)


def _train(
    request: common.TrainingRequest, online: bool, prompts: Path | None, scorer: str | None, more: dict[str, Any]
) -> None:
    """Train on what is stored, or online; refuse flags of the one where the other is asked for."""
    if not online:
        if alone := common.given_flags(prompts=prompts, scorer=scorer, **more):
            name = next(iter(alone)).replace("_", "-")
            raise UsageError(f"--{name} is of online DPO", "add --online, or leave it out")
        common.run_training(request)
        return
    from hafs.cli.train.online import run_online

    for flag, asked in (("--preference-data", request.data), ("--dry-run", request.dry_run), ("--show", request.show)):
        if asked:
            raise UsageError(f"{flag} does not go with --online: answers are sampled in training", f"leave {flag} out")
    run_online(replace(request, flags={**request.flags, **more}), prompts, scorer)


def _preset(name: str | None) -> dict[str, float]:
    if name is not None and name not in PRESETS:
        raise UsageError(f"there is no preset {name!r}", f"use one of: {', '.join(PRESETS)}")
    return PRESETS[name][0] if name else {}
