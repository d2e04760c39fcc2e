"""Training runs: resumed = uninterrupted, finished runs stay, changed ones are refused, the best checkpoint is kept."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forked import Forks
from hafs.config import DPOConfig, SFTConfig
from hafs.errors import DataError, UsageError
from hafs.models.loading import load_tokenizer
from hafs.training import train_dpo, train_sft
from hafs.training.checkpoints import RunDirectory
from hafs.training.left_out import LeftOut
from hafs.training.rows import SIZES
from hafs.training.run import split
from hafs.training.runner import TrainResult, learning_rate
from hafs.types import Edge, GroupCandidate, PreferenceGroup

LORA = {"rank": 4, "alpha": 8, "dropout": 0.1}
SMALL: dict[str, Any] = {
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_epochs": 2,
    "save_steps": 1,
    "precision": "fp32",
    "learning_rate": 1e-3,
    "validation_share": 0.2,
    "row_tokens": 128,
    "lora": LORA,
}


def preferences(n: int = 14) -> list[PreferenceGroup]:
    """Groups that all say: the answer in capitals is better."""
    return [
        PreferenceGroup(
            f"word {i}",
            (GroupCandidate(f"WORD{i}"), GroupCandidate(f"word{i}"), GroupCandidate(f"w{i}")),
            (Edge(0, 1), Edge(0, 2), Edge(1, 2, 0.5)),
        )
        for i in range(n)
    ]


def examples(n: int = 14) -> list[PreferenceGroup]:
    return [PreferenceGroup(f"say {i}", (GroupCandidate(f"{i} {i}"),), ()) for i in range(n)]


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


def kill_at(step: int) -> Any:
    def progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        if what == "training" and done == step:
            raise Killed

    return progress


def test_groups_are_split_by_prompt_and_those_for_tests_are_left_out(tiny_model: Path) -> None:
    tokenizer, config = load_tokenizer(tiny_model), DPOConfig(**{**SMALL, "validation_share": 0.3})
    groups = [*preferences(40), *(replace(g, system="") for g in preferences(40))]
    train, valid = split(groups, tokenizer, config)
    asked = [{g.prompt for g in side} for side in (train, valid)]
    assert len(train) + len(valid) == 80 and all(asked) and not asked[0] & asked[1]
    train, valid = split([replace(groups[0], split="validation"), *groups[1:40]], tokenizer, config)
    assert (len(train), len(valid)) == (39, 1), "where some are marked, only those validate"
    left = LeftOut(config.max_length)
    train, valid = split([replace(groups[0], split="test"), *groups[1:40]], tokenizer, config, left)
    assert len(train) + len(valid) == 39 and left.notes(40) == [
        "1 of 40 prompts are of the test split and are left out"
    ]
    with pytest.raises(DataError, match="all 40 prompts are left out"):
        split([replace(g, split="test") for g in groups[:40]], tokenizer, config)


def log_of(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k != "seconds"} for r in rows]


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(str(path / "model" / "model.safetensors"))


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, TrainResult]]:
    """A run of SFT and one of DPO that nothing disturbed; their directories are read only."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAFS_CACHE", str(folder / "cache"))
        sft = train_sft(str(tiny_model), examples(), SFTConfig(**SMALL), folder / "sft")
        dpo = train_dpo(str(tiny_model), preferences(), DPOConfig(**SMALL), folder / "dpo")
    return {"sft": (folder / "sft", sft), "dpo": (folder / "dpo", dpo)}


def same(a: Path, b: Path) -> None:
    """Equal curves and weights, bit for bit."""
    assert log_of(a) == log_of(b)
    for name, tensor in weights_of(b).items():
        assert torch.equal(tensor, weights_of(a)[name]), name


