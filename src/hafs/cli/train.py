"""`hafs train dpo`: preference training; and what it shares with `hafs sft`."""

from __future__ import annotations

import json as jsonlib
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import Json, WorkspaceDir, bad_lines, emit, note, progress_bars, read_prompts
from hafs.errors import HafsError, UsageError

if TYPE_CHECKING:
    from hafs.config import Config
    from hafs.types import PreferenceGroup

Output = Annotated[
    Path | None, typer.Option("--output-dir", help="Where the run and its model go.", show_default=False)
]
LearningRate = Annotated[float | None, typer.Option("--learning-rate", show_default=False)]
Epochs = Annotated[float | None, typer.Option("--num-epochs", show_default=False)]
BatchSize = Annotated[int | None, typer.Option("--batch-size", help="Prompts a pass.", show_default=False)]
Accumulation = Annotated[
    int | None, typer.Option("--gradient-accumulation-steps", help="Passes a step.", show_default=False)
]
LoraRank = Annotated[int | None, typer.Option("--lora-rank", help="Alpha is twice this.", show_default=False)]
Precision = Annotated[str | None, typer.Option("--precision", help="auto, fp32 or bf16.", show_default=False)]
Seed = Annotated[int | None, typer.Option("--seed", show_default=False)]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Preference training.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("dpo")(dpo)
    app.add_typer(group, name="train")


