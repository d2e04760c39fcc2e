"""The engine `trl`: the same groups through TRL's own trainer, what it refuses, and where it agrees with hafs'."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hafs.config import DPOConfig
from hafs.errors import HafsError, MissingTool, UsageError
from hafs.models.loading import load_model, load_tokenizer
from hafs.training import train_dpo
from hafs.training.runner import TrainResult
from hafs.types import Edge, GroupCandidate, PreferenceGroup

pytest.importorskip("trl")

from hafs.training import trl as engine
from hafs.training.trl import train_dpo_trl

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}
SMALL: dict[str, Any] = {
    "batch_size": 4,
    "gradient_accumulation_steps": 3,
    "num_epochs": 2,
    "save_steps": 1,
    "precision": "fp32",
    "learning_rate": 1e-3,
    "validation_share": 0.2,
    "row_tokens": 128,
    "lora": LORA,
}
ONE_BATCH = {**SMALL, "batch_size": 99, "gradient_accumulation_steps": 1, "validation_share": 0.0, "warmup_ratio": 0.0}
KEYS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "grad_norm",
    "learning_rate",
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))


def preferences(n: int = 9) -> list[PreferenceGroup]:
    """Groups of three candidates and three edges that say: the answer in capitals is better."""
    return [
        PreferenceGroup(
            f"word {i}",
            (GroupCandidate(f"WORD{i}"), GroupCandidate(f"word{i}"), GroupCandidate(f"w{i}")),
            (Edge(0, 1), Edge(0, 2), Edge(1, 2)),
            system="be brief" if i % 2 else "",
        )
        for i in range(n)
    ]


def log_of(path: Path, key: str = "loss") -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [r for r in rows if key in r]


def logits(model: str | Path) -> torch.Tensor:
    net = load_model(model, "fp32")
    with torch.no_grad():
        return net(input_ids=torch.arange(40)[None]).logits


@pytest.mark.slow
def test_a_run_trains_validates_and_saves_a_model_that_loads(tiny_model: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "run", list[tuple[str, int, int]]()
    config = DPOConfig(**{**SMALL, "num_epochs": 8, "learning_rate": 5e-3, "save_steps": 4})
    result = train_dpo_trl(str(tiny_model), preferences(), config, out, progress=lambda *a: seen.append(a[:3]))
    first, *_, last = log_of(out)
    held = log_of(out, "eval/loss")
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert last["loss"] < 0.6 and last["rewards/accuracies"] > 0.9
    assert held[0]["step"] == 0 and held[0]["eval/loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert result.best_step == min(held, key=lambda r: r["eval/loss"])["step"] > 0
    assert result.best["eval/loss"] == -result.best["score"] == pytest.approx(min(r["eval/loss"] for r in held))
    assert "eval/rewards/accuracies" in result.best
    assert result.steps == last["step"] and result.tokens > 0 and result.dropped == 0
    assert ("training", result.steps, result.steps) in seen
    assert load_tokenizer(out / "model").chat_template
    assert (logits(out / "model") - logits(tiny_model)).abs().max() > 1e-3
    assert sorted(p.name for p in out.iterdir()) == ["checkpoints", "log.jsonl", "model", "run.json"]
    assert [p.name for p in (out / "checkpoints").iterdir()] == [f"step-{result.best_step:06d}"]


def test_a_step_counts_pairs_and_says_so(tiny_model: Path, tmp_path: Path) -> None:
    groups = [*preferences(4), PreferenceGroup("one", (GroupCandidate("A"), GroupCandidate("b")), (Edge(0, 1),))]
    config = DPOConfig(**{**SMALL, "validation_share": 0.0, "num_epochs": 1})
    result = train_dpo_trl(str(tiny_model), groups, config, tmp_path / "run")
    assert result.steps == 2  # 13 pairs, 12 a step
    assert any("a step was 12 of them, about 4.62 prompts" in w for w in result.warnings)
    assert any("1 to 3 pairs" in w for w in result.warnings)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss": "hinge"},
        {"loss": "ipo"},
        {"loss": "robust", "label_smoothing": 0.1},
        {"loss": "sigmoid_norm"},
        {"loss": "apo_zero"},
        {"ld_alpha": 0.5},
    ],
    ids=lambda c: " ".join(map(str, c.values())) or "sigmoid",
)
def test_the_first_steps_are_those_of_the_hafs_engine(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """All pairs in one batch, no dropout, the same start of the adapter: each step's figures agree."""
    config = DPOConfig(**{**ONE_BATCH, "num_epochs": 3, **changes})
    train_dpo(str(tiny_model), preferences(), config, tmp_path / "ours")
    train_dpo_trl(str(tiny_model), preferences(), config, tmp_path / "theirs")
    ours, theirs = log_of(tmp_path / "ours"), log_of(tmp_path / "theirs")
    assert len(ours) == len(theirs) == 3
    weighed = ("rewards", "logps") if "ld_alpha" in changes else ()  # hafs logs these unweighed
    for a, b in zip(ours, theirs, strict=True):
        for key in (k for k in KEYS if not k.startswith(weighed)):
            assert a[key] == pytest.approx(b[key], rel=1e-3, abs=1e-4), (a["step"], key)
    difference = (logits(tmp_path / "ours" / "model") - logits(tmp_path / "theirs" / "model")).abs().max()
    assert difference < 1e-3 < (logits(tmp_path / "ours" / "model") - logits(tiny_model)).abs().max()


