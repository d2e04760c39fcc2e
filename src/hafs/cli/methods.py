"""`hafs compare-methods`: when is RLHF worth it? DPO, reward model + PPO, PPO with the checker, RLOO, measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import AllowContaminated, Json, WorkspaceDir, emit, note, progress_bars, workspace_at
from hafs.cli.reading import (
    BenchmarkColumns,
    ColumnsOption,
    PromptColumns,
    ValidateColumns,
    preferences_from,
    prompts_from,
)
from hafs.errors import UsageError
from hafs.types import PreferenceGroup, Prompt

if TYPE_CHECKING:
    from hafs.store import Workspace
    from hafs.workflows.compare_methods import MethodJob


def register(app: typer.Typer) -> None:
    app.command("compare-methods")(compare)


def compare(
    sft_model: str = typer.Option(None, help="The model that every method starts from. [required]"),
    preference_data: Path = typer.Option(None, help="Preference data, for DPO and the reward model. [required]"),
    prompts: Path = typer.Option(None, help="Prompts to sample answers to, for PPO and RLOO (a task file). [required]"),
    benchmark: str = typer.Option("asm", help="What the results are measured on: a benchmark or a task file."),
    methods: str = typer.Option(
        "sft-winners,dpo,reward+ppo,ppo,rloo", help="Which, comma-separated; sft-winners always."
    ),
    seeds: int = typer.Option(3, min=1, help="Trainings of each method."),
    scorer: str = typer.Option("automatic", help="What rates answers in PPO and RLOO without a reward model."),
    validate: str = typer.Option(None, help="Pick checkpoints by pass rate on these prompts: a task file, or PACK:N."),
    jobs: int = typer.Option(1, min=1, help="Trainings side by side; they share the machine that their time is of."),
    minutes: float = typer.Option(
        0.0, min=0, help="What a seed of PPO or RLOO may train at most, its reward model included."
    ),
    columns: ColumnsOption = None,
    prompt_columns: PromptColumns = None,
    benchmark_columns: BenchmarkColumns = None,
    validate_columns: ValidateColumns = None,
    allow_contaminated: AllowContaminated = False,
    output_dir: Path = typer.Option(None, help="Where the runs go; by default WORKSPACE/methods."),
    markdown: Path = typer.Option(None, help="Also write the table here."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Train every method from one SFT model on the same data, several seeds each; repeated, it goes on."""
    from hafs.cli.evaluate import benchmark_prompts
    from hafs.evals import WINNERS
    from hafs.files.jsonl import atomic_write
    from hafs.tasks import benchmark_name
    from hafs.workflows.compare_methods import MethodJob, compare_methods, to_markdown

    if sft_model is None or preference_data is None or prompts is None:
        raise UsageError(
            "`hafs compare-methods` needs a model, preferences and prompts",
            "--sft-model DIRECTORY --preference-data FILE --prompts FILE",
        )
    space = workspace_at(workspace)
    job = MethodJob(
        sft_model,
        preference_data.absolute(),
        prompts.absolute(),
        (output_dir or space.root / "methods").absolute(),
        scorer,
        validate or "",
        minutes,
        allow_contaminated,
        columns or "",
        prompt_columns or "",
        validate_columns or "",
    )
    asked = benchmark_prompts(benchmark, benchmark_columns)
    _refuse_held_out(space, job, {f"--benchmark {benchmark}": asked})
    chosen = list(dict.fromkeys([WINNERS, *(m.strip() for m in methods.split(","))]))
    with space.open_store() as store, progress_bars(quiet=json) as progress:
        which = (benchmark_name(benchmark), asked, chosen, seeds)
        sft, found = compare_methods(store, space.config, job, *which, progress, space.root, jobs)
    table = to_markdown(sft, found)
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(table + "\n")
    emit({"sft": sft.passed / sft.scored if sft.scored else None, "methods": [m.to_dict() for m in found]}, table, json)


def _refuse_held_out(space: Workspace, job: MethodJob, picks: dict[str, list[Prompt]]) -> None:
    """Refuse prompts that pick or measure (`picks`) in what is learnt from, or in what the SFT model learnt."""
    from hafs.evals.leaks import refuse_trained_on
    from hafs.workflows.training import refuse_held_out, validation_prompts

    (asked,) = picks.values()
    if job.validate:
        picks = {
            **picks,
            f"--validate {job.validate}": validation_prompts(job.validate, job.validate_columns, say=note),
        }
    training: dict[str, Iterable[Prompt | PreferenceGroup]] = {
        str(job.preference_data): preferences_from(job.preference_data, columns=job.columns or None).groups,
        str(job.prompts): prompts_from(job.prompts, job.prompt_columns or None),
    }
    refuse_held_out(space, space.config, training, picks, note, allowed=job.allow_contaminated)
    near = space.config.eval.near_copy
    for line in refuse_trained_on(space, {"sft": job.sft_model}, asked, near, allowed=job.allow_contaminated):
        note(f"warning: {line}")
