"""Training runs: resumed = uninterrupted, finished runs stay, changed ones are refused, the best checkpoint is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hafs.config import DPOConfig, SFTConfig
from hafs.errors import UsageError
from hafs.training import train_dpo, train_sft
from hafs.training.checkpoints import RunDirectory
from hafs.training.loop import learning_rate
from hafs.types import Edge, GroupCandidate, PreferenceGroup

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
SMALL: dict[str, Any] = {
    "batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 2, "save_steps": 1, "precision": "fp32",
    "learning_rate": 1e-3, "validation_share": 0.2, "row_tokens": 128, "lora": LORA,
}  # fmt: skip


def preferences(n: int = 14) -> list[PreferenceGroup]:
    """Groups that all say: the answer in capitals is better."""
    return [
        PreferenceGroup(f"word {i}", (GroupCandidate(f"WORD{i}"), GroupCandidate(f"word{i}"), GroupCandidate(f"w{i}")),
                        (Edge(0, 1), Edge(0, 2), Edge(1, 2, 0.5)))
        for i in range(n)
    ]  # fmt: skip


def examples(n: int = 14) -> list[PreferenceGroup]:
    return [PreferenceGroup(f"say {i}", (GroupCandidate(f"{i} {i}"),), ()) for i in range(n)]


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


def kill_at(step: int) -> Any:
    def progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if what == "training" and done == step:
            raise Killed

    return progress


def log_of(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(str(path / "model" / "model.safetensors"))


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize("step", [1, 3, 6])
def test_resumed_is_uninterrupted_bit_for_bit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: int
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    train: Any = train_sft if kind == "sft" else train_dpo
    config: Any = (SFTConfig if kind == "sft" else DPOConfig)(**SMALL)
    data = examples() if kind == "sft" else preferences()
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first = train(str(tiny_model), data, config, whole)
    with pytest.raises(Killed):
        train(str(tiny_model), data, config, cut, progress=kill_at(step))
    torch.manual_seed(12345)  # a new process has another random state
    again = train(str(tiny_model), data, config, cut)
    assert log_of(cut) == log_of(whole)
    assert (again.best_step, again.best, again.tokens) == (first.best_step, first.best, first.tokens)
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, weights_of(cut)[name]), name


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_training_run import SMALL, preferences
from hafs.config import DPOConfig
from hafs.training import train_dpo
import torch; torch.set_num_threads(1)
train_dpo({model!r}, preferences(), DPOConfig(**SMALL), Path({out!r}), progress=lambda *a: print(*a[:3], flush=True))
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_nothing(tiny_model: Path, tmp_path: Path) -> None:
    env = {**os.environ, "HAFS_CACHE": str(tmp_path / "cache")}
    tests = str(Path(__file__).parent)

    def start(out: Path) -> subprocess.Popen[str]:
        code = SCRIPT.format(tests=tests, model=str(tiny_model), out=str(out))
        return subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait() == 0
    for wait_for in ("training 2", "training 5"):
        process = start(cut)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(wait_for):
                break
        time.sleep(0.02)  # now it is logging, validating or in the middle of a checkpoint
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(cut).wait() == 0
    assert log_of(cut) == log_of(whole)
    assert all(torch.equal(t, weights_of(cut)[n]) for n, t in weights_of(whole).items())


def test_dpo_learns_the_preference_and_starts_at_ln_2(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    lively = {**SMALL, "num_epochs": 6, "learning_rate": 5e-3, "lora": {**LORA, "dropout": 0.0}}
    train_dpo(str(tiny_model), preferences(), DPOConfig(**lively), tmp_path / "run")
    rows = [r for r in log_of(tmp_path / "run") if "loss" in r]
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert rows[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert rows[-1]["rewards/accuracies"] > 0.9
    assert rows[-1]["loss"] < 0.6


def test_a_finished_run_is_not_repeated_and_a_changed_one_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "run"
    first = train_sft(str(tiny_model), examples(), SFTConfig(**SMALL), run)
    before = (run / "log.jsonl").read_bytes()
    assert train_sft(str(tiny_model), examples(), SFTConfig(**SMALL), run) == first
    assert (run / "log.jsonl").read_bytes() == before
    with pytest.raises(UsageError, match="data"):
        train_sft(str(tiny_model), examples(9), SFTConfig(**SMALL), run)
    with pytest.raises(UsageError, match="settings"):
        train_sft(str(tiny_model), examples(), SFTConfig(**{**SMALL, "learning_rate": 1e-4}), run)
    with pytest.raises(UsageError, match="not empty"):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.tex").write_text("years of work")
        train_sft(str(tiny_model), examples(), SFTConfig(**SMALL), tmp_path / "mine")


def test_the_checkpoint_with_the_best_validation_score_is_kept(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    scores = {0: 0.5, 2: 0.75, 4: 0.75, 6: 0.25}
    seen: dict[int, torch.Tensor] = {}

    def validate(step: int, net: Any) -> Mapping[str, float]:
        assert not net.training
        seen[step] = torch.cat([p.detach().flatten() for n, p in net.named_parameters() if "lora" in n]).clone()
        return {"score": scores[step]}

    config = DPOConfig(**{**SMALL, "eval_steps": 2})
    result = train_dpo(str(tiny_model), preferences(), config, tmp_path / "run", validate=validate)
    assert result.best_step == 2
    kept = RunDirectory(tmp_path / "run").weights(2)
    assert torch.equal(torch.cat([t.flatten() for t in kept.values()]).sort().values, seen[2].sort().values)


def test_a_collapse_keeps_the_model_that_training_started_from(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    result = train_dpo(
        str(tiny_model),
        preferences(),
        DPOConfig(**SMALL),
        tmp_path / "run",
        validate=lambda step, net: {"score": -step},
    )
    assert result.best_step == 0
    start = load_file(str(tiny_model / "model.safetensors"))
    for name, tensor in weights_of(tmp_path / "run").items():
        torch.testing.assert_close(tensor, start[name])


def test_answers_that_are_too_long_are_dropped_and_counted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    data = [*examples(), PreferenceGroup("long", (GroupCandidate("x" * 300),), ())]
    result = train_sft(str(tiny_model), data, SFTConfig(**{**SMALL, "max_length": 128}), tmp_path / "run")
    assert result.dropped == 1
    with pytest.raises(UsageError, match="nothing to train on"):
        train_sft(str(tiny_model), data[-1:], SFTConfig(**{**SMALL, "max_length": 128}), tmp_path / "none")


def test_departing_from_the_guide_is_said(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    result = train_dpo(str(tiny_model), preferences(), DPOConfig(**SMALL), tmp_path / "run")
    assert any("learning rate" in w for w in result.warnings)
    assert any("epochs" in w for w in result.warnings)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_then_falls_and_never_leaves_its_bounds(schedule: Any) -> None:
    config = SFTConfig(learning_rate=1.0, schedule=schedule, warmup_ratio=0.1)
    rates = [learning_rate(config, step, 50) for step in range(1, 51)]
    assert rates[4] == 1.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert all(0 < r <= 1 for r in rates)