def test_the_nll_term_is_added(tiny_model: Path, tmp_path: Path) -> None:
    config = DPOConfig(**{**ONE_BATCH, "num_epochs": 1})
    train_dpo_trl(str(tiny_model), preferences(), config, tmp_path / "without")
    train_dpo_trl(str(tiny_model), preferences(), config.model_copy(update={"nll_weight": 0.5}), tmp_path / "with")
    without, with_ = log_of(tmp_path / "without")[0], log_of(tmp_path / "with")[0]
    assert with_["loss"] - without["loss"] > 1  # half of the NLL of random bytes
    assert with_["rewards/margins"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", ["dora", "full"])
def test_other_methods_and_a_saved_adapter(tiny_model: Path, tmp_path: Path, method: str) -> None:
    config = DPOConfig(**{**SMALL, "method": method, "save": "adapter", "activation_checkpointing": True})
    train_dpo_trl(str(tiny_model), preferences(), config, tmp_path / "run")
    assert (tmp_path / "run" / "model" / "adapter_config.json").is_file() == (method == "dora")
    assert log_of(tmp_path / "run")[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert (logits(tmp_path / "run" / "model") - logits(tiny_model)).abs().max() > 1e-6


DROPOUT = {**SMALL, "lora": {**LORA, "dropout": 0.1}}


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A run that nothing disturbed; its directory is read only."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAFS_CACHE", str(folder / "cache"))
        return folder / "run", train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**DROPOUT), folder / "run")


def test_a_finished_run_is_not_repeated_and_a_changed_one_is_refused(
    tiny_model: Path, whole: tuple[Path, TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, first = whole
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    monkeypatch.setattr(engine, "_trainer", lambda *a, **k: pytest.fail("trained again"))
    assert train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**DROPOUT), run) == first
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
    with pytest.raises(UsageError, match="settings"):
        train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**{**DROPOUT, "beta": 0.2}), run)
    with pytest.raises(UsageError, match="engine"):
        train_dpo(str(tiny_model), preferences(), DPOConfig(**DROPOUT), run)


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_killed_run_goes_on_from_trls_checkpoint(
    tiny_model: Path, whole: tuple[Path, TrainResult], tmp_path: Path, step: int
) -> None:
    config = DPOConfig(**DROPOUT)
    undisturbed, first = whole
    cut = tmp_path / "cut"
    assert first.steps == 4

    def kill(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if what == "training" and done == step:
            raise Killed

    with pytest.raises(Killed):
        train_dpo_trl(str(tiny_model), preferences(), config, cut, progress=kill)
    (cut / "trl" / "checkpoint-99").mkdir(parents=True)  # what a kill inside a checkpoint leaves
    again = train_dpo_trl(str(tiny_model), preferences(), config, cut)
    assert (again.steps, again.best_step, again.tokens) == (first.steps, first.best_step, first.tokens)
    assert torch.allclose(logits(cut / "model"), logits(undisturbed / "model"), atol=1e-5)
    for key in ("loss", "eval/loss"):
        ours, theirs = log_of(cut, key), log_of(undisturbed, key)
        assert [r["step"] for r in ours] == [r["step"] for r in theirs]
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], abs=1e-5)


