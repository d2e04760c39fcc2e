"""The stages that the demo's recipe and the loop are made of: timed, recorded in the workspace, each done once.

A stage asks the store and the run directories what is there and does the rest, so a run that was killed anywhere goes
through the same stages again and ends alike.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.cluster import Crew
from hafs.config import Config, GenerateConfig, PreferencesConfig, override
from hafs.errors import HafsError, UsageError
from hafs.evals import EvalResult
from hafs.evals.evaluate import PassRate, evaluate
from hafs.files.jsonl import atomic_write
from hafs.models.naming import model_hash, resolve
from hafs.preferences import BuildReport
from hafs.preferences.collect import preference_groups
from hafs.report import Stage
from hafs.scorers import Scorer
from hafs.scorers.run import NO_CHECKER, checkers, score_candidates
from hafs.store import Store
from hafs.types import Candidate, PreferenceGroup, Progress, Prompt

Say = Callable[[str], None]


@dataclass
class Stages:
    """A running path: the open store and scorer, where things go, the workers of a cluster, and the seconds so far.

    `about` is what the path is, by content: with a stage's name it names the stage's record.
    """

    about: Mapping[str, Any]
    root: Path
    store: Store
    scorer: Scorer
    say: Say
    progress: Progress
    crew: Crew | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def stage(self, name: str, work: Callable[[], Any], label: str = "", once: bool = False) -> Any:
        """Do a stage; the time of the attempt that ended it is kept in the workspace.

        One that leaves everything in the store and gives nothing back is done `once`.
        """
        self.say(label or name)
        known = self.store.once("stage", {**self.about, "stage": name})
        started = time.monotonic()
        result = None if once and known.done else work()
        seconds = time.monotonic() - started
        if known.done is None:
            known.finish({"seconds": seconds})
        self.seconds[name] = float(known.done.metrics["seconds"]) if known.done else seconds
        return result

    def times(self) -> tuple[Stage, ...]:
        """The stages so far, in their order."""
        return tuple(Stage(name, seconds) for name, seconds in self.seconds.items())

    def judged(
        self, name: str, model: str | Path, sets: Mapping[str, Sequence[Prompt]], config: Config
    ) -> list[EvalResult]:
        """The model on each set of prompts, one greedy answer a prompt."""
        return [
            evaluate(self.store, self.scorer, str(model), name, which, prompts, config.eval, self.progress, self.crew)
            for which, prompts in sets.items()
        ]

    def teach(self, model: str, prompts: Sequence[Prompt], config: Config, output: Path) -> Path:
        """SFT on the references of `prompts`; the model's directory."""
        from hafs.training import train_sft
        from hafs.training.data import examples

        train_sft(model, examples(prompts, config.sft.answers), config.sft, output, progress=self.progress)
        return output / "model"

    def answered(self, model: str | Path, asked: Sequence[tuple[Sequence[Prompt], GenerateConfig]]) -> None:
        """Candidates for prompts, each batch of them sampled in its own way, and their scores."""
        from hafs.backends import open_backend, open_planner
        from hafs.generation.candidates import generate_candidates

        backend = (open_backend if self.crew is None else open_planner)(str(model))
        for prompts, config in asked:
            generate_candidates(self.store, backend, prompts, config, self.progress, self.crew)
        ids = [p.id for prompts, _ in asked for p in prompts]
        score_candidates(self.store, self.scorer, self.progress, crew=self.crew, prompt_ids=ids, model=backend.model)

    def groups(
        self, model: str | Path, prompts: Sequence[Prompt], config: PreferencesConfig
    ) -> tuple[list[PreferenceGroup], BuildReport]:
        """The groups of what `model` answered to `prompts`."""
        made_by = model_hash(resolve(str(model)))
        which: dict[str, Any] = {"prompt_ids": [p.id for p in prompts], "model": made_by}
        built, report = preference_groups(self.store, self.scorer, config, **which)
        return list(built), report

    def improve(
        self, model: str | Path, groups: Sequence[PreferenceGroup], held: Sequence[Prompt], config: Config, output: Path
    ) -> Path:
        """DPO on `groups`; pass rate on the prompts `held` picks the checkpoint, without any the last one is taken."""
        from hafs.models.loading import load_tokenizer
        from hafs.training import train_dpo

        check = (
            PassRate(load_tokenizer(Path(model)), held, self.scorer, config.eval, progress=self.progress)
            if held
            else None
        )
        train_dpo(str(model), groups, config.dpo, output, validate=check, progress=self.progress)
        return output / "model"

    def teach_winners(
        self, model: str | Path, groups: Sequence[PreferenceGroup], held: Sequence[Prompt], config: Config, output: Path
    ) -> Path | None:
        """SFT on the right winners of `groups` with the settings of SFT, as many passes as DPO makes; as `improve`.

        None where no winner may be taught: they are all known to be wrong.
        """
        from hafs.models.loading import load_tokenizer
        from hafs.training import train_sft
        from hafs.training.data import winner_examples

        section = override(config.sft, num_epochs=config.dpo.num_epochs, seed=config.dpo.seed)
        if not (taught := winner_examples(groups, section.answers)):
            return None
        check = PassRate(load_tokenizer(Path(model)), held, self.scorer, config.eval) if held else None
        train_sft(str(model), taught, section, output, validate=check, progress=self.progress)
        return output / "model"

    def promote(self, name: str, path: Path, reason: str) -> Path:
        """Name the model to use in `models/best.json`."""
        with atomic_write(self.root / "models" / "best.json") as f:
            json.dump({"name": name, "path": str(path), "hash": model_hash(path), "reason": reason}, f, indent=1)
        return path


def check_scorer(scorer: Scorer, prompts: Sequence[Prompt]) -> None:
    """Check a reference answer of each checker, so that a missing tool ends the run before the long work."""
    for checker, mine in checkers(scorer, prompts):
        for prompt in [p for p in mine if p.references][:1]:
            (score,) = checker.score([(prompt, Candidate(prompt.id, prompt.references[0].text, source="reference"))])
            if score.value is None:
                raise HafsError(f"answers cannot be checked on this machine: {score.reason}", "hafs doctor")
    if prompts and not checkers(scorer, prompts):
        raise UsageError(f"nothing checks these {len(prompts)} prompts: {NO_CHECKER}", "`hafs tasks check FILE` looks")


def no_groups(report: BuildReport) -> HafsError:
    """What to say when nothing can be trained on."""
    return HafsError(f"no preference group came of the candidates: {report}", "more candidates or other prompts")
