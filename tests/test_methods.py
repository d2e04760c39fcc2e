"""Comparing methods: which trainings run side by side, and what is kept when one fails."""

from __future__ import annotations

from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from hafs import methods
from hafs.config import Config
from hafs.errors import HafsError
from hafs.types import Prompt


class Checker:
    """Stands where the benchmark's scorer does; nothing is scored here."""

    def close(self) -> None:
        pass


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a comparison of DPO whose trainings are `train(run)`; returns (the models measured, what came of it)."""

    def run(train: Any, seeds: int, jobs: int) -> tuple[list[str], Any]:
        measured: list[str] = []

        def evaluate(store: Any, scorer: Any, model: str, name: str, *rest: Any) -> str:
            measured.append(name)
            return name

        monkeypatch.setattr(methods, "scorer_for", lambda *_: Checker())
        monkeypatch.setattr(methods, "evaluate", evaluate)
        monkeypatch.setattr(methods, "_train", lambda run, arguments, workspace: train(run))
        monkeypatch.setattr(methods, "_summary", lambda method, costs, results, sft, seeds: (method, costs, results))
        job = methods.Job("sft", tmp_path / "p.jsonl", tmp_path / "a.jsonl", tmp_path)
        store: Any = None
        try:
            came = methods.compare_methods(store, Config(), job, "b", [Prompt("x")], ["dpo"], seeds, jobs=jobs)
        except HafsError as e:
            return measured, e
        return measured, came

    return run


def test_jobs_train_side_by_side_and_results_stay_in_the_order_of_the_seeds(compared: Any) -> None:
    both = Barrier(2, timeout=30)  # opens only when two trainings run at once

    def train(run: Path) -> dict[str, Any]:
        both.wait()
        return {"run": run.parent.name}

    measured, (sft, (only,)) = compared(train, seeds=2, jobs=2)
    assert sft == measured[0] == "sft" and sorted(measured[1:]) == ["dpo seed 0", "dpo seed 1"]
    assert only == ("dpo", [{"run": "seed-0"}, {"run": "seed-1"}], ["dpo seed 0", "dpo seed 1"])


def test_what_is_trained_is_measured_before_another_training_fails(compared: Any) -> None:
    def train(run: Path) -> dict[str, Any]:
        if run.parent.name == "seed-1":
            raise HafsError("it failed", "")
        return {}

    measured, came = compared(train, seeds=3, jobs=1)
    assert isinstance(came, HafsError)
    assert measured[:2] == ["sft", "dpo seed 0"] and "dpo seed 1" not in measured