def test_a_run_whose_model_could_not_be_written_only_writes_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*a: Any) -> None:
        raise HafsError("the disk is full")

    run = tmp_path / "run"
    with monkeypatch.context() as broken:
        broken.setattr(engine, "save_checked", full)
        with pytest.raises(HafsError, match="full"):
            train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**SMALL), run)
    before = (run / "log.jsonl").read_bytes()
    result = train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**SMALL), run)
    assert (run / "log.jsonl").read_bytes() == before
    assert result.steps == 4 and (run / "model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": "simpo"}, "no loss 'simpo'"),
        ({"label_smoothing": 0.1}, "robust"),
        ({"reference_free": True}, "reference"),
        ({"quantize": "nf4"}, "4 bits"),
        ({"two_pass": True}, "two passes"),
        ({"attention": "flex"}, "FlexAttention"),
    ],
)
def test_what_trl_cannot_do_is_refused_in_words(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as e:
        train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**{**SMALL, **changes}), tmp_path / "run")
    assert "--engine hafs" in e.value.fix
    assert not (tmp_path / "run").exists()


def test_another_reference_is_refused_and_the_start_by_name_is_not(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    net = load_model(tiny_model, "fp32")
    with torch.no_grad():
        next(net.parameters()).add_(1)
    net.save_pretrained(str(other))
    load_tokenizer(tiny_model).save_pretrained(str(other))
    config = DPOConfig(**{**ONE_BATCH, "num_epochs": 1, "reference": str(other)})
    with pytest.raises(UsageError, match="reference"):
        train_dpo_trl(str(tiny_model), preferences(), config, tmp_path / "run")
    same = config.model_copy(update={"reference": str(tiny_model)})
    assert train_dpo_trl(str(tiny_model), preferences(), same, tmp_path / "run").steps == 1


def test_weights_and_probabilities_are_refused_with_their_counts(tiny_model: Path, tmp_path: Path) -> None:
    three = tuple(map(GroupCandidate, ("A", "bb", "ccc")))
    groups = [
        *preferences(2),
        PreferenceGroup("x", three, (Edge(0, 1, weight=0.5), Edge(1, 2, p=0.9))),
        PreferenceGroup("y", three, (Edge(0, 1, weight=2), Edge(1, 2, weight=2))),  # alike, but twice those of others
    ]
    with pytest.raises(UsageError, match="1 of 10 pairs have another probability, 2 of 4 prompts"):
        train_dpo_trl(str(tiny_model), groups, DPOConfig(**SMALL), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_texts_that_trl_would_read_as_other_tokens_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    ends_itself = PreferenceGroup("x", (GroupCandidate("A<|im_end|>"), GroupCandidate("b")), (Edge(0, 1),))
    with pytest.raises(UsageError, match="1 of 8 answers as other tokens"):
        train_dpo_trl(str(tiny_model), [*preferences(1), ends_itself], DPOConfig(**ONE_BATCH), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_validate_hook_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="validation loss"):
        train_dpo(
            str(tiny_model), preferences(), DPOConfig(**{**SMALL, "engine": "trl"}), tmp_path, validate=lambda *a: {}
        )


def test_without_trl_the_extra_is_named(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match=r"hafs\[trl\]"):
        train_dpo_trl(str(tiny_model), preferences(), DPOConfig(**SMALL), tmp_path / "run")