def dpo(
    sft_model: str = typer.Option(None, help="The model to improve; frozen, it is also the reference."),
    preference_data: Path = typer.Option(None, help="Preference groups or pairs (JSON lines)."
                                                    " Without it: the groups that were built last."),
    output_dir: Output = None,
    beta: float = typer.Option(None, help="0.1 gentle, 0.3 moderate, 0.5 aggressive."),
    loss: str = typer.Option(None, help="sigmoid, sigmoid-norm, robust, ipo or hinge."),
    nll_weight: float = typer.Option(None, help="Weight of the winners' NLL beside the loss; keeps them likely."),
    learning_rate: LearningRate = None,
    num_epochs: Epochs = None,
    batch_size: BatchSize = None,
    gradient_accumulation_steps: Accumulation = None,
    lora_rank: LoraRank = None,
    precision: Precision = None,
    seed: Seed = None,
    eval_steps: int = typer.Option(None, help="Steps between validations; without it, at the end of each epoch."),
    validate: str = typer.Option(None, help="Pick the checkpoint by pass rate on these prompts: a task file, or PACK:N"
                                            " for N prompts of a pack's validation split."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Make a model prefer the better answers. Repeated, it goes on from the last checkpoint or says that it is done."""
    if sft_model is None:
        raise UsageError("`hafs train dpo` needs the model to improve", "--sft-model DIRECTORY")
    run_training(
        "dpo", model=sft_model, data=preference_data, output=output_dir, workspace=workspace, as_json=json,
        validate=validate,
        flags={"beta": beta, "loss": loss.replace("-", "_") if loss else None, "nll_weight": nll_weight,
               "learning_rate": learning_rate, "num_epochs": num_epochs, "batch_size": batch_size,
               "gradient_accumulation_steps": gradient_accumulation_steps, "lora.rank": lora_rank,
               "lora.alpha": 2 * lora_rank if lora_rank else None, "precision": precision, "seed": seed,
               "eval_steps": eval_steps},
    )  # fmt: skip


def run_training(
    kind: str, *, model: str | None, data: Path | None, output: Path | None, workspace: Path | None, as_json: bool,
    flags: dict[str, Any], validate: str | None = None,
) -> None:  # fmt: skip
    """Train from files or from the workspace, print how it ended."""
    from hafs.config import override
    from hafs.training import train_dpo, train_sft

    config, root = _settings(workspace)
    groups = _read(kind, data) if data else _stored(kind, workspace)
    chosen = config.model.name if model is None else model
    directory = (output or root / "models" / kind).expanduser()
    section = override(getattr(config, kind), **flags)
    train = train_sft if kind == "sft" else train_dpo
    finished = _finished(directory)
    with ExitStack() as stack:
        hooks: dict[str, Any] = {}
        if validate is not None and not finished:
            hooks["validate"] = check = _pass_rate(config, chosen, validate)
            stack.enter_context(closing(check.scorer))
        progress = stack.enter_context(progress_bars(quiet=as_json))
        result = train(chosen, groups, section, directory, progress=progress, **hooks)
    if finished:
        note("this run was finished before: nothing was trained now")
    for warning in result.warnings:
        note(f"note: {warning}")
    if not result.best_step:
        note("note: no later step was better than the start, so the model that was kept is the one it began with")
    summary = {"model": str(directory / "model"), "steps": result.steps, "best_step": result.best_step,
               "seconds": round(result.seconds, 1), "tokens": result.tokens, "too_long": result.dropped,
               "validation": result.best, "warnings": result.warnings}  # fmt: skip
    figures = ", ".join(f"{k} {result.best[f'eval/{k}']:.4g}" for k in _FIGURES if f"eval/{k}" in result.best)
    text = (f"{kind}: {result.steps} steps in {result.seconds:.0f} s; kept step {result.best_step}"
            f" ({figures or 'no prompt was held out to choose by'})\n"
            f"model: {directory / 'model'}")  # fmt: skip
    emit(summary, text, as_json)


_FIGURES = ("pass_rate", "net_wins", "builds", "tokens", "loss", "rewards/accuracies")
"""The validation figures that are printed; --json and the run's log have all."""


def _finished(run: Path) -> bool:
    """Whether the directory holds a training run that has ended."""
    try:
        return bool(jsonlib.loads((run / "run.json").read_text(encoding="utf-8")).get("result"))
    except (OSError, ValueError, AttributeError):
        return False


def _settings(workspace: Path | None) -> tuple[Config, Path]:
    """The workspace's settings, or the defaults where there is no workspace: training needs only files."""
    from hafs.config import Config
    from hafs.store import find_workspace, open_workspace

    if workspace:
        found = open_workspace(workspace)
        return found.config, found.root
    try:
        found = find_workspace()
    except UsageError:
        return Config(), Path()
    return found.config, found.root


def _read(kind: str, data: Path) -> list[PreferenceGroup]:
    if kind == "sft":
        from hafs.training.data import read_sft

        loaded = read_sft(data)
        bad_lines(data, loaded.bad)
        return loaded.rows
    from hafs.preferences import read_preferences

    preferences = read_preferences(data)
    bad_lines(data, preferences.bad)
    return preferences.groups


def _stored(kind: str, workspace: Path | None) -> list[PreferenceGroup]:
    from hafs.cli.common import workspace_at
    from hafs.pipeline import newest_groups
    from hafs.training.data import examples

    with workspace_at(workspace).open_store() as store:
        if kind == "sft":
            found = examples(store.prompts(split=["train", "validation"]))
            missing = "prompts with references: `hafs tasks generate`, or give --data"
        else:
            found = newest_groups(store)
            missing = "preference groups: `hafs preferences build`, or give --preference-data"
    if not found:
        raise UsageError(f"{store.where} has nothing to train on", f"it needs {missing}")
    return found


def _pass_rate(config: Config, model: str, spec: str) -> Any:
    """A `PassRate` on the prompts that `spec` names."""
    from hafs import tasks
    from hafs.loading import load_tokenizer
    from hafs.models import resolve
    from hafs.pipeline import PassRate, scorer_for

    pack, _, count = spec.partition(":")
    if not (Path(spec).is_file() or (count.isdecimal() and int(count))):
        raise UsageError(f"--validate {spec}: there is no such file", "give a task file, or PACK:N such as asm:48")
    prompts = read_prompts(Path(spec)) if Path(spec).is_file() else tasks.generate(pack, "validation", int(count))
    try:
        scorer = scorer_for(config, prompts[0].checker)
    except HafsError as e:
        raise HafsError(f"--validate needs a scorer that works: {e.what}", e.fix) from e
    return PassRate(load_tokenizer(resolve(model)), prompts, scorer, config.eval)