@pytest.mark.parametrize(("kind", "step"), [("dpo", 1), ("dpo", 3), ("dpo", 6), ("sft", 3)])
def test_resumed_is_uninterrupted_bit_for_bit(
    tiny_model: Path, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, step: int
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    train: Any = train_sft if kind == "sft" else train_dpo
    config: Any = (SFTConfig if kind == "sft" else DPOConfig)(**SMALL)
    data = examples() if kind == "sft" else preferences()
    undisturbed, first = whole[kind]
    cut = tmp_path / "cut"
    with pytest.raises(Killed):
        train(str(tiny_model), data, config, cut, progress=kill_at(step))
    torch.manual_seed(12345)  # a new process has another random state
    again = train(str(tiny_model), data, config, cut)
    assert (again.best_step, again.best, again.tokens) == (first.best_step, first.best, first.tokens)
    same(cut, undisturbed)


SCRIPT = """
import os, signal, threading
from pathlib import Path
from test_training_run import SMALL, preferences
from hafs.config import DPOConfig
from hafs.training import train_dpo

def progress(what, done, total, figures):
    if (what, done) == ("training", {step}):  # soon it is logging, validating or in the middle of a checkpoint
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()

train_dpo({model!r}, preferences(), DPOConfig(**SMALL), Path({out!r}), progress=progress)
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_loses_nothing(forks: Forks, tiny_model: Path, whole: Any, tmp_path: Path) -> None:
    env = {"HAFS_CACHE": str(tmp_path / "cache")}
    for step, code in ((2, -signal.SIGKILL), (5, -signal.SIGKILL), (0, 0)):
        program = SCRIPT.format(step=step, model=str(tiny_model), out=str(tmp_path / "cut"))
        assert forks.run(program, env) == [code]
    same(tmp_path / "cut", whole["dpo"][0])


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
    tiny_model: Path, whole: Any, tmp_path: Path
) -> None:
    run, first = whole["sft"]
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
    half = PreferenceGroup("half", (GroupCandidate("x" * 300), GroupCandidate("y")), ())
    data = [*examples(), PreferenceGroup("long", (GroupCandidate("x" * 300),), ()), half]
    config = SFTConfig(**{**SMALL, "num_epochs": 0.1, "max_length": 128})
    result = train_sft(str(tiny_model), data, config, tmp_path / "run")
    assert result.dropped == 1
    said = "\n".join(result.warnings)
    assert f"1 of {len(data)} prompts are left out, longer than max_length 128 tokens (the longest has " in said
    assert "1 answers to prompts that are kept are left out as too long, and 0 edges with them" in said
    assert str(tmp_path / "run" / "left_out.jsonl") in said
    rows = [json.loads(line) for line in (tmp_path / "run" / "left_out.jsonl").read_text().splitlines()]
    assert [(r["row"], r["prompt"], r.get("answers")) for r in rows] == [
        (len(data) - 1, "long", None),
        (len(data), "half", ["x" * 300]),
    ]
    with pytest.raises(UsageError, match=r"nothing to train on: all 1 prompts are left out \(\d+ tokens are more than"):
        train_sft(str(tiny_model), data[-2:-1], config, tmp_path / "none")


def test_departing_from_the_guide_is_said(whole: Any) -> None:
    warnings = whole["dpo"][1].warnings
    assert any("learning rate" in w for w in warnings)
    assert any("epochs" in w for w in warnings)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_rises_then_falls_and_never_leaves_its_bounds(schedule: Any) -> None:
    config = SFTConfig(learning_rate=1.0, schedule=schedule, warmup_ratio=0.1)
    rates = [learning_rate(config, step, 50) for step in range(1, 51)]
    assert rates[4] == 1.0
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert all(0 < r <= 1 for r in rates)


def test_sft_may_learn_one_of_a_prompts_right_answers(tmp_path: Path) -> None:
    from hafs.data import read_examples
    from hafs.training.data import examples as of_prompts
    from hafs.types import Prompt, Reference

    prompt = Prompt("add", references=(Reference("short", "ADC"), Reference("long", "CLC\nADC")))
    (tmp_path / "tasks.jsonl").write_text(json.dumps(prompt.to_dict()) + "\n")
    for answers, texts in ((0, ["ADC", "CLC\nADC"]), (1, ["ADC"]), (2, ["ADC", "CLC\nADC"])):
        for group in (*of_prompts([prompt], answers), *read_examples(tmp_path / "tasks.jsonl", answers).rows):
            assert [c.text for c in group.candidates] == texts


def run_with(model: Path, tmp_path: Path, name: str, **changes: Any) -> Path:
    """Train on the preferences with changed settings; the run's directory."""
    out = tmp_path / name
    train_dpo(str(model), preferences(), DPOConfig(**{**SMALL, "lora": {**LORA, "dropout": 0.0}, **changes}), out)
    return out


def curves(path: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in r.items() if not isinstance(v, str)} for r in log_of(path)]


