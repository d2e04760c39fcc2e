"""`hafs train dpo --online`: DPO on answers that the model in training gives, compared at every step."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hafs.cli.train.common import TrainingRequest
from hafs.cli.train.sampled import prepare, report
from hafs.errors import UsageError


def run_online(request: TrainingRequest, prompts: Path | None, scorer: str | None) -> None:
    """Train and print how it ended; repeated, it goes on from the last checkpoint or says that it is done."""
    from hafs.config import override
    from hafs.training.online import train_online_dpo
    from hafs.workflows.rollouts import grouper, policy_sampler

    if scorer is None:
        raise UsageError("online DPO needs something that compares answers", "--scorer asm, automatic, or reward:RUN")
    job = prepare(replace(request, kind="online dpo", data=prompts), "online")
    section = job.section
    pairing = override(job.config.preferences, references="never", max_candidates=max(2, section.rollouts))
    with ExitStack() as stack:
        checker = job.open_scorer(stack, scorer)
        about = {"scorer": f"{checker.name}@{checker.version}", "arguments": dict(checker.arguments)}
        hooks: dict[str, Any] = job.open_hooks(stack)
        result = train_online_dpo(
            job.model,
            job.prompts,
            section,
            job.directory,
            sample=policy_sampler(job.tokenizer(), *job.sizes, temperature=section.temperature),
            compare=grouper(checker, pairing),
            comparer={**about, "pairing": pairing.model_dump(mode="json")},
            **hooks,
        )
    report(job, result)
