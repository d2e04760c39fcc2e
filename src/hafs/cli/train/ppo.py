"""`hafs train ppo`: a model learns from what a scorer or a reward model says of its own answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hafs.cli.common import AllowContaminated, Json, WorkspaceDir
from hafs.cli.options import Given, with_settings
from hafs.cli.reading import ColumnsOption, ValidateColumns
from hafs.cli.train import common
from hafs.cli.train.sampled import prepare, report
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.scorers import Scorer
    from hafs.types import Prompt


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
    from hafs.training.ppo import train_ppo
    from hafs.workflows.rollouts import ServedSampler, policy_sampler, rater

    if sft_model is None:
        raise UsageError("`hafs train ppo` needs the model to improve", "--sft-model DIRECTORY")
    if reward_model is None and scorer is None:
        raise UsageError("PPO needs something that rates answers", "--reward-model RUN, --scorer asm, or both")
    request = common.TrainingRequest(
        "ppo",
        sft_model,
        prompts,
        output_dir,
        workspace,
        json,
        settings,
        validate=validate,
        validate_columns=validate_columns,
        columns=columns,
        allow_contaminated=allow_contaminated,
    )
    job = prepare(request, "ppo")
    with ExitStack() as stack:
        hooks: dict[str, Any] = {"reward": reward_model or "", "reward_weight": reward_weight}
        if scorer is not None:
            checker = job.open_scorer(stack, scorer)
            hooks |= {"rate": rater(checker), "rater": _identity(checker, job.prompts)}
        hooks |= job.open_hooks(stack)
        how = (job.tokenizer(), *job.sizes)
        hooks["sample"] = policy_sampler(*how, job.section.thinking)
        if rollouts_from is not None and not job.finished:
            served = ServedSampler(rollouts_from, *how, job.directory / "rollouts", job.section.thinking)
            hooks["sample"] = stack.enter_context(served)
        result = train_ppo(sft_model, job.prompts, job.section, job.directory, **hooks)
    report(job, result)


def _identity(scorer: Scorer, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """What identifies a scorer as PPO's reward: name, version and arguments, of each where rows name several."""
    from hafs.scorers.run import identity

    found = [
        {"scorer": f"{s['scorer']}@{s['version']}", "arguments": s["arguments"]} for s in identity(scorer, prompts)
    ]
    return found[0] if len(found) == 1 else {"scorers": found}