def close(a: Path, b: Path) -> None:
    """Equal curves and weights, to rounding; at the first step the signs of margins are rounding and nothing else."""
    signs = ("length_preference", "rewards/accuracies")
    for x, y in zip(curves(a), curves(b), strict=True):
        left = [{k: v for k, v in row.items() if x["step"] > 1 or k not in signs} for row in (x, y)]
        assert left[0] == pytest.approx(left[1], rel=1e-3, abs=1e-4)
    for name, tensor in weights_of(a).items():
        torch.testing.assert_close(weights_of(b)[name], tensor, rtol=1e-4, atol=2e-6)


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAFS_CACHE", str(folder / "cache"))
        return run_with(tiny_model, folder, "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"two_pass": True, "row_tokens": 48},  # every group is split
        {"activation_checkpointing": True},
        {"batch_size": 4, "gradient_accumulation_steps": 1},
        {"row_tokens": 24},
    ],
    ids=["two passes", "checkpointing", "accumulation", "rows"],
)
def test_how_a_step_is_computed_changes_nothing(
    tiny_model: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(plain.parent / "cache"))  # the reference is that of the plain run
    close(plain, run_with(tiny_model, tmp_path, "other", **changes))


def test_a_group_in_two_passes_with_dropout_sees_the_same_dropout_twice(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the two passes' dropout not the same, the loss would not go down its gradient: the runs would differ."""
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    settings = {"lora": {**LORA, "dropout": 0.3}, "row_tokens": 48, "two_pass": True}
    close(run_with(tiny_model, tmp_path, "a", **settings), run_with(tiny_model, tmp_path, "b", **settings))


@pytest.mark.parametrize("method", ["dora", "full"])
def test_other_ways_to_train_learn_resume_and_load(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    from hafs.models.loading import load_model

    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    settings = {**SMALL, "method": method, "learning_rate": 3e-3, "num_epochs": 3}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_dpo(str(tiny_model), preferences(), DPOConfig(**settings), whole)
    with pytest.raises(Killed):
        train_dpo(str(tiny_model), preferences(), DPOConfig(**settings), cut, progress=kill_at(4))
    train_dpo(str(tiny_model), preferences(), DPOConfig(**settings), cut)
    rows = [r for r in log_of(whole) if "loss" in r]
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)  # the reference is the start, whatever is trained
    assert rows[-1]["loss"] < 0.65
    assert log_of(cut) == log_of(whole)
    assert all(torch.equal(t, weights_of(cut)[n]) for n, t in weights_of(whole).items())
    load_model(whole / "model", "fp32")


def test_a_base_in_four_bits_is_trained_and_its_adapter_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from conftest import byte_tokenizer, tiny_network
    from hafs.models.loading import load_model

    pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    tiny_network(hidden_size=128, intermediate_size=128).save_pretrained(str(tmp_path / "base"))
    byte_tokenizer().save_pretrained(str(tmp_path / "base"))
    out = run_with(tmp_path / "base", tmp_path, "run", quantize="nf4", num_epochs=3, learning_rate=5e-3)
    rows = [r for r in log_of(out) if "loss" in r]
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-4)
    assert rows[-1]["loss"] < 0.68
    assert (out / "model" / "adapter_model.safetensors").is_file()
    net = load_model(out / "model", "fp32")  # on the base as it was before it was put into 4 bits
    assert not any(type(m).__module__.startswith("bitsandbytes") for m in net.modules())


