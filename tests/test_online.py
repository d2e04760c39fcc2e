"""Online DPO: groups of the model's own answers at every step, what teaches nothing drawn anew, exact resume."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hafs.config import OnlineDPOConfig, PreferencesConfig, override
from hafs.errors import HafsError, UsageError
from hafs.models.loading import load_tokenizer
from hafs.models.naming import model_hash
from hafs.training.online import train_online_dpo
from hafs.training.rollout import Sampled
from hafs.types import Candidate, PreferenceGroup, Prompt, Score
from hafs.workflows.rollouts import grouper, policy_sampler
from run_hafs import hafs, workspace

PROMPTS = [Prompt(f"say {i}", check={"want": "ok"}) for i in range(6)]
CONFIG = OnlineDPOConfig.model_validate(
    {
        "precision": "fp32",
        "num_epochs": 2,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "save_steps": 1,
        "rollouts": 4,
        "temperature": 1.5,
        "max_new_tokens": 4,
        "rollout_batch": 16,
        "redraws": 2,
        "lora": {"rank": 4, "alpha": 8},
    }
)


class Vowels:
    """Right when an answer has an even number of "e"s or none: both kinds come of a random model."""

    name, version = "vowels", "1"
    arguments: Mapping[str, Any] = {}

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        for _, c in items:
            right = sum(map(ord, c.text)) % 2 == 0
            yield Score(c.id, self.name, self.version, value=float(right), passed=right)

    def close(self) -> None:
        pass


def train(model: Path, output: Path, config: OnlineDPOConfig = CONFIG, compare: Any = None, **hooks: Any) -> Any:
    sample = policy_sampler(
        load_tokenizer(model), config.max_new_tokens, config.rollout_batch, temperature=config.temperature
    )
    compare = compare or grouper(Vowels(), PreferencesConfig(efficiency=False))
    return train_online_dpo(str(model), PROMPTS, config, output, sample=sample, compare=compare, **hooks)


def rows(output: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found]


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module", params=[0, 2])
def whole(request: pytest.FixtureRequest, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An undisturbed run, with a fixed reference and with one that moves every two steps."""
    output = tmp_path_factory.mktemp("online")
    config = override(CONFIG, reference_every=request.param)
    return config, output, train(tiny_model, output, config)


def test_a_step_trains_on_the_models_own_answers(whole: Any, tiny_model: Path) -> None:
    _, output, result = whole
    assert result.steps == 6 and model_hash(output / "model") != model_hash(tiny_model)
    trained = [r for r in rows(output) if "loss" in r]
    assert len(trained) == 6 and all(r["groups"] <= 2 and r["answers"] >= 8 for r in trained)
    assert trained[0]["kl"] == pytest.approx(0, abs=1e-5), "the first answers are the reference's own"
    assert trained[0]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    if whole[0].reference_every:
        assert trained[2]["kl"] == pytest.approx(0, abs=1e-5), "the reference has moved to the policy"
    else:
        assert abs(trained[-1]["kl"]) > 1e-4


def test_killed_and_started_again_it_ends_bit_for_bit_the_same(whole: Any, tiny_model: Path, tmp_path: Path) -> None:
    config, output, result = whole

    def kill(what: str, done: int, total: int, figures: Any) -> None:
        if what == "training" and done == 3:
            raise Killed

    with pytest.raises(Killed):
        train(tiny_model, tmp_path / "cut", config, progress=kill)
    again = train(tiny_model, tmp_path / "cut", config)
    assert model_hash(tmp_path / "cut/model") == model_hash(output / "model")
    assert rows(tmp_path / "cut") == rows(output) and again.warnings == result.warnings
    assert train(tiny_model, output, config).steps == 6, "a finished run is returned at once"


def test_prompts_that_teach_nothing_are_drawn_anew_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    """Of six prompts only two have right and wrong answers: each step looks for them."""
    seen: list[list[str]] = []

    def compare(prompts: Sequence[Prompt], answers: Sequence[Sequence[Sampled]]) -> list[PreferenceGroup | str]:
        seen.append([p.text for p in prompts])
        made = grouper(Vowels(), PreferencesConfig(efficiency=False))(prompts, answers)
        useless = {f"say {i}" for i in range(4)}
        return ["every answer is right" if p.text in useless else g for p, g in zip(prompts, made, strict=True)]

    result = train(tiny_model, tmp_path, override(CONFIG, num_epochs=0.33), compare)
    (step,) = [r for r in rows(tmp_path) if "loss" in r]
    drawn = [text for asked in seen for text in asked]
    assert len(set(drawn)) == len(drawn) <= 2 * 3 and step["drawn"] == len(drawn) > 2
    assert step["skipped"] == step["drawn"] - step["groups"]
    assert "taught nothing and were drawn anew: every answer is right" in result.warnings[-1]


def test_a_step_without_any_group_says_why(tiny_model: Path, tmp_path: Path) -> None:
    def never(prompts: Sequence[Prompt], answers: Any) -> list[str]:
        return ["every answer is wrong"] * len(prompts)

    with pytest.raises(HafsError, match=r"no answers of step 1 could be compared: every answer is wrong \(6\)"):
        train(tiny_model, tmp_path, compare=never)


def test_answers_are_grouped_by_their_places_and_scored_once() -> None:
    asked: list[str] = []

    class Counting(Vowels):
        def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
            asked.extend(c.text for _, c in items)
            yield from super().score(items)

    compare = grouper(Counting(), PreferencesConfig(efficiency=False))  # type: ignore[arg-type]
    answers = [[Sampled((i,), text, "stop") for i, text in enumerate(("b", "a", "b", "d"))]]
    [group] = compare(PROMPTS[:1], answers)
    assert isinstance(group, PreferenceGroup)
    assert {group.candidates[e.winner].text for e in group.edges} == {"b", "d"}
    assert all(answers[0][int(c.id)].text == c.text for c in group.candidates)
    compare(PROMPTS[:1], answers)
    assert sorted(asked) == ["a", "b", "d"]
    assert compare(PROMPTS[:1], [answers[0][:1]]) == ["every answer is right"]


@pytest.mark.parametrize("change", [{"method": "full"}, {"engine": "trl"}, {"two_pass": True}, {"rollouts": 1}])
def test_what_online_dpo_cannot_do_is_refused(change: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        train(tiny_model, tmp_path, override(CONFIG, **change))
    assert not list(tmp_path.iterdir())


def test_the_verb(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = workspace(tmp_path / "w")
    said = hafs("train", "dpo", "--sft-model", tiny_model, "--online", "-w", root).failed(2).err
    assert "--scorer" in said
    said = hafs("train", "dpo", "--sft-model", tiny_model, "--scorer", "asm", "-w", root).failed(2).err
    assert "--online" in said
    hafs("train", "dpo", "--sft-model", tiny_model, "--max-minutes", "1", "-w", root).failed(2, "--max-minutes")
    flags = ["--online", "--scorer", "asm", "--preference-data", "x.jsonl"]
    assert (
        "does not go with --online" in hafs("train", "dpo", "--sft-model", tiny_model, *flags, "-w", root).failed(2).err
    )
