"""A workspace of the version before opens, and what was finished in it is found finished.

`old_workspace/hafs.sql` is the database that the version of schema 10 wrote for two evaluations and a sealed set (its
model's hash was a given one, its answers were written by hand); `old_workspace/settings.json` holds what that version
noted in `run.json` as the settings of trainings with their defaults then.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hafs.config import Config, DPOConfig, GenerateConfig, PPOConfig, RewardConfig, SFTConfig
from hafs.errors import UsageError
from hafs.evals import evaluate as evaluation
from hafs.evals.sealed import refuse_sealed
from hafs.scorers.exact import ExactScorer
from hafs.scorers.run import scorer_for
from hafs.store import Workspace, init_workspace
from hafs.types import Prompt, Reference

HERE = Path(__file__).parent / "old_workspace"
HASH = "0123456789abcdef0123"


@pytest.fixture
def old(tmp_path: Path) -> Workspace:
    workspace = init_workspace(tmp_path / "w")
    for file in workspace.root.glob("hafs.db*"):
        file.unlink()
    with closing(sqlite3.connect(workspace.root / "hafs.db")) as database:
        database.executescript((HERE / "hafs.sql").read_text())
    return workspace


def asked(word: str) -> Prompt:
    right = word.lower()
    return Prompt(
        f"Say {word} in lower case.",
        checker="exact",
        check={"answer": right},
        references=(Reference("plain", right),),
        split="test",
    )


def test_finished_evaluations_are_found_finished(old: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "model_hash", lambda path: HASH)
    monkeypatch.setattr(evaluation, "resolve", Path)
    monkeypatch.setattr(evaluation, "is_local", lambda model: True)
    monkeypatch.setattr(ExactScorer, "version", "1")  # as it was: what a scorer judges otherwise now is measured anew
    monkeypatch.setattr(evaluation, "open_backend", lambda *_: pytest.fail("the model is asked again"))
    prompts, config = [asked("PORT"), asked("STARS")], Config()
    with old.open_store() as store, closing(scorer_for(config)) as scorer:
        about = (store, scorer, "models/tiny", "tiny", "words", prompts)
        result = evaluation.evaluate(*about, config.eval)
        assert (result.passed, result.scored, result.model) == (1, 2, HASH)
        sampled = evaluation.evaluate_sampled(*about, GenerateConfig(candidates=2, temperature=0.8))
        assert sampled.samples == 2 and not sampled.unscored()
        assert len(list(store.candidates())) == 4
        newest = store.newest("eval", name="tiny")
        assert newest is not None and newest.metrics == {"passed": 1, "scored": 2}
        with pytest.raises(UsageError, match="sealed in 'final'"):
            refuse_sealed(store, [asked("MOON")])


@pytest.mark.parametrize(
    ("kind", "section"), [("sft", SFTConfig), ("dpo", DPOConfig), ("reward", RewardConfig), ("ppo", PPOConfig)]
)
def test_a_training_is_the_one_that_was_begun(kind: str, section: Any, tmp_path: Path) -> None:
    from hafs.training.checkpoints import RunDirectory
    from hafs.training.run import settings_of

    before: Mapping[str, Any] = json.loads((HERE / "settings.json").read_text())[kind]
    (tmp_path / "run.json").write_text(json.dumps({"identity": {"kind": kind, "settings": before}}))
    now = settings_of(section.model_validate(before))
    RunDirectory(tmp_path).claim({"kind": kind, "settings": now}, defaults=settings_of(section.model_validate({})))
