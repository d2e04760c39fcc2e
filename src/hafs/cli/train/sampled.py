"""What PPO and online DPO share: trainings on answers that the model in training gives to prompts."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafs.cli.common import note, progress_bars
from hafs.cli.reading import prompts_from
from hafs.cli.train import common
from hafs.errors import UsageError

if TYPE_CHECKING:
    from hafs.config import Config
    from hafs.scorers import Scorer
    from hafs.training import TrainResult
    from hafs.types import Prompt


@dataclass(frozen=True)
class SampledTraining:
    """A training on sampled answers: its settings, its prompts, and those that pick a checkpoint (`validation`)."""

    request: common.TrainingRequest
    model: str
    config: Config
    section: Any
    directory: Path
    finished: bool
    prompts: list[Prompt]
    validation: list[Prompt]

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens of an answer at most, and how many are sampled together."""
        return self.section.max_new_tokens, self.section.rollout_batch

    def tokenizer(self) -> Any:
        """That of the model."""
        from hafs.models.loading import load_tokenizer
        from hafs.models.naming import resolve

        return load_tokenizer(resolve(self.model))

    def open_scorer(self, stack: ExitStack, name: str) -> Scorer:
        """What checks the answers, tried on the prompts before the long work."""
        from hafs.scorers.run import scorer_for, try_commands

        found: Scorer = stack.enter_context(closing(scorer_for(self.config, name)))
        if not self.finished:
            try_commands(self.config, self.prompts, name)
        return found

    def open_hooks(self, stack: ExitStack) -> dict[str, Any]:
        """Progress, and the pass rate that picks a checkpoint."""
        from hafs.workflows.training import pass_rate

        progress = stack.enter_context(progress_bars(quiet=self.request.as_json))
        hooks: dict[str, Any] = {"progress": progress}
        if self.validation and not self.finished:
            check = pass_rate(self.config, self.model, self.validation, progress)
            hooks["validate"] = stack.enter_context(check)
        return hooks


def prepare(request: common.TrainingRequest, section: str) -> SampledTraining:
    """Read prompts and settings, and refuse what is held out; `request.data` is a file of prompts."""
    from hafs.config import override
    from hafs.workflows.training import is_finished, refuse_held_out, validation_prompts, without_marked, without_tests

    r = request
    assert r.model is not None
    space, config, root = common.workspace_settings(r.workspace)
    settings = override(getattr(config, section), **common.with_alpha(r.flags))
    found = prompts_from(r.data, r.columns) if r.data else _stored_prompts(r.workspace)
    where = str(r.data or "the workspace")
    chosen = without_marked(space, without_tests(found, where, note), note)
    directory = (r.output or root / "models" / r.kind.replace(" ", "-")).expanduser()
    finished = is_finished(directory)
    asked = validation_prompts(r.validate, r.validate_columns, say=note)
    if not finished:
        picks = {f"--validate {r.validate}": asked} if asked else {}
        refuse_held_out(space, config, {where: chosen}, picks, note, allowed=r.allow_contaminated)
    return SampledTraining(r, r.model, config, settings, directory, finished, chosen, asked)


def report(job: SampledTraining, result: TrainResult) -> None:
    """Say how it ended, and why where it was stopped."""
    if result.stopped:
        note(f"note: stopped at step {result.steps}: {result.stopped}")
    common.report(job.request.kind, result, job.directory, job.finished, job.request.as_json)


def _stored_prompts(workspace: Path | None) -> list[Any]:
    """The workspace's prompts of the train split."""
    from hafs.cli.common import workspace_at

    with workspace_at(workspace).open_store() as store:
        found = list(store.prompts(split="train"))
        if not found:
            raise UsageError(f"{store.where} has no prompts to sample answers to", "hafs tasks generate, or --prompts")
    return found
