"""What the verbs that train share: how they are asked, where their data come from, how they ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hafs.cli.common import emit, note, noted_at, progress_bars
from hafs.cli.reading import examples_from, preferences_from, show_rows
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.config import Config, TrainConfig
    from hafs.store import Workspace
    from hafs.training import TrainResult
    from hafs.types import PreferenceGroup

Output = Annotated[
    Path | None, typer.Option("--output-dir", help="Where the run and its model go.", show_default=False)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what the run would take in memory and time; no weights are loaded.")
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit", help="Plan for a card of this size, as 16GB; by default this machine.", show_default=False
    ),
]
AllowUncalibrated = Annotated[
    bool, typer.Option("--allow-uncalibrated", help="Train on edges of an uncalibrated judge too.")
]


@dataclass(frozen=True)
class TrainingRequest:
    """What a training was asked for: the kind, what it begins with and learns from, and how; `flags` are settings.

    `data` is a file of what the kind learns from (else the workspace's), `winners_of` one of preferences whose right
    winners SFT learns.
    """

    kind: str
    model: str | None
    data: Path | None
    output: Path | None
    workspace: Path | None
    as_json: bool
    flags: Mapping[str, Any] = field(default_factory=dict)
    winners_of: Path | None = None
    validate: str | None = None
    validate_columns: str | None = None
    columns: str | None = None
    show: int | None = None
    dry_run: bool = False
    memory_limit: str | None = None
    allow_uncalibrated: bool = False
    allow_contaminated: bool = False


def given_flags(**flags: Any) -> dict[str, Any]:
    """The flags that were given."""
    return {name: value for name, value in flags.items() if value is not None}


def with_alpha(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags with alpha twice the rank where only the rank was given."""
    rank = {"lora.alpha": 2 * flags["lora.rank"]} if "lora.rank" in flags else {}
    return {**rank, **flags}


def run_training(request: TrainingRequest) -> None:
    """Train from files or from the workspace, print how it ended; SFT may learn the winners of preferences."""
    from hafs.config import override
    from hafs.training import train_dpo, train_reward, train_sft
    from hafs.training.run import refuse_labels_alone
    from hafs.workflows.training import is_finished, pass_rate, refuse_held_out, validation_prompts, without_marked

    r, kind = request, request.kind
    space, config, root = workspace_settings(r.workspace)
    section = override(getattr(config, kind), **with_alpha(r.flags))
    groups = without_marked(space, _learnt(r, section), note)
    chosen = config.model.name if r.model is None else r.model
    directory = (r.output or root / "models" / kind).expanduser()
    done = is_finished(directory)
    asked = validation_prompts(r.validate, r.validate_columns, say=note)
    if not done:
        where = str(r.winners_of or r.data or "the workspace")
        picks = {f"--validate {r.validate}": asked} if asked else {}
        refuse_held_out(space, config, {where: groups}, picks, note, allowed=r.allow_contaminated)
    show_rows(groups, r.show or 0, chosen)
    if kind != "sft" and getattr(section, "loss", "") != "kto":
        refuse_labels_alone(groups)
    if r.dry_run:
        _plan(chosen, groups, section, r.memory_limit, r.as_json)
        return
    train: Any = {"sft": train_sft, "dpo": train_dpo, "reward": train_reward}[kind]
    with ExitStack() as stack:
        hooks: dict[str, Any] = {"allow_uncalibrated": r.allow_uncalibrated}
        progress = stack.enter_context(progress_bars(quiet=r.as_json or not MAIN_PROCESS))
        if asked and not done:
            hooks["validate"] = stack.enter_context(pass_rate(config, chosen, asked, progress))
        result = train(chosen, groups, section, directory, progress=progress, **hooks)
    if MAIN_PROCESS:
        report(kind, result, directory, done, r.as_json)


def _learnt(r: TrainingRequest, section: Any) -> list[PreferenceGroup]:
    """What is learnt from: of the file that was named, or of the workspace."""
    answers = getattr(section, "answers", 0)
    if r.winners_of is not None:
        if r.data is not None:
            raise UsageError("--data and --preference-data were both given", "give one of them")
        return _winners(r.winners_of, answers, r.columns)
    return _read(r.kind, r.data, section, r.columns) if r.data else _stored(r.kind, r.workspace, answers)


MAIN_PROCESS = os.environ.get("RANK", "0") == "0"
"""Whether this is the process that prints, of those that `accelerate launch` or `torchrun` started."""


def report(kind: str, result: TrainResult, directory: Path, finished: bool, as_json: bool) -> None:
    """Say how the training ended."""
    if finished:
        note("this run was finished before: nothing was trained now")
    for warning in result.warnings:
        note(f"note: {warning}")
    if not result.best_step:
        note("note: no later step was better than the start, so the model that was kept is the one it began with")
    if result.report:
        r = result.report
        note(
            f"on {r['prompts']} held-out prompts: accuracy {r['accuracy']:.1%} ({r['accuracy_low']:.1%} to"
            f" {r['accuracy_high']:.1%}), ECE {r['ece']:.3f}, rewards {r['mean']:+.2f} ± {r['deviation']:.2f},"
            f" correlation with length {r['length_correlation'] or 0:+.2f}"
        )
    summary = {
        "model": str(directory / "model"),
        "report": result.report,
        "stopped": result.stopped,
        "steps": result.steps,
        "best_step": result.best_step,
        "seconds": round(result.seconds, 1),
        "gpu_mb": round(result.gpu_mb, 1),
        "tokens": result.tokens,
        "row_tokens": result.row_tokens,
        "too_long": result.dropped,
        "validation": result.best,
        "warnings": result.warnings,
    }
    figures = ", ".join(f"{k} {result.best[f'eval/{k}']:.4g}" for k in _FIGURES if f"eval/{k}" in result.best)
    rows = f", in rows of {result.row_tokens:,} tokens" if result.row_tokens else ""
    text = (
        f"{kind}: {result.steps} steps in {result.seconds:.0f} s{rows}; kept step {result.best_step}"
        f" ({figures or 'no prompt was held out to choose by'})\n"
        f"model: {directory / 'model'}"
    )
    emit(summary, text, as_json)


_FIGURES = ("pass_rate", "net_wins", "builds", "tokens", "loss", "rewards/accuracies")
"""The validation figures that are printed; --json and the run's log have all."""


def workspace_settings(workspace: Path | None) -> tuple[Workspace | None, Config, Path]:
    """The workspace where there is one, its settings or the defaults, and its root: training needs only files."""
    from hafs.config import parse_config
    from hafs.store import workspace_or_none

    found = workspace_or_none(workspace)
    if found is not None:
        noted_at(found.root)
    return (None, parse_config({}), Path()) if found is None else (found, found.config, found.root)


def _read(kind: str, data: Path, section: Any, columns: str | None) -> list[PreferenceGroup]:
    if kind != "sft":
        return preferences_from(data, columns=columns).groups
    from hafs.workflows.training import every_answer_of

    return every_answer_of(examples_from(data, section.answers, columns), section.turns, str(data), note)


def _winners(data: Path, answers: int, columns: str | None) -> list[PreferenceGroup]:
    """The right winners of a file of preferences, as examples; what has none is counted."""
    from hafs.training.data import winner_examples

    groups = preferences_from(data, columns=columns).groups
    found = winner_examples(groups, answers)
    if not found:
        if not any(g.edges for g in groups):
            raise UsageError(f"no answer in {data} is labelled good, so none may be taught", "rows with a good answer")
        raise UsageError(f"no winner in {data} may be taught: all are known to be wrong", "groups with a right answer")
    if left := len(groups) - len(found):
        note(f"note: {left} of {len(groups)} groups have no winner that is right, and are not learnt from")
    return found


def _stored(kind: str, workspace: Path | None, answers: int) -> list[PreferenceGroup]:
    from hafs.cli.common import workspace_at
    from hafs.preferences.collect import newest_groups
    from hafs.training.data import examples

    with workspace_at(workspace).open_store() as store:
        if kind == "sft":
            found = examples(store.prompts(split=["train", "validation"]), answers)
            missing = "prompts with references: `hafs tasks generate`, or give --data"
        else:
            found = newest_groups(store)
            missing = "preference groups: `hafs preferences build`, or give --preference-data"
    if not found:
        raise UsageError(f"{store.where} has nothing to train on", f"it needs {missing}")
    return found


def _plan(model: str, groups: Sequence[PreferenceGroup], config: TrainConfig, limit: str | None, as_json: bool) -> None:
    """What the run would take; exit code 1 when it does not fit."""
    from hafs.training.left_out import LeftOut
    from hafs.training.plan import parse_size, plan, to_rich
    from hafs.training.run import token_groups

    left = LeftOut(config.max_length)
    train, uses_reference = token_groups(model, groups, config, left)
    for line in left.notes(len(groups)):
        note(f"note: {line}")
    made = plan(
        model, config, train, uses_reference=uses_reference, limit=parse_size(limit) if limit is not None else None
    )
    emit(made.to_dict(), to_rich(made), as_json)
    if not made.fits:
        raise typer.Exit(1)
