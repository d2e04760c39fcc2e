"""The full RLHF path: `hafs train reward`, `hafs reward score`, `hafs train ppo`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli import train as common
from hafs.cli.common import AllowContaminated, Json, WorkspaceDir, emit, note, progress_bars, say_unscored
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, Show, ValidateColumns, mapping, prompts_from, say_reading
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.scorers import Scorer
    from hafs.training import TrainResult
    from hafs.types import Prompt


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Reward models.", no_args_is_help=True)
    group.callback()(lambda: None)
    group.command("score")(score)
    app.add_typer(group, name="reward")


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
        "reward",
        model=sft_model,
        data=preference_data,
        output=output_dir,
        workspace=workspace,
        as_json=json,
        dry_run=dry_run,
        columns=columns,
        show=show,
        memory_limit=memory_limit,
        allow_uncalibrated=allow_uncalibrated,
        allow_contaminated=allow_contaminated,
        flags=dict(settings),
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


@with_settings(
    "ppo",
    epochs="--ppo-epochs",
    trackers="--tracker",
    activation_checkpointing="--activation-checkpointing/--keep-activations",
)
def ppo(
    *,
    sft_model: str = typer.Option(None, help="The model to improve; frozen, it is also the reference. [required]"),
    prompts: Path = typer.Option(None, help="Prompts to sample answers to. Without it: the workspace's."),
    columns: ColumnsOption = None,
    reward_model: str = typer.Option(None, help="A run of `hafs train reward` on the same model."),
    reward_weight: float = typer.Option(1.0, help="What the reward model's scalar weighs beside the scorer's value."),
    scorer: str = typer.Option(None, help="Any scorer as the reward: `asm`, `automatic`. Added to a reward model's."),
    rollouts_from: str = typer.Option(
        None,
        help="A server that samples the answers, as openai:URL; it must be serving"
        " the SFT model and load adapters (`hafs serve --adapters`, vLLM).",
    ),
    output_dir: common.Output = None,
    validate: str = typer.Option(
        None,
        help="Pick the checkpoint by pass rate on these prompts: a task file, or PACK:N"
        " for N prompts of a pack's validation split.",
    ),
    validate_columns: ValidateColumns = None,
    allow_contaminated: AllowContaminated = False,
    workspace: WorkspaceDir = None,
    json: Json = False,
    settings: Given,
) -> None:
    """Improve a model by PPO on its own sampled answers. Repeated, it goes on from the last checkpoint."""
    from hafs.config import override
    from hafs.models.loading import load_tokenizer
    from hafs.models.naming import resolve
    from hafs.scorers.run import scorer_for, try_commands
    from hafs.training.ppo import train_ppo
    from hafs.training.rollout import Sampler
    from hafs.workflows.rollouts import ServedSampler, policy_sampler, rater
    from hafs.workflows.training import (
        is_finished,
        pass_rate,
        refuse_held_out,
        validation_prompts,
        without_marked,
        without_tests,
    )

    if sft_model is None:
        raise UsageError("`hafs train ppo` needs the model to improve", "--sft-model DIRECTORY")
    if reward_model is None and scorer is None:
        raise UsageError("PPO needs something that rates answers", "--reward-model RUN, --scorer asm, or both")
    space, config, root = common.workspace_settings(workspace)
    section = override(config.ppo, **common.with_alpha(settings))
    where = str(prompts or "the workspace")
    chosen = without_tests(prompts_from(prompts, columns) if prompts else stored_prompts(workspace), where, note)
    chosen = without_marked(space, chosen, note)
    directory = (output_dir or root / "models" / "ppo").expanduser()
    finished = is_finished(directory)
    asked = validation_prompts(validate, validate_columns, say=note)
    if not finished:
        picks = {f"--validate {validate}": asked} if asked else {}
        refuse_held_out(space, config, {where: chosen}, picks, note, allowed=allow_contaminated)
    with ExitStack() as stack:
        hooks: dict[str, Any] = {}
        if scorer is not None:
            judge = stack.enter_context(closing(scorer_for(config, scorer)))
            if not finished:
                try_commands(config, chosen, scorer)
            hooks |= {"rate": rater(judge), "rater": _about(judge, chosen)}
        progress = stack.enter_context(progress_bars(quiet=json))
        if asked and not finished:
            hooks["validate"] = stack.enter_context(pass_rate(config, sft_model, asked, progress))
        tokenizer = load_tokenizer(resolve(sft_model))
        sizes = section.max_new_tokens, section.rollout_batch
        sample: Sampler = policy_sampler(tokenizer, *sizes, section.thinking)
        if rollouts_from is not None and not finished:
            served = ServedSampler(rollouts_from, tokenizer, *sizes, directory / "rollouts", section.thinking)
            sample = stack.enter_context(served)
        result: TrainResult = train_ppo(
            sft_model,
            chosen,
            section,
            directory,
            sample=sample,
            reward=reward_model or "",
            reward_weight=reward_weight,
            progress=progress,
            **hooks,
        )
    if result.stopped:
        note(f"note: stopped at step {result.steps}: {result.stopped}")
    common.report("ppo", result, directory, finished, json)


def _about(scorer: Scorer, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What identifies a scorer as PPO's reward: name, version and arguments, of each where rows name several."""
    from hafs.scorers.run import identity

    found = [
        {"scorer": f"{s['scorer']}@{s['version']}", "arguments": s["arguments"]} for s in identity(scorer, prompts)
    ]
    return found[0] if len(found) == 1 else {"scorers": found}


def stored_prompts(workspace: Path | None) -> list[Any]:
    """The workspace's prompts of the train split."""
    from hafs.cli.common import workspace_at

    with workspace_at(workspace).open_store() as store:
        found = list(store.prompts(split="train"))
        if not found:
            raise UsageError(f"{store.where} has no prompts to sample answers to", "hafs tasks generate, or --prompts")
    return found
