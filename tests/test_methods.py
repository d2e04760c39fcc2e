"""Comparing methods: which trainings run side by side, and what is kept when one fails."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from hafs.config import Config
from hafs.errors import HafsError
from hafs.types import Prompt
from hafs.workflows import compare_methods as methods
from run_hafs import hafs, workspace


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
        job = methods.MethodJob("sft", tmp_path / "p.jsonl", tmp_path / "a.jsonl", tmp_path)
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


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_command_of_a_method_is_one_that_hafs_takes(method: str, tmp_path: Path) -> None:
    """Each is parsed; the SFT model is not there, which is the first thing that any of them says."""
    job = methods.MethodJob(
        str(tmp_path / "gone"), tmp_path / "p.jsonl", tmp_path / "a.jsonl", tmp_path, validate="asm:4"
    )
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "x", "chosen": "a", "rejected": "b"}) + "\n")
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n')
    root = workspace(tmp_path / "w")
    for run, arguments in job.commands(method, 3):
        limit = ["--max-minutes", "0.1"] if arguments[1] == "ppo" else []
        assert "gone" in hafs(*arguments, *limit, "-w", root).failed(2).err and run.parent.name == "seed-3"


def test_a_reward_models_minutes_are_ppos_and_a_run_of_something_else_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def train(run: Path, arguments: Any, workspace: Any) -> dict[str, Any]:
        asked.append(list(arguments))
        return {"seconds": 90.0}

    monkeypatch.setattr(methods, "scorer_for", lambda *_: Checker())
    monkeypatch.setattr(methods, "evaluate", lambda *_: None)
    monkeypatch.setattr(methods, "_summary", lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(methods, "_train", train)
        (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n')
        job = methods.MethodJob("sft", tmp_path / "p.jsonl", tmp_path / "a.jsonl", tmp_path, minutes=10)
        store: Any = None
        methods.compare_methods(store, Config(), job, "b", [Prompt("x")], ["reward+ppo", "rloo"], 1)
    assert "--max-minutes" not in asked[0]
    assert asked[1][-2:] == ["--max-minutes", "8.5"] and asked[2][-2:] == ["--max-minutes", "10.0"]


def test_a_cost_is_that_of_a_run_that_is_still_the_same(tiny_model: Path, tmp_path: Path) -> None:
    data, other = tmp_path / "p.jsonl", tmp_path / "q.jsonl"
    for path, better in ((data, "a"), (other, "c")):
        path.write_text(json.dumps({"prompt": "x", "chosen": better, "rejected": "b"}) + "\n")
    root = workspace(tmp_path / "w")
    run = tmp_path / "dpo" / "seed-0" / "dpo"

    def train(data: Path) -> dict[str, Any]:
        job = methods.MethodJob(str(tiny_model), data, data, tmp_path)
        ((where, arguments),) = job.commands("dpo", 0)
        assert where == run
        return methods._train(where, arguments, root)

    first = train(data)
    assert train(data) == first
    with pytest.raises(HafsError, match="train dpo` failed"):
        train(other)
    assert "differs in" in (run.parent / "dpo.log").read_text()
