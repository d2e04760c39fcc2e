"""`hafs train dpo --online`: DPO on answers that the model in training gives, compared at every step."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from hafs.cli import train as common
from hafs.cli.common import note, progress_bars
from hafs.cli.reading import prompts_from
from hafs.errors import UsageError


def run_online(
    *,
    model: str,
    prompts: Path | None,
    columns: str | None,
    scorer: str | None,
    output: Path | None,
    validate: str | None,
    validate_columns: str | None,
    flags: dict[str, Any],
    allow_contaminated: bool,
    workspace: Path | None,
    as_json: bool,
) -> None:
    """Train and print how it ended; repeated, it goes on from the last checkpoint or says that it is done."""
    from hafs.cli.rlhf import stored_prompts
    from hafs.config import override
    from hafs.models.loading import load_tokenizer
    from hafs.models.naming import resolve
    from hafs.scorers.run import scorer_for, try_commands
    from hafs.training.online import train_online_dpo
    from hafs.workflows.rollouts import grouper, policy_sampler
    from hafs.workflows.training import (
        is_finished,
        pass_rate,
        refuse_held_out,
        validation_prompts,
        without_marked,
        without_tests,
    )

    if scorer is None:
        raise UsageError("online DPO needs something that compares answers", "--scorer asm, automatic, or reward:RUN")
    space, config, root = common.workspace_settings(workspace)
    section = override(config.online, **common.with_alpha(flags))
    pairing = override(config.preferences, references="never", max_candidates=max(2, section.rollouts))
    where = str(prompts or "the workspace")
    chosen = without_tests(prompts_from(prompts, columns) if prompts else stored_prompts(workspace), where, note)
    chosen = without_marked(space, chosen, note)
    directory = (output or root / "models" / "online-dpo").expanduser()
    finished = is_finished(directory)
    asked = validation_prompts(validate, validate_columns, say=note)
    if not finished:
        picks = {f"--validate {validate}": asked} if asked else {}
        refuse_held_out(space, config, {where: chosen}, picks, note, allowed=allow_contaminated)
    with ExitStack() as stack:
        judge = stack.enter_context(closing(scorer_for(config, scorer)))
        if not finished:
            try_commands(config, chosen, scorer)
        about = {"scorer": f"{judge.name}@{judge.version}", "arguments": dict(judge.arguments)}
        hooks: dict[str, Any] = {}
        progress = stack.enter_context(progress_bars(quiet=as_json))
        if asked and not finished:
            hooks["validate"] = stack.enter_context(pass_rate(config, model, asked, progress))
        tokenizer = load_tokenizer(resolve(model))
        sizes = section.max_new_tokens, section.rollout_batch
        result = train_online_dpo(
            model,
            chosen,
            section,
            directory,
            sample=policy_sampler(tokenizer, *sizes, temperature=section.temperature),
            compare=grouper(judge, pairing),
            comparer={**about, "pairing": pairing.model_dump(mode="json")},
            progress=progress,
            **hooks,
        )
    if result.stopped:
        note(f"note: stopped at step {result.steps}: {result.stopped}")
    common.report("online dpo", result, directory, finished, as_json)
