"""`hafs compare-methods`: when is RLHF worth it? DPO, reward model + PPO, PPO with the checker, RLOO, measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

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
    from hafs.evals.leaks import refuse_trained_on
    from hafs.files.jsonl import atomic_write
    from hafs.tasks import benchmark_name
    from hafs.workflows.compare_methods import MethodJob, compare_methods, to_markdown
    from hafs.workflows.training import refuse_held_out, validation_prompts

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
    picks = {f"--benchmark {benchmark}": asked}
    if validate:
        picks[f"--validate {validate}"] = validation_prompts(validate, validate_columns, say=note)
    training: dict[str, Iterable[Prompt | PreferenceGroup]] = {
        str(preference_data): preferences_from(preference_data, columns=columns).groups,
        str(prompts): prompts_from(prompts, prompt_columns),
    }
    refuse_held_out(space, space.config, training, picks, note, allowed=allow_contaminated)
    near = space.config.eval.near_copy
    for line in refuse_trained_on(space, {"sft": sft_model}, asked, near, allowed=allow_contaminated):
        note(f"warning: {line}")
    with space.open_store() as store, progress_bars(quiet=json) as progress:
        sft, found = compare_methods(
            store,
            space.config,
            job,
            benchmark_name(benchmark),
            asked,
            list(dict.fromkeys([WINNERS, *(m.strip() for m in methods.split(","))])),
            seeds,
            progress,
            space.root,
            jobs,
        )
    table = to_markdown(sft, found)
    if markdown is not None:
        with atomic_write(markdown) as f:
            f.write(table + "\n")
    emit({"sft": sft.passed / sft.scored if sft.scored else None, "methods": [m.to_dict() for m in found]}, table, json)
