"""`--columns` and `--show` in every verb that reads rows, and what is said of rows that a verb cannot learn from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hafs.config import LoopConfig
from hafs.workflows.loop.ask import Source
from run_hafs import hafs, workspace

PAIRS = "prompt=ask,chosen=best,rejected=worst"


def write(name: str, rows: list[dict[str, object]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with files whose columns hafs does not know."""
    monkeypatch.chdir(workspace(tmp_path))
    with (tmp_path / "hafs.toml").open("a") as f:
        f.write("benchmarks = []\n")  # under [eval]
    write("votes.jsonl", [{"ask": f"question {i}?", "best": "yes", "worst": "no"} for i in range(6)])
    write("asks.jsonl", [{"ask": f"question {i}?", "note": i} for i in range(6)])
    write("held.jsonl", [{"ask": f"something else, number {i}"} for i in range(3)])
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    [
        "preferences import votes.jsonl --show 0",
        "preferences stats votes.jsonl",
        "preferences export out.jsonl --input votes.jsonl",
        "preferences combine votes.jsonl --output mix.jsonl",
        "train dpo --dry-run --preference-data votes.jsonl",
        "train reward --dry-run --preference-data votes.jsonl",
    ],
)
def test_pairs(here: Path, tiny_model: Path, verb: str) -> None:
    argv = [*verb.split(), *(["--sft-model", tiny_model] if verb.startswith("train") else [])]
    hafs(*argv).failed(2, "votes.jsonl has no usable row", f"--columns {PAIRS}")
    hafs(*argv, "--columns", PAIRS).ok()


@pytest.mark.parametrize(
    "verb", ["tasks split asks.jsonl", "data import prompts asks.jsonl", "annotate start --prompts asks.jsonl"]
)
def test_prompts(here: Path, verb: str) -> None:
    hafs(*verb.split()).failed(2, "asks.jsonl has no usable row", "--columns prompt=ask")
    mapped = hafs(*verb.split(), "--columns", "prompt=ask")
    if verb.startswith("annotate"):
        mapped.failed(2, "there is nothing to ask")
    else:
        mapped.ok()


def test_what_picks_a_checkpoint_and_what_is_compared(here: Path, tiny_model: Path) -> None:
    dpo = ["train", "dpo", "--sft-model", tiny_model, "--preference-data", "votes.jsonl", "--columns", PAIRS]
    dpo += ["--dry-run", "--validate"]
    hafs(*dpo, "held.jsonl").failed(2, "held.jsonl has no usable row", "prompt=ask")
    hafs(*dpo, "held.jsonl", "--validate-columns", "prompt=ask").ok()
    methods = ["compare-methods", "--sft-model", tiny_model, "--preference-data", "votes.jsonl", "--columns", PAIRS]
    methods += ["--prompts", "asks.jsonl", "--prompt-columns", "prompt=ask"]
    hafs(*methods, "--benchmark", "asks.jsonl", "--benchmark-columns", "prompt=ask").failed(
        2, "6 of the 6 prompts of --benchmark asks.jsonl are in the training data, 6 word by word"
    )


def test_columns_of_one_of_several_files(here: Path) -> None:
    write("trl.jsonl", [{"prompt": "another question?", "chosen": "a", "rejected": "b"}])
    mix = ["preferences", "combine", "votes.jsonl", "trl.jsonl", "--output", "mix.jsonl", "--columns"]
    assert hafs(*mix, f"votes.jsonl:{PAIRS}", "--json").ok().json["groups"] == 7
    hafs(*mix, PAIRS).failed(2, "trl.jsonl has no usable row", "there is no column 'ask'")
    hafs(*mix, f"nowhere.jsonl:{PAIRS}").failed(2, "nowhere.jsonl is none of the files", "votes.jsonl, trl.jsonl")


def test_a_loops_own_prompts_are_mapped_and_what_is_left_out_is_said(here: Path) -> None:
    rows = [
        {"ask": f"question {i} about {w}?", "split": s} for i, (w, s) in enumerate(zip("abcdef", "vvttte", strict=True))
    ]
    names = {"v": "validation", "t": "train", "e": "test"}
    write("own.jsonl", [{**r, "split": names[str(r["split"])]} for r in rows] + [{"ask": ""}])
    source = Source(LoopConfig(prompts="own.jsonl", columns="prompt=ask", decision_prompts=1), 1)
    said = " ".join(source.notes)
    assert "1 rows could not be used" in said and "1 of 6 prompts are of the test split" in said
    assert len(source.trainable()) == 3


@pytest.mark.parametrize("verb", ["data import prompts", "tasks split", "tasks check", "generate --prompts"])
def test_rows_are_shown_as_the_model_sees_them(here: Path, tiny_model: Path, verb: str) -> None:
    config = here / "hafs.toml"
    config.write_text(config.read_text() + f"\n[model]\nname = {str(tiny_model)!r}\n")
    asked = write("plain.jsonl", [{"text": f"question {i}?"} for i in range(6)])
    ran = hafs(*verb.split(), asked, "--show", "2")
    assert "row 2 of 6 as the model sees it" in ran.err and "row 3" not in ran.err and "question 1?" in ran.err


def test_labels_of_single_answers(here: Path, tiny_model: Path) -> None:
    """The good ones can be taught; what needs pairs says so before anything is planned or mixed."""
    rows = [{"prompt": f"question {i}?", "completion": f"answer {i}", "label": i > 2} for i in range(6)]
    labels = write("kto.jsonl", rows)
    model = ["--sft-model", tiny_model, "--preference-data", labels, "--dry-run"]
    hafs("train", "dpo", *model).failed(2, "labels of single answers and not one pair", "--loss kto")
    hafs("train", "dpo", "--loss", "kto", *model).ok()
    ran = hafs("sft", "--model", tiny_model, "--preference-data", labels, "--dry-run").ok()
    assert "3 of 6 groups have no winner that is right" in ran.err
    write("bad.jsonl", [{**r, "label": False} for r in rows])
    bad = ["sft", "--model", tiny_model, "--preference-data", "bad.jsonl", "--dry-run"]
    hafs(*bad).failed(2, "no answer in bad.jsonl is labelled good")
    hafs("preferences", "combine", labels, "--output", "mix.jsonl").failed(2, "compare no answers", "--loss kto")


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "do", "input": "this", "output": "done"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    ],
)
def test_answers_alone_are_no_preferences(here: Path, row: dict[str, object]) -> None:
    ran = hafs("preferences", "import", write("answers.jsonl", [row]))
    ran.failed(2, "has one answer and nothing says which of two is better", "`hafs sft --data`")
