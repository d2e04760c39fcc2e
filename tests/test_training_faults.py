"""What goes wrong in a training run is noticed, said, and costs no more than it must."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import byte_tokenizer, tiny_network
from hafs.config import DPOConfig, EvalConfig, SFTConfig, override
from hafs.errors import HafsError, UsageError
from hafs.evals.evaluate import PassRate
from hafs.models.loading import load_model
from hafs.training import train_dpo, train_sft
from hafs.training.advantages import grpo
from hafs.training.checkpoints import RunDirectory
from hafs.training.runner import Runner, TrainResult, seed_of
from hafs.types import Candidate, Prompt, Score, silent
from test_training_run import LORA, SMALL, Killed, examples, kill_at, preferences, same, weights_of

QUICK: dict[str, Any] = {**SMALL, "num_epochs": 1, "lora": {**LORA, "dropout": 0.0}}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAFS_CACHE", str(tmp_path / "cache"))


def test_a_validation_without_a_score_picks_nothing(tiny_model: Path, tmp_path: Path) -> None:
    said: dict[int, dict[str, float]] = {0: {"score": 0.2}, 1: {"score": 0.5}, 2: {"coverage": 0.1}, 3: {"score": 0.4}}
    config = SFTConfig(**{**QUICK, "validation_share": 0.0, "eval_steps": 1, "num_epochs": 0.75})
    result = train_sft(str(tiny_model), examples(), config, tmp_path / "run", validate=lambda step, net: said[step])
    assert (result.best_step, result.best["score"]) == (1, 0.5)
    assert "1 of 4 validations had no score" in " ".join(result.warnings)
    plain = train_sft(str(tiny_model), examples(), config, tmp_path / "plain")
    assert plain.best_step == plain.steps and not plain.best, "with nothing held out the newest is kept"


class Some:
    """A scorer that can score `n` answers of those that it is asked about, all of them right."""

    name, version, arguments = "some", "1", dict[str, Any]()

    def __init__(self, n: int) -> None:
        self.n = n

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        for i, (_, c) in enumerate(items):
            yes = i < self.n
            yield Score(c.id, "some", "1", value=1.0 if yes else None, reason="" if yes else "gone", passed=yes or None)

    def close(self) -> None:
        pass


def test_three_scored_of_many_are_no_pass_rate() -> None:
    prompts, net = [Prompt(f"say {i}") for i in range(10)], tiny_network()
    shown: list[str] = []
    scorer = Some(10)
    config = EvalConfig(max_new_tokens=2)
    check = PassRate(byte_tokenizer(), prompts, scorer, config, progress=lambda what, *_: shown.append(what))  # type: ignore[arg-type]
    assert check(0, net)["score"] == 1.0 and {"validating", "checking"} <= set(shown)
    scorer.n = 3
    assert "score" not in check(1, net) and check(1, net)["coverage"] == 0.3
    scorer.n = 9
    assert "score" in check(2, net)
    with pytest.raises(HafsError, match="3 of 10 answers to the validation prompts could be scored, too few"):
        PassRate(byte_tokenizer(), prompts, Some(3), config)(0, net)  # type: ignore[arg-type]


def test_one_run_at_a_time_and_the_other_says_who(tiny_model: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", SFTConfig(**{**QUICK, "num_epochs": 0.1})
    with RunDirectory(run).held(), pytest.raises(HafsError, match=rf"process {os.getpid()} on .* trains there") as said:
        train_sft(str(tiny_model), examples(), config, run)
    assert said.value.exit_code == 1
    train_sft(str(tiny_model), examples(), config, run)  # the lock went with its holder
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        train_sft(str(tiny_model), examples(), config, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"], "nothing of ours stays in it"


def test_every_seed_is_a_seed(tiny_model: Path, tmp_path: Path) -> None:
    assert seed_of(3, 5) == 3 * 1_000_003 + 5 and seed_of(3, 5, 7) == (3 * 1_000_003 + 5) * 100_003 + 7
    for seed in (184_461_354, 2**63 - 1, -1):
        assert 0 <= seed_of(seed, 10**6, 10**4) < 2**63
    config = SFTConfig(**{**QUICK, "num_epochs": 0.1, "seed": 2**63 - 1})
    assert train_sft(str(tiny_model), examples(), config, tmp_path / "run").steps == 1
    with pytest.raises(UsageError, match="seed"):
        override(SFTConfig(), seed=2**63)  # type: ignore[call-arg]


def poisoned(path: Path) -> Path:
    """A model whose embedding of the byte "~" is no number; nothing else of it is."""
    net = tiny_network(tie_word_embeddings=False)
    with torch.no_grad():
        net.get_input_embeddings().weight[byte_tokenizer().convert_tokens_to_ids("~")] = float("nan")
    net.save_pretrained(str(path))
    byte_tokenizer().save_pretrained(str(path))
    return path


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weights that are no numbers .*embed_tokens"):
        train_dpo(str(poisoned(tmp_path / "nan")), preferences(), DPOConfig(**QUICK), tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hafs.training.run.check_weights", lambda *_: None)
    monkeypatch.setattr("hafs.training.run.self_test", lambda *_: None)
    model = poisoned(tmp_path / "nan")
    data = [*examples(6), *[g.__class__(f"say ~{i}", g.candidates, ()) for i, g in enumerate(examples(1))]]
    config = SFTConfig(**{**QUICK, "validation_share": 0.0, "save_steps": 1})
    with pytest.raises(
        HafsError, match=r"stopped at step \d: the loss is nan, from group 7 \(\D*~0\D*\)[^,]*:"
    ) as said:
        train_sft(str(model), data, config, tmp_path / "run")
    assert said.value.exit_code == 1 and "is kept" in said.value.what
    assert RunDirectory(tmp_path / "run").steps() and not (tmp_path / "run" / "model").exists()


def test_a_run_that_explodes_ends_with_an_error_and_no_model(tiny_model: Path, tmp_path: Path) -> None:
    config = DPOConfig(**{**QUICK, "learning_rate": 1e30, "save_steps": 1, "num_epochs": 3})
    with pytest.raises(HafsError, match="training stopped at step"):
        train_dpo(str(tiny_model), preferences(), config, tmp_path / "run")
    assert not (tmp_path / "run" / "model").exists()
    for step in RunDirectory(tmp_path / "run").steps():
        assert all(bool(t.isfinite().all()) for t in RunDirectory(tmp_path / "run").weights(step).values())


@pytest.fixture(scope="module")
def cut(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, TrainResult]:
    """(a run that was killed at step 4, the same undisturbed, how that one ended)."""
    folder = tmp_path_factory.mktemp("cut")
    config = SFTConfig(**{**QUICK, "num_epochs": 2})
    with pytest.raises(Killed):
        train_sft(str(tiny_model), examples(), config, folder / "cut", progress=kill_at(5))
    return folder / "cut", folder / "whole", train_sft(str(tiny_model), examples(), config, folder / "whole")


def damage(path: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        data[-100] ^= 0xFF
        path.write_bytes(data)
    elif how == "missing":
        path.unlink()
    else:
        torch.save({"a": Evil()}, path)


class Evil:
    """What runs code where a pickle is read without care."""

    def __reduce__(self) -> Any:
        return (os.system, ("touch pickle-ran",))


@pytest.mark.parametrize(
    ("name", "how", "hashed"),
    [
        ("state.pt", "truncated", True),
        ("weights.safetensors", "flipped", True),
        ("state.pt", "missing", True),
        ("hashes.json", "truncated", True),
        ("weights.safetensors", "truncated", False),
        ("state.pt", "pickle", False),
    ],
)
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_taken(
    tiny_model: Path, cut: Any, tmp_path: Path, name: str, how: str, hashed: bool
) -> None:
    broken, whole, first = cut
    run = tmp_path / "run"
    shutil.copytree(broken, run)
    steps = RunDirectory(run).steps()
    newest = run / "checkpoints" / f"step-{steps[-1]:06d}"
    if not hashed:  # as a version without hashes left it
        (newest / "hashes.json").unlink()
    damage(newest / name, how)
    result = train_sft(str(tiny_model), examples(), SFTConfig(**{**QUICK, "num_epochs": 2}), run)
    assert f"the checkpoint of step {steps[-1]} is not usable" in " ".join(result.warnings)
    assert result.best == first.best and not Path("pickle-ran").exists()
    same(run, whole)
    assert not list((run / "checkpoints").glob(".*"))


def test_without_an_intact_checkpoint_that_is_said(tiny_model: Path, cut: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(cut[0], run)
    for state in run.glob("checkpoints/*/state.pt"):
        damage(state, "truncated")
    config = SFTConfig(**{**QUICK, "num_epochs": 2})
    with pytest.raises(HafsError, match=r"no checkpoint in .* is intact"):
        train_sft(str(tiny_model), examples(), config, run)
    (run / "run.json").write_text('{"identity"')
    with pytest.raises(HafsError, match=r"run\.json is damaged"):
        train_sft(str(tiny_model), examples(), config, run)


def test_a_run_from_before_there_was_a_setting_goes_on(tiny_model: Path, cut: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(cut[1], run)
    about = json.loads((run / "run.json").read_text())
    del about["identity"]["settings"]["two_pass"]
    (run / "run.json").write_text(json.dumps(about))
    config = SFTConfig(**{**QUICK, "num_epochs": 2})
    assert train_sft(str(tiny_model), examples(), config, run) == cut[2]
    with pytest.raises(UsageError, match="two_pass"):
        train_sft(str(tiny_model), examples(), config.model_copy(update={"two_pass": True}), run)


def test_a_checkpoint_stays_until_the_next_is_there_and_one_more_is_kept(tmp_path: Path) -> None:
    run, weights = RunDirectory(tmp_path / "run"), {"w": torch.ones(2)}
    run.claim({})
    for step in (0, 1, 2, 3):
        run.save(step, weights, {"step": step, "best_step": 0}, keep={0})
        assert set(run.steps()) == {0, max(0, step - 1), step}


def test_a_short_run_that_is_killed_goes_on_where_it_was(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hafs.training.runner.RARELY", 0.0)
    config = SFTConfig(**{**QUICK, "save_steps": 100, "save_minutes": 1e-9, "num_epochs": 2, "eval_steps": 100})
    with pytest.raises(Killed):
        train_sft(str(tiny_model), examples(), config, tmp_path / "run", progress=kill_at(4))
    assert RunDirectory(tmp_path / "run").steps()[-1] == 3
    again = config.model_copy(update={"save_minutes": 5.0})  # how often is saved changes no result
    assert train_sft(str(tiny_model), examples(), again, tmp_path / "run").steps == 6


def test_time_left_counts_validations(tmp_path: Path) -> None:
    class Idle(Runner):
        """A run of which only the clock is looked at."""

        def step(self, step: int) -> dict[str, float]:
            return {}

        def validating(self) -> Any:
            return nullcontext()

    config = SFTConfig(**{**QUICK, "num_epochs": 1, "eval_steps": 2})
    run = Idle(config, RunDirectory(tmp_path), 24, validate=None, progress=silent)  # six steps
    assert run._left() is None
    run._times = {"step": [1.0, 3.0], "check": [10.0]}
    run._state["step"], run._checked = 2, 0
    assert run._left() == 4 * 2.0 + 3 * 10.0, "the validation of this very step is still to come"
    run._checked = 2
    assert run._left() == 4 * 2.0 + 2 * 10.0


def test_equal_scores_have_no_spread() -> None:
    for value in (0.1, 0.7, 1 / 3, -2.3, 1e6):
        for n in range(2, 40):
            scores = torch.full((n,), value)
            assert grpo(scores, scores).tolist() == [0.0] * n
    assert grpo(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).tolist() == pytest.approx([-1, 1], abs=1e-4)


def test_what_was_written_is_read_again_and_compared(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hafs.training import saving

    out, config = tmp_path / "run", SFTConfig(**{**QUICK, "num_epochs": 0.1})

    def other(path: Path, precision: str) -> Any:
        net = load_model(path, precision)
        with torch.no_grad():
            net.get_input_embeddings().weight[:] += 0.05
        return net

    with monkeypatch.context() as patch, pytest.raises(HafsError, match="nats a token off"):
        patch.setattr(saving, "load_model", other)
        train_sft(str(tiny_model), examples(), config, out)
    assert not (out / "model").exists() and not list(out.glob(".model*"))
    train_sft(str(tiny_model), examples(), config, out)
    assert weights_of(out)


def test_a_model_in_a_pickle_is_refused_and_nothing_of_it_runs(tiny_model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_model, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save({"a": Evil()}, pickled / "pytorch_model.bin")
    with pytest.raises(UsageError, match="pickle"):
        load_model(pickled)
    assert not Path("pickle-ran").exists()


@pytest.mark.parametrize("name", ["a\0b", "owner/a\0b", "./a\0b"])
def test_a_name_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        train_sft(name, examples(), SFTConfig(**QUICK), tmp_path / "run")
