"""Held-out prompts are looked for among the training data before any work, by every verb that trains or evaluates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.data import read_prompts
from hafs.errors import UsageError
from hafs.evals.leaks import HeldOut, WorkspaceTexts, refuse_leaks
from hafs.evals.split import split_prompts
from hafs.store import init_workspace
from hafs.types import Annotation, Candidate, Prompt
from run_hafs import hafs

SUBJECTS = ["refund", "late parcel", "new office", "price rise", "summer party"]
SUBJECTS += ["broken lift", "job offer", "survey", "webinar", "outage"]
HELD = ["coat drive", "fire drill", "bike race", "book club"]


def asked(about: Sequence[str]) -> list[str]:
    """Prompts of one template: one task family."""
    return [f"Write one e-mail subject line about {what} for all of our customers." for what in about]


def write(path: Path, texts: Sequence[str], **more: Any) -> Path:
    rows = [{"text": t, "checker": "text:regex=subject", "references": ["a subject"], **more} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pairs(path: Path, texts: Sequence[str], **more: Any) -> Path:
    rows = [{"prompt": t, "chosen": "a subject", "rejected": "none", **more} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Training files of a template, validation files with a word-by-word copy, a near copy, and none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hafs.toml").write_text("[eval]\nbenchmarks = []\nmax_new_tokens = 4\n")
    write(tmp_path / "train.jsonl", asked(SUBJECTS))
    pairs(tmp_path / "pairs.jsonl", asked(SUBJECTS))
    write(tmp_path / "held.jsonl", asked(HELD))
    write(tmp_path / "exact.jsonl", [*asked(HELD), asked(SUBJECTS)[2].upper()])
    write(tmp_path / "near.jsonl", [*asked(HELD), asked(SUBJECTS)[0].replace("e-mail", "mail")])
    return tmp_path


def training(verb: str, model: Path) -> list[str | Path]:
    """A verb that trains, with its data."""
    asked: list[str | Path] = ["--sft-model", model, "--prompts", "train.jsonl"]
    compared: list[str | Path] = ["--sft-model", model, "--preference-data", "pairs.jsonl"]
    return {
        "sft": ["sft", "--model", model, "--data", "train.jsonl"],
        "dpo": ["train", "dpo", *compared],
        "online": [
            "train",
            "dpo",
            "--online",
            "--sft-model",
            model,
            "--prompts",
            "train.jsonl",
            "--scorer",
            "automatic",
        ],
        "ppo": ["train", "ppo", *asked, "--scorer", "automatic"],
        "reward": ["train", "reward", *compared],
        "methods": [
            "compare-methods",
            "--sft-model",
            model,
            "--preference-data",
            "pairs.jsonl",
            "--prompts",
            "train.jsonl",
        ],
    }[verb]


@pytest.mark.parametrize("verb", ["sft", "dpo", "online", "ppo", "methods"])
def test_what_picks_a_checkpoint_is_not_trained_on(files: Path, tiny_model: Path, verb: str) -> None:
    benchmark = ["--benchmark", "held.jsonl"] if verb == "methods" else []
    argv = [*training(verb, tiny_model), *benchmark, "--validate"]
    exact = hafs(*argv, "exact.jsonl", "--allow-contaminated").failed(
        2, "1 of the 5 prompts of --validate exact.jsonl are in the training data, 1 word by word", "tasks split"
    )
    assert "NEW OFFICE" in exact.err and "about new office" in exact.err, "the two are shown side by side"
    near = hafs(*argv, "near.jsonl").failed(2, "1 as near copies", "--set eval.near_copy", "--allow-contaminated")
    assert "one mail subject" in near.err and "one e-mail subject" in near.err
    assert not (files / "models").exists() and not (files / "methods").exists(), "refused before the work"


@pytest.mark.parametrize("verb", ["sft", "dpo", "online", "ppo", "reward", "methods"])
def test_benchmarks_and_test_prompts_are_not_trained_on(files: Path, tiny_model: Path, verb: str) -> None:
    (files / "hafs.toml").write_text('[eval]\nbenchmarks = ["near.jsonl"]\n')
    argv = [*training(verb, tiny_model), *(["--benchmark", "held.jsonl"] if verb == "methods" else [])]
    hafs(*argv).failed(2, "1 of the 5 prompts of the benchmark near are in the training data")
    (files / "hafs.toml").write_text("[eval]\nbenchmarks = []\nmax_new_tokens = 4\n")
    hafs("data", "import", "prompts", write(files / "t.jsonl", asked(SUBJECTS)[:2], split="test")).ok()
    hafs(*argv).failed(2, "2 of the 2 prompts of the workspace's test prompts are in the training data, 2 word by word")
    assert not (files / "models").exists() and not (files / "methods").exists()


def test_prompts_of_a_template_train_and_what_is_allowed_is_said(files: Path, tiny_model: Path) -> None:
    small = ["--num-epochs", "1", "--lora-rank", "2", "--precision", "fp32"]
    ran = hafs(*training("sft", tiny_model), *small, "--validate", "held.jsonl", "--json")
    assert "are in the training data" not in ran.err, "a template is no copy"
    ran.ok()
    again = hafs(*training("sft", tiny_model), *small, "--validate", "held.jsonl").ok()
    assert "finished before" in again.err
    argv = [*training("dpo", tiny_model), *small, "--validate", "near.jsonl", "--dry-run"]
    assert "warning: contaminated: 1 of the 5 prompts" in hafs(*argv, "--allow-contaminated").ok().err
    hafs(*argv, "--set", "eval.near_copy=1").ok()
    evaluated = ["eval", "--model", "models/sft/model", "--benchmark"]
    hafs(*evaluated, "exact.jsonl").failed(2, "1 of 5 benchmark prompts are in the training data", "held out")
    assert hafs("data", "counts", "--json").ok().json["candidates"] == 0, "refused before anything was asked"
    hafs(*evaluated, "held.jsonl").ok()


def test_rows_of_the_test_split_are_left_out_and_counted(files: Path, tiny_model: Path) -> None:
    rows = asked(SUBJECTS)
    mixed = files / "mixed.jsonl"
    mixed.write_text(write(files / "a", rows[:6]).read_text() + write(files / "b", rows[6:], split="test").read_text())
    ran = hafs("sft", "--model", tiny_model, "--data", mixed, "--num-epochs", "1", "--lora-rank", "2").ok()
    assert "4 of 10 prompts are of the test split and are left out" in ran.err
    recorded = (files / "models/sft/data.jsonl").read_text()
    assert rows[0] in recorded and rows[9] not in recorded, "what was left out counts as trained on nowhere"
    ppo = ["train", "ppo", "--sft-model", tiny_model, "--scorer", "automatic", "--prompts", files / "b"]
    hafs(*ppo).failed(2, "all 4 prompts of", "are of the test split")


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 9), st.integers(0, 12), st.booleans())
def test_a_copy_is_found_among_any_number_of_prompts_of_its_template(which: int, word: int, upper: bool) -> None:
    """One word of a training prompt changed, wherever it is but in what tells it from its family: refused."""
    texts = asked(SUBJECTS)
    words = texts[which].split()
    at = word % len(words)
    if words[at].strip(".") in SUBJECTS[which].split():
        return
    copy = " ".join([*words[:at], "other", *words[at + 1 :]])
    held = [HeldOut("held", [Prompt(copy.upper() if upper else copy), *map(Prompt, asked(HELD))])]
    with pytest.raises(UsageError, match="1 of the 5 prompts of held"):
        refuse_leaks({"file": texts}, held, 0.58)
    assert refuse_leaks({"file": texts}, [HeldOut("held", [*map(Prompt, asked(HELD))])], 0.58) == []


def test_a_template_is_known_by_the_prompts_that_were_split(tmp_path: Path) -> None:
    """What the split kept apart as prompts of one template is no copy when only a part of them is compared."""
    space = init_workspace(tmp_path / "w")
    file = Path(__file__).parent.parent / "runs/own-task/functions.jsonl"
    prompts = read_prompts(file).rows
    parts = split_prompts(prompts, {"train": 0.5, "validation": 0.25, "test": 0.25}).parts
    held = [HeldOut("held", [*parts["test"], *parts["validation"]])]
    taught = {"sft": [p.text for p in parts["train"][:12]]}
    with pytest.raises(UsageError, match="as near copies"):
        refuse_leaks(taught, held, 0.58)
    with space.open_store() as store:
        store.add_prompts(prompts)
    assert refuse_leaks(taught, held, 0.58, others=WorkspaceTexts(space)) == []


def test_a_pack_keeps_its_splits_apart_by_itself(tmp_path: Path) -> None:
    """Validation prompts of a pack are like its training prompts on purpose: only the same words are refused."""
    text = "Add 3 to the byte at $10 and name the routine Add3."
    made = Prompt(text.replace("$10", "$11"), split="validation", source="python")
    assert refuse_leaks({"file": [text]}, [HeldOut("v", [made], picks=True)], 0.58) == []
    with pytest.raises(UsageError, match="word by word"):
        refuse_leaks({"file": [made.text]}, [HeldOut("v", [made], picks=True)], 0.58)
    space = init_workspace(tmp_path / "w")
    assert space.config.eval.near_copy == 0.58


def test_people_are_asked_about_test_prompts_only_when_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels stay trainable: `--output` has this queue's groups, and what is of the test split is counted."""
    space = init_workspace(tmp_path)
    prompts = [Prompt(text, split=split) for text, split in (("a", "train"), ("b", "train"), ("held", "test"))]
    with space.open_store() as store:
        store.add_prompts(prompts)
        store.add_candidates(Candidate(p.id, t, "m", "m", index=i) for p in prompts for i, t in enumerate("xy"))
        held = [c.id for c in store.candidates(prompt_ids=prompts[2].id)]
        store.add_annotations([Annotation(prompts[2].id, "bob", tuple(held), "ranked", ((held[0],), (held[1],)))])
    monkeypatch.setattr("builtins.input", lambda *_: "A B")
    argv = ["annotate", "start", "--terminal", "--name", "ann", "--repeats", "0", "--overlap", "0", "-w", tmp_path]
    ran = hafs(*argv, "--output", tmp_path / "all.jsonl", "--json").ok()
    assert (ran.json["answered"], ran.json["groups"], ran.json["groups_of_tests"]) == (2, 2, 0)
    assert "1 prompts are of the test split and are not asked about (--split test asks about them)" in ran.err
    assert "held" not in (tmp_path / "all.jsonl").read_text()
    only = write(tmp_path / "only.jsonl", ["b"])
    assert hafs(*argv, "--prompts", only, "--output", tmp_path / "b.jsonl", "--json").ok().json["groups"] == 1
    assert '"a"' not in (tmp_path / "b.jsonl").read_text(), "the groups of this queue alone"
    told = hafs(*argv, "--split", "test", "--output", tmp_path / "t.jsonl").ok()
    assert "1 of them are of the test split: training leaves them out" in told.out