def test_a_named_reference_is_what_margins_are_measured_against(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Round two: training starts from the model of round one, the reference stays the SFT model."""
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    lively = {"learning_rate": 5e-3, "num_epochs": 4, "validation_share": 0.0}
    one = run_with(tiny_model, tmp_path, "one", **lively)
    two = run_with(one / "model", tmp_path, "two", reference=str(tiny_model), **lively)
    last, first = [r for r in log_of(one) if "loss" in r][-1], next(r for r in log_of(two) if "loss" in r)
    assert first["rewards/margins"] > 0.5 * last["rewards/margins"] > 0.05
    fresh = run_with(one / "model", tmp_path, "fresh", **lively)
    assert next(r for r in log_of(fresh) if "loss" in r)["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_without_a_reference_margins_are_log_probabilities(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    out = run_with(tiny_model, tmp_path, "free", reference_free=True, loss="simpo", beta=2.0)
    first = next(r for r in log_of(out) if "loss" in r)
    assert first["rewards/chosen"] == pytest.approx(2.0 * first["logps/chosen"], rel=1e-5)
    assert not (tmp_path / "cache" / "reference").exists()


def test_the_reference_is_computed_once_for_all_runs_on_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    def progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        asked.append(what)

    for name, beta in (("a", 0.1), ("b", 0.5)):
        config = DPOConfig(**{**SMALL, "num_epochs": 0.1, "beta": beta, "row_tokens": 64 if name == "b" else 128})
        train_dpo(str(tiny_model), preferences(), config, tmp_path / name, progress=progress)
    assert asked.count("reference") == asked[: asked.index("training")].count("reference") > 0


def test_what_has_changed_is_named(whole: Any, tmp_path: Path) -> None:
    from conftest import byte_tokenizer, tiny_network

    other = tmp_path / "other"
    tiny_network(seed=1).save_pretrained(str(other))
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "model")
    tokenizer.add_tokens(["LDA"])
    tokenizer.save_pretrained(str(other))
    with pytest.raises(UsageError) as said:
        train_sft(str(other), examples(9), SFTConfig(**{**SMALL, "lora": {**LORA, "rank": 2}}), whole["sft"][0])
    for what in ("data (was", "model (was", "template (was", "tokenizer (was", "settings.lora.rank (was 4, is 2)"):
        assert what in said.value.what


def test_a_tracker_gets_the_curves(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    out = run_with(tiny_model, tmp_path, "run", trackers=["tensorboard"])
    seen = reader.EventAccumulator(str(out / "trackers" / "hafs"))
    seen.Reload()
    losses = [e.value for e in seen.Scalars("loss")]
    assert losses == pytest.approx([r["loss"] for r in log_of(out) if "loss" in r], rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"rewards/chosen": -0.1 * i} for i in range(20)], "likelihood displacement"),
        ([{"length_preference": 0.9} for _ in range(8)], "the longer answer gets the higher reward"),
        ([{"length_preference": -0.9} for _ in range(8)], "the shorter answer gets the higher reward"),
        ([{"eval/tokens": 40.0}, {"eval/tokens": 61.0}], "grew from 40 to 61 tokens"),
        ([{"eval/loss": x} for x in (0.69, 0.5, 0.56, 0.6)], "lowest at step 1 (0.500) and ended at 0.600"),
    ],
)
def test_trouble_is_said_in_words(tmp_path: Path, rows: list[dict[str, float]], words: str) -> None:
    from hafs.training.advice import signs_of_trouble

    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps({"step": i, "loss": 0.5, **r}) + "\n" for i, r in enumerate(rows)))
    (said,) = signs_of_trouble(log, 1)
    assert words in said
    calm = [{"step": i, "loss": 0.6, "rewards/chosen": 0.1, "length_preference": 0.1} for i in range(9)]
    log.write_text("".join(json.dumps(r) + "\n" for r in calm))
    assert signs_of_trouble(log, 1) == []


def test_rows_left_open_are_chosen_once_and_change_no_result(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))
    settings = {**SMALL, "num_epochs": 1, "lora": {**LORA, "dropout": 0.0}}
    config = DPOConfig(**{**settings, "row_tokens": 0})
    with pytest.raises(Killed):
        train_dpo(str(tiny_model), preferences(), config, tmp_path / "open", progress=kill_at(1))
    assert RunDirectory(tmp_path / "open").recorded("row_tokens") == 512
    monkeypatch.setitem(SIZES, "cpu", (64,))  # as if there were less memory now
    kept = train_dpo(str(tiny_model), preferences(), config, tmp_path / "open")
    anew = train_dpo(str(tiny_model), preferences(), config, tmp_path / "small")
    assert (kept.row_tokens, anew.row_tokens) == (512, 64)
    for name, tensor in weights_of(tmp_path / "open").items():
        torch.testing.assert_close(tensor, weights_of(tmp_path / "small")[name], rtol=1e-4, atol=1e-5)
    monkeypatch.setattr("hafs.training.rows.available_memory", lambda device: 1)
    tight = train_dpo(str(tiny_model), preferences(), config, tmp_path / "tight")
    assert any("rows of 64 tokens, the fewest that are tried" in said for said in tight.warnings)


@pytest.mark.parametrize("tokens", [-1, 1, 7])
def test_a_row_holds_some_tokens(tokens: int) -> None:
    with pytest.raises(ValueError, match="row_tokens"):
        DPOConfig(row_tokens=tokens)


def test_a_paged_optimizer_is_for_a_card(tiny_model: Path, tmp_path: Path) -> None:
    config = DPOConfig(**{**SMALL, "method": "full", "paged_optimizer": True})
    with pytest.raises(UsageError, match="no card here"):
        train_dpo(str(tiny_model), preferences(), config, tmp_path / "run")
