"""Bad input and bad places: a clear message and an exit code each, no traceback, nothing lost, nothing leaked."""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hafs import tasks
from hafs.store import open_store
from hafs.store.rows import Run
from hafs.types import (
    Annotation,
    Candidate,
    Edge,
    GroupCandidate,
    PreferenceGroup,
    Prompt,
    Ranking,
    Reference,
    Score,
    Verdict,
)
from run_hafs import SETTINGS, Ran, hafs, hafs_process, lines, own_cache, workspace

EASY = tasks.generate("asm", "train", 4, tags=("easy",))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with own_cache(tmp_path_factory.mktemp("cache")) as path:
        yield path


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, as the current directory."""
    monkeypatch.chdir(workspace(tmp_path / "w"))
    return tmp_path / "w"


def write(path: str, *rows: object) -> Path:
    """A JSON lines file in the current directory; a string is written as it is."""
    file = Path(path)
    file.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return file


def counts() -> dict[str, Any]:
    return hafs("data", "counts", "--json").ok().json


# models


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("no-such-model", "there is no model 'no-such-model'"),
        ("./models/nope", "there is no model './models/nope'"),
        ("my-model:14b", "there is no model 'my-model:14b'"),
        ("", "neither config.json nor adapter_config.json"),
        (".", "neither config.json nor adapter_config.json"),
        ("hafs.toml", "is a file, not a model's directory"),
    ],
)
def test_an_unknown_model(inside: Path, model: str, words: str) -> None:
    write("p.jsonl", {"text": "hello"})
    write("sft.jsonl", {"prompt": "a", "completion": "b"})
    write("pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    for command in (
        ["generate", "--model", model, "--prompts", "p.jsonl"],
        ["eval", "--model", model, "--benchmark", "p.jsonl"],
        ["sft", "--model", model, "--data", "sft.jsonl"],
        ["train", "dpo", "--sft-model", model, "--preference-data", "pairs.jsonl"],
        ["preferences", "generate", "--model", model, "--prompts", "p.jsonl"],
        ["models", "pull", model],
    ):
        ran = hafs(*command).failed(2, words, "fix: ")
        assert ran.out == ""
    assert not (inside / "models").exists()


def test_a_hub_id_without_network(inside: Path) -> None:
    write("p.jsonl", {"text": "hello"})
    no_network = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(inside / "hub")}
    ran = hafs_process("generate", "--model", "owner/name", "--prompts", "p.jsonl", env=no_network)
    ran.failed(1, "there is no directory 'owner/name', and the hub could not be asked", "check the path or the network")


def broken(tiny_model: Path, folder: Path, name: str) -> Path:
    """A copy of the tiny model with one thing wrong."""
    model = Path(shutil.copytree(tiny_model, folder / name))
    config = json.loads((model / "config.json").read_text())
    if name == "cut-weights":
        os.truncate(model / "model.safetensors", 1000)
    elif name == "no-weights":
        (model / "model.safetensors").unlink()
    elif name == "no-tokenizer":
        (model / "tokenizer.json").unlink()
    elif name == "broken-config":
        (model / "config.json").write_text("{")
    else:
        change: dict[str, Any] = {
            "unknown-kind": {"model_type": "nonsense"},
            "wider": {"hidden_size": 128},
            "deeper": {"num_hidden_layers": 3},
        }[name]
        (model / "config.json").write_text(json.dumps({**config, **change}))
    return model


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut-weights", "no model could be loaded"),
        ("no-weights", "no model could be loaded"),
        ("no-tokenizer", "no tokenizer could be loaded"),
        ("broken-config", "config.json is not JSON"),
        ("unknown-kind", "model type `nonsense`"),
        ("wider", "no model could be loaded"),
        ("deeper", "lacks 9 weights that its config.json asks for"),
    ],
)
def test_a_damaged_model(inside: Path, tiny_model: Path, tmp_path: Path, name: str, words: str) -> None:
    model = broken(tiny_model, tmp_path, name)
    write("p.jsonl", {"text": "hello"})
    hafs("generate", "--model", model, "--prompts", "p.jsonl").failed(2, words, "fix: ")
    assert counts()["candidates"] == 0


def test_an_adapter_without_its_base(inside: Path, tiny_model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_model, adapter, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    write("p.jsonl", {"text": "hello"})
    for base, words in (("/no/such/base", "'/no/such/base'"), (None, "does not name the base model")):
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        hafs("generate", "--model", adapter, "--prompts", "p.jsonl").failed(2, words)


def test_a_prompt_that_is_too_long_for_the_model(inside: Path, tiny_model: Path) -> None:
    write("p.jsonl", {"text": "short"}, {"text": "x" * 600})
    ran = hafs("generate", "--model", tiny_model, "--prompts", "p.jsonl")
    ran.failed(2, "12 new tokens are more than the 512 tokens", "leave long prompts out")


# files of rows


def test_broken_lines_are_named_and_the_rest_is_used(inside: Path, tiny_model: Path) -> None:
    """Line 5 repeats the first prompt; a lone surrogate is a strange prompt and no broken line."""
    write(
        "p.jsonl",
        {"text": "one"},
        "{not json",
        {"txt": "no column"},
        "",
        {"text": "one"},
        [1],
        {"text": " "},
        {"text": "two", "colour": "red"},
        '{"text": "\\ud800 three"}',
        {"text": "four"},
    )
    ran = hafs("generate", "--model", tiny_model, "--prompts", "p.jsonl", "--json").ok()
    assert (ran.json["prompts"], ran.json["candidates"]) == (4, 12)
    skipped = [line for line in ran.err.splitlines() if "skipped" in line]
    assert [line.split(":")[1] for line in skipped] == list("2367")
    assert "p.jsonl:3: skipped, no column is known as the prompt: the columns are txt" in ran.err
    assert "p.jsonl: columns that are not used: colour" in ran.err
    assert "p.jsonl: 4 rows could not be used; they are in p.jsonl.bad.jsonl" in ran.err
    assert "p.jsonl: 1 prompts repeat an earlier one" in ran.err


def test_columns_of_the_wrong_type_are_named(inside: Path, tiny_model: Path) -> None:
    write(
        "p.jsonl",
        {"text": "one"},
        {"text": "two", "split": 5},
        {"text": "three", "system": 5},
        {"text": "four", "check": [1]},
        {"text": "five", "references": [{"name": 5, "text": "x"}]},
    )
    ran = hafs("generate", "--model", tiny_model, "--prompts", "p.jsonl", "--json").ok()
    assert ran.json["prompts"] == 1
    for number, column in ((2, "split"), (3, "system"), (4, "check"), (5, "name")):
        assert any(f"p.jsonl:{number}: skipped" in line and column in line for line in ran.err.splitlines())


def test_broken_lines_of_every_kind_of_file(inside: Path, tiny_model: Path) -> None:
    write(
        "sft.jsonl",
        {"prompt": "a", "completion": "b"},
        {"prompt": "a"},
        {"completion": "b"},
        "xx",
        {"prompt": "a", "completion": None},
        {"prompt": 5, "completion": "b"},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}]},
        {"text": 5, "references": []},
        {"text": "a", "references": [{"name": "n", "text": 5}]},
        {
            "messages": [
                {"role": "system", "content": ""},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        },
    )
    ran = hafs("sft", "--model", tiny_model, "--data", "sft.jsonl", "--output-dir", "sft").ok()
    skipped = [line for line in ran.err.splitlines() if "skipped" in line]
    assert [int(line.split(":")[1]) for line in skipped] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    assert "no column is known as the completion" in skipped[0] and "no column is known as the prompt" in skipped[1]
    assert "no column is known as the completion: the columns are prompt" in skipped[3]
    write(
        "pairs.jsonl",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b"},
        "xx",
        {"prompt": "a", "chosen": "b", "rejected": "b"},
    )
    ran = hafs(
        "train", "dpo", "--sft-model", tiny_model, "--preference-data", "pairs.jsonl", "--output-dir", "dpo"
    ).ok()
    assert "pairs.jsonl:2: skipped, no column is known as the rejected: the columns are prompt, chosen" in ran.err
    assert "pairs.jsonl:3: skipped" in ran.err and "pairs.jsonl:4: skipped" in ran.err
    write("candidates.jsonl", {"prompt_id": "nope", "text": "x"}, {"text": "x"}, "xx")
    hafs("data", "import", "candidates", "candidates.jsonl").failed(2, "has no usable row", "line 1")
    assert counts()["candidates"] == 0


HOSTILE: list[Any] = [
    None,
    True,
    7,
    0.0,
    10**25,
    -(10**400),
    float("nan"),
    float("inf"),
    "",
    "\ud800\0",
    [],
    [5],
    [[]],
    {},
    {"a": 1},
]


def test_hostile_values_in_every_column_of_every_kind(tmp_path: Path) -> None:
    """Whatever a column holds, its line is stored or named, and what is stored can be written again."""
    prompt = Prompt("p", references=(Reference("r", "text"),), tags=("t",))
    one, two = (Candidate(prompt.id, text, logprob=-1.0, n_tokens=3) for text in "ab")
    tiers, texts = ((one.id,), (two.id,)), (GroupCandidate("a", "1"), GroupCandidate("b"))
    kinds: dict[str, Any] = {
        "prompts": prompt,
        "candidates": one,
        "scores": Score(one.id, "s", "1", value=0.5, key=(0.5,), passed=True),
        "rankings": Ranking(prompt.id, tiers, "human:a"),
        "verdicts": Verdict(prompt.id, "j", "pairwise@1", (one.id, two.id), "ranked", tiers, value=0.5),
        "annotations": Annotation(prompt.id, "a", (one.id, two.id), "ranked", tiers, value=0.5, seconds=1.0),
        "groups": PreferenceGroup("p", texts, (Edge(0, 1, margin=1.0, calibrated=True),)),
        "runs": Run("sft", {"a": 1}, finished=1.0),
    }
    wrong = {(column, repr(10**25)) for column in ("seed", "index", "n_tokens", "serial")} | {("winner", "0.0")}
    with open_store(tmp_path / "a.db") as store:
        store.add_prompts([prompt])
        store.add_candidates([one, two])
        for kind, item in kinds.items():
            row = json.loads(json.dumps(item.to_dict()))
            changes = [(column, value, {**row, column: value}) for column in row for value in HOSTILE]
            for part in ("candidates", "edges") if kind == "groups" else ():
                first, *rest = row[part]
                changes += [(c, v, {**row, part: [{**first, c: v}, *rest]}) for c in first for v in HOSTILE]
            file = tmp_path / "rows.jsonl"
            file.write_text("".join(json.dumps(r) + "\n" for r in (*(changed for *_, changed in changes), row)))
            got = store.import_rows(kind, file)
            bad = dict(got.bad)
            assert got.read + len(bad) == len(changes) + 1 and len(changes) + 1 not in bad, kind
            for n, (column, value, _) in enumerate(changes, 1):
                assert n in bad or (column, repr(value)) not in wrong, (kind, column, value)
            assert store.export_jsonl(kind, tmp_path / "out.jsonl") > 0


@pytest.mark.tools
def test_broken_lines_of_a_benchmark_are_named(inside: Path, tiny_model: Path) -> None:
    write("held.jsonl", EASY[0].to_dict(), "xx", {"txt": 1}, EASY[1].to_dict())
    ran = hafs("eval", "--model", tiny_model, "--benchmark", "held.jsonl").ok()
    assert "held.jsonl:2: skipped" in ran.err and "held.jsonl:3: skipped, no column" in ran.err
    assert "0 of 2 right, coverage 100%" in ran.out


@pytest.mark.parametrize(
    "command",
    [
        "generate --prompts",
        "eval --benchmark",
        "tasks check",
        "data import prompts",
        "sft --data",
        "train dpo --preference-data",
        "train dpo --validate",
    ],
)
def test_files_without_a_row(inside: Path, tiny_model: Path, command: str) -> None:
    words = command.split()
    flag = {"generate": "--model", "eval": "--model", "sft": "--model", "train": "--sft-model"}.get(words[0])
    more = [flag, str(tiny_model)] if flag else []
    if "--validate" in words:
        more += ["--preference-data", str(write("pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"}))]
    Path("empty.jsonl").touch()
    Path("blank.jsonl").write_text("\n \n\n")
    Path("binary.jsonl").write_bytes(b"\xff\xfe\x00" + secrets.token_bytes(4000))
    hafs(*words, "empty.jsonl", *more).failed(2, "empty.jsonl has no usable row (it is empty)")
    hafs(*words, "blank.jsonl", *more).failed(2, "blank.jsonl has no usable row (it is empty)")
    hafs(*words, "binary.jsonl", *more).failed(2, "binary.jsonl has no usable row (line 1: ")
    missing = hafs(*words, "missing.jsonl", *more).failed(2, "there is no", "fix: ")
    assert missing.out == ""
    assert not (inside / "models").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nonsense", "is not JSON"),
        ('{"a": 1}', "holds no evaluation results"),
        ("[]", "holds no evaluation results"),
        ("[1]", "this is no evaluation result"),
        ('[{"name": "x"}]', "this is no evaluation result: benchmark"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=["text", "object", "nothing", "number", "half", "deep"],
)
def test_a_file_that_holds_no_evaluation(inside: Path, content: str, words: str) -> None:
    Path("x.json").write_text(content)
    for verb in ("compare", "report"):
        hafs(verb, "sft=x.json", "dpo=x.json").failed(2, "x.json", words, "`hafs eval --output`")


# settings, flags, names


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[generate]\ntemprature = 1\n", "unknown setting 'generate.temprature'"),
        ("[gnerate]\n", "unknown setting 'gnerate'"),
        ("[dpo.lora]\nrnk = 3\n", "unknown setting 'dpo.lora.rnk'"),
        ('[generate]\ntemperature = "hot"\n', "generate.temperature"),
        ("[generate]\ncandidates = 0\n", "generate.candidates"),
        ("[eval]\nlevel = 95\n", "eval.level"),
        ("[score]\nsandbox = 'jail'\n", "score.sandbox"),
        ("[generate\n", "is not valid TOML"),
        ("x = \n", "is not valid TOML"),
        ("[store]\nurl = 'mysql://a/b'\n", "not in 'mysql'"),
        ("[store]\nurl = 'sqlite://'\n", "in memory would be lost"),
    ],
)
def test_settings_that_are_wrong(inside: Path, toml: str, words: str) -> None:
    (inside / "hafs.toml").write_text(toml)
    hafs("data", "counts").failed(2, words, "fix: ")


@pytest.fixture(scope="module")
def refusing(tiny_model: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a model, a prompt and training files; nothing that a test asks of it may be done."""
    root = workspace(tmp_path_factory.mktemp("refusing") / "w", SETTINGS + f'[model]\nname = "{tiny_model}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write("pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
        write("sft.jsonl", {"prompt": "a", "completion": "b"})
        hafs("data", "import", "prompts", write("p.jsonl", {"text": "hello"})).ok()
    return root


@pytest.fixture
def untouched(refusing: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(refusing)
    return refusing


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generate --temperature x", "--temperature"),
        ("generate --temperature -1", "temperature"),
        ("generate --temperature nan", "temperature"),
        ("generate --top-p 0", "top_p"),
        ("generate --candidates-per-prompt 0", "candidates"),
        ("generate --num-samples 0", "--num-samples"),
        ("generate --num_samples -3", "--num-samples"),
        ("generate --max-new-tokens 0", "max_new_tokens"),
        ("generate --nonsense", "No such option: --nonsense"),
        ("generate --seed 1.5", "--seed"),
        ("tasks generate asm -n -3", "--num-samples"),
        ("tasks generate asm -n 0", "--num-samples"),
        ("tasks generate asm --split nope", "there is no split 'nope'"),
        ("tasks generate asm --tags nope", "has the tags nope"),
        ("tasks generate asm --families nope", "no family 'nope'"),
        ("tasks generate nope", "named 'nope'"),
        ("tasks generate", "Missing argument"),
        ("score --scorer nope", "there is no scorer named 'nope'"),
        ("preferences build --scorer nope", "there is no scorer named 'nope'"),
        ("preferences build --scheme nope", "scheme cannot be 'nope'"),
        ("preferences build --references nope", "references"),
        ("preferences generate --scheme nope", "scheme cannot be 'nope'"),
        ("eval --benchmark nope", "there is no benchmark 'nope'"),
        ("eval --benchmark p.jsonl --benchmark nope", "there is no benchmark 'nope'"),
        ("eval --max-new-tokens 0", "max_new_tokens"),
        ("train dpo --preference-data pairs.jsonl", "needs the model to improve"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --loss nope", "there is no loss named 'nope'"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --beta 0", "beta"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --learning_rate -1", "learning_rate"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --learning_rate inf", "learning_rate"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --num_epochs inf", "num_epochs"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --batch_size 0", "batch_size"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --precision fp99", "precision"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --validate nope:5", "named 'nope'"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --validate asm:0", "give a task file, or PACK:N"),
        ("train dpo --sft-model TINY --preference-data pairs.jsonl --validate asm", "give a task file, or PACK:N"),
        ("sft --data sft.jsonl --lora-rank 0", "lora.rank"),
        ("nonsense", "No such command 'nonsense'"),
        ("data import nope pairs.jsonl", "a workspace has no 'nope'"),
        ("data export nope out.jsonl", "a workspace has no 'nope'"),
        ("compare sft dpo", "nothing was evaluated under the name 'sft'"),
        ("compare sft=missing.json dpo", "there is no file missing.json"),
        ("compare =missing.json dpo", "names no model"),
        ("report sft dpo", "nothing was evaluated under the name 'sft'"),
        ("tools install nope", "there is no tool named 'nope'"),
    ],
)
def test_flags_and_names_that_are_wrong(untouched: Path, tiny_model: Path, command: str, words: str) -> None:
    ran = hafs(*command.replace("TINY", str(tiny_model)).split())
    assert ran.code == 2 and "Traceback" not in ran.err and ran.out == "", ran
    assert words in ran.err, ran.err
    assert counts()["candidates"] == 0, "it is refused before any work"
    assert not (untouched / "models").exists()


@pytest.mark.parametrize(
    "command",
    [
        "data counts",
        "generate",
        "score",
        "config",
        "preferences build",
        "compare a b",
        "report a b",
        "train dpo --sft-model x",
        "sft",
        "tasks generate asm -n 1",
        "eval",
    ],
)
def test_no_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    hafs(*command.split()).failed(2, f"there is no hafs workspace in {tmp_path} or above it", "fix: hafs init DIR")
    hafs(*command.split(), "-w", tmp_path / "x").failed(2, "is no hafs workspace", f"hafs init {tmp_path / 'x'}")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_work_on_in_an_empty_workspace(inside: Path, tiny_model: Path) -> None:
    hafs("generate", "--model", tiny_model).failed(2, "has no prompts of the train split", "`hafs tasks generate`")
    hafs("sft", "--model", tiny_model).failed(2, "has nothing to train on", "--data")
    hafs("train", "dpo", "--sft-model", tiny_model).failed(2, "has nothing to train on", "--preference-data")
    hafs("preferences", "build", "--output", "out.jsonl").failed(1, "no preference group came of the candidates")
    assert not Path("out.jsonl").exists()


def test_a_damaged_database(inside: Path) -> None:
    (inside / "hafs.db").write_bytes(secrets.token_bytes(20_000))
    hafs("data", "counts").failed(1, "is damaged or is no hafs database", "restore a copy")


# tools that are not there


@pytest.fixture
def no_tools(tmp_path: Path) -> Iterator[None]:
    """An empty cache, and no override: neither assembler nor emulator."""
    with own_cache(tmp_path / "empty"), pytest.MonkeyPatch.context() as patch:
        for name in ("HAFS_ASAR", "HAFS_BSNES_CORE"):
            patch.delenv(name, raising=False)
        yield


def asked(n: int = 3) -> Path:
    return write("p.jsonl", *(p.to_dict() for p in EASY[:n]))


def test_no_assembler(inside: Path, tiny_model: Path, no_tools: None) -> None:
    """Every verb that scores leaves what it cannot score unscored, says why, and ends with exit code 1."""
    reason = "the assembler (asar 1.91) is not installed (hafs tools install)"
    ran = hafs("generate", "--model", tiny_model, "--prompts", asked(), "--json").ok()
    assert ran.json["new"] == 9, "generating needs no scorer"
    for _ in range(2):  # again is the same
        ran = hafs("score").failed(1, "unscored: 9 candidates, ", reason, "nothing could be scored")
        assert "0 candidates scored now, 9 unscored" in ran.out and "coverage 0%" in ran.out
    ran = hafs("score", "--json", "--output", "scores.jsonl").failed(1, reason)
    assert (ran.json["scored"], ran.json["coverage"]) == (0, 0.0) and list(ran.json["unscored"].values()) == [9]
    for row in lines(Path("scores.jsonl")):
        assert row["value"] is None and row["passed"] is None and reason in row["reason"]
    ran = hafs("preferences", "generate", "--model", tiny_model, "--prompts", "p.jsonl", "--output", "g.jsonl")
    ran.failed(1, reason, "no preference group came of the candidates")
    assert "0 of 9 candidates are scored (0.0%)" in ran.out and not Path("g.jsonl").exists()
    ran = hafs("eval", "--model", tiny_model, "--name", "x", "--benchmark", "p.jsonl").failed(1, reason)
    assert "x on p: unscored, 0 of 0 right, coverage 0%" in ran.out
    said = hafs("tasks", "check", "p.jsonl", "--json")
    assert (said.code, said.json["right"], said.json["total"]) == (1, 0, 0) and said.json["problems"] == []


def test_validation_without_an_assembler_is_refused_at_the_start(
    inside: Path, tiny_model: Path, no_tools: None
) -> None:
    write("pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    ran = hafs(
        "train",
        "dpo",
        "--sft-model",
        tiny_model,
        "--preference-data",
        "pairs.jsonl",
        "--output-dir",
        "dpo",
        "--validate",
        asked(),
    )
    ran.failed(1, "0 of 3 answers to the validation prompts could be scored", "the assembler", "hafs doctor")
    assert not (inside / "dpo/model").exists()


@pytest.mark.tools
def test_no_sandbox_and_then_one(
    inside: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untrusted code is not run without a sandbox; when there is one, the same command scores what was left."""
    (inside / "hafs.toml").write_text(SETTINGS + '[score]\nsandbox = "bubblewrap"\n')
    hafs("generate", "--model", tiny_model, "--prompts", asked()).ok()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # no bwrap to be found
        reason = "no sandbox works here, and untrusted programs are not run without one"
        ran = hafs("score").failed(1, reason, "the program bwrap is not installed")
        assert "coverage 0%" in ran.out
    (inside / "hafs.toml").write_text(SETTINGS)
    ran = hafs("score").ok()
    assert "9 candidates scored now, 0 unscored" in ran.out
    assert "asm@2: 9 scored, 0 right, 0 unscored, coverage 100%" in ran.out


# places that cannot be written


@pytest.mark.tools
def test_output_that_cannot_be_written(inside: Path, tiny_model: Path) -> None:
    """The work is in the workspace all the same, and the same command with another place is quick."""
    Path("file").touch()
    bad = "file/out"  # below a file nothing can be made, whoever asks
    asked()
    model = ["--model", str(tiny_model)]
    for command in (
        ["generate", *model, "--prompts", "p.jsonl", "--output", bad],
        ["score", "--output", bad],
        ["preferences", "build", "--output", bad],
        ["preferences", "generate", *model, "--prompts", "p.jsonl", "--output", bad],
        ["eval", *model, "--name", "sft", "--benchmark", "p.jsonl", "--output", bad],
        ["eval", *model, "--name", "dpo", "--benchmark", "p.jsonl", "--output", bad],
        ["compare", "sft", "dpo", "--markdown", bad],
        ["report", "sft", "dpo", "--output", bad],
        ["data", "export", "prompts", bad],
        ["tasks", "generate", "asm", "-n", "2", "--output", bad],
        ["init", bad],
    ):
        ran = hafs(*command).failed(1, "could not ", "file/out", "fix: ")
        assert ran.out == "", command
    found = counts()
    assert found["candidates"] >= 9 and found["unscored"] == 0 and found["groups"] == 3
    ran = hafs("generate", *model, "--prompts", "p.jsonl", "--output", "out.jsonl", "--json").ok()
    assert ran.json["new"] == 0 and len(lines(Path("out.jsonl"))) == 9


def test_a_run_directory_that_cannot_be_used(inside: Path, tiny_model: Path) -> None:
    Path("file").touch()
    command = ["sft", "--model", str(tiny_model), "--data", str(write("s.jsonl", {"prompt": "a", "completion": "b"}))]
    hafs(*command, "--output-dir", "file/run").failed(1, "file/run")
    (inside / "used").mkdir()
    (inside / "used/diary.txt").write_text("mine")
    hafs(*command, "--output-dir", "used").failed(2, "used is not empty and holds no training run", "choose another")
    assert (inside / "used/diary.txt").read_text() == "mine"
    hafs(*command, "--output-dir", "run").ok()
    before = (inside / "run/model/model.safetensors").read_bytes()
    hafs(*command, "--output-dir", "run", "--seed", "9").failed(2, "run holds a run that differs in: ", "seed")
    assert (inside / "run/model/model.safetensors").read_bytes() == before


def in_small_disk(size: str, program: str, tmp_path: Path) -> Ran:
    """Run a shell program in a tmpfs of its own of `size`, which nothing outside it sees; `hafs` is the command."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1)")
    disk = tmp_path / "disk"
    disk.mkdir(exist_ok=True)
    script = (
        f"mount -t tmpfs -o size={size} none {disk} || exit 77\ncd {disk}\n"
        f'hafs() {{ {sys.executable} -m hafs "$@"; }}\n{program}'
    )
    done = subprocess.run(["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this user may not mount a file system of its own")
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_the_disk_is_full_while_generating(inside: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Batches before that are kept; with space again, the same command ends with the candidates of a quiet run."""
    rows = write("p.jsonl", *({"text": f"prompt {i} {'x' * 50}"} for i in range(12))).resolve()
    flags = ["--candidates-per-prompt", "30", "--batch-size", "30", "--max-new-tokens", "30", "--temperature", "1"]
    generate = f"hafs generate --model {tiny_model} --prompts {rows} {' '.join(flags)}"
    ran = in_small_disk(
        "6000k",
        "hafs init . >&2 && head -c 5600k /dev/zero > filler\n"
        f"{generate} > first.txt; echo $? > {tmp_path}/code\n"
        f"rm filler; hafs data counts --json > {tmp_path}/kept\n"
        f"{generate} --output {tmp_path}/all.jsonl",
        tmp_path,
    ).ok()
    assert (tmp_path / "code").read_text().strip() == "1"
    assert "the disk is full" in ran.err and "fix: free space" in ran.err and "Traceback" not in ran.err
    kept = json.loads((tmp_path / "kept").read_text())["candidates"]
    assert 0 < kept < 360 and kept % 30 == 0
    assert f"360 candidates for 12 prompts ({360 - kept} new)" in ran.out
    hafs("generate", "--model", tiny_model, "--prompts", rows, *flags, "--output", "quiet.jsonl").ok()
    assert (tmp_path / "all.jsonl").read_text() == Path("quiet.jsonl").read_text()


@contextmanager
def limited(size: int | None) -> Iterator[None]:
    """No file may grow beyond `size` bytes meanwhile, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def train_sft(tiny_model: Path, size: int | None) -> Ran:
    write("sft.jsonl", *({"prompt": f"say {i}", "completion": f"{i}"} for i in range(6)))
    with limited(size):
        return hafs(
            "sft", "--model", tiny_model, "--data", "sft.jsonl", "--output-dir", "run", "--lora-rank", "1", "--json"
        )


WEIGHTS, STATE, MODEL = 8_000, 20_000, 120_000
"""Bytes that are too few for a checkpoint's weights, for its state, and for the model."""


@pytest.mark.slow
@pytest.mark.parametrize("size", [WEIGHTS, MODEL])
def test_training_goes_on_when_there_is_space_again(inside: Path, tiny_model: Path, size: int) -> None:
    """No half-written model is left, and what comes in the end is what a quiet run gives."""
    assert train_sft(tiny_model, size).code == 1
    assert not (inside / "run/model").exists()
    again = train_sft(tiny_model, None).ok().json
    resumed = (inside / "run/model/model.safetensors").read_bytes()
    shutil.rmtree(inside / "run")
    quiet = train_sft(tiny_model, None).ok().json
    assert (inside / "run/model/model.safetensors").read_bytes() == resumed
    assert {**again, "seconds": 0} == {**quiet, "seconds": 0}


@pytest.mark.parametrize("size", [WEIGHTS, STATE, MODEL])
def test_a_full_disk_while_training_is_named(inside: Path, tiny_model: Path, size: int) -> None:
    train_sft(tiny_model, size).failed(1, "could not", "fix: free space")
    assert not list((inside / "run").rglob("*.part"))


def test_the_disk_is_full_while_writing_output(inside: Path) -> None:
    Path("out.jsonl").write_text("what was there\n")
    command = ["tasks", "generate", "asm", "-n", "60", "--output", "out.jsonl"]
    with limited(30_000):
        hafs(*command).failed(1, "could not write out.jsonl", "unchanged")
    assert Path("out.jsonl").read_text() == "what was there\n"
    assert not list(inside.glob(".out*")), "no half-written file is left"
    hafs(*command).ok()
    assert len(lines(Path("out.jsonl"))) == 60


def test_a_workspace_that_cannot_be_written(inside: Path, tmp_path: Path) -> None:
    rows = write("p.jsonl", {"text": "hello"}).resolve()
    ran = in_small_disk(
        "10m",
        f"hafs init . >&2; mount -o remount,ro {tmp_path}/disk || exit 77\n"
        f"hafs data import prompts {rows}; echo $?\nhafs data counts; echo $?\nhafs init sub; echo $?",
        tmp_path,
    ).ok()
    assert ran.out.split() == ["1", "1", "1"] and "Traceback" not in ran.err
    assert ran.err.count("fix: ") == 3


def test_a_cache_that_cannot_be_written(inside: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("HAFS_CACHE", str(inside / "file/cache"))
    write("pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"})
    command = ["train", "dpo", "--sft-model", tiny_model, "--preference-data", "pairs.jsonl", "--output-dir", "dpo"]
    hafs(*command).failed(1, "file/cache", "fix: ")


# hostile candidates


def hostile(entry: str, canary: Path) -> dict[str, str]:
    """Answers that try to read, to leak, to hang, or to drown; the canary is a file with a secret."""
    run = f"{entry}:\n"
    targets = (("passwd", "/etc/passwd"), ("secret", str(canary)))
    files = {
        f"{word} {name}": f'{run} {word} "{target}"\n RTS'
        for word in ("incsrc", "incbin", "table")
        for name, target in targets
    }
    reads = {
        f"{function} {name}": f'{run} db {function}("{target}", 0)\n RTS'
        for function in ("readfile1", "readfile4")
        for name, target in targets
    }
    loops = {
        "branch to itself": f"{run}- BRA -",
        "jump to itself": f"{run} JMP {entry}",
        "wait": f"{run} WAI\n BRA {entry}",
        "stop": f"{run} STP",
        "recursion": f"{run} JSR {entry}",
        "while": "while 1\nendwhile",
        "macro": "macro a()\n%a()\nendmacro\n%a()",
        "rep": f"{run} rep 999999999 : NOP",
    }
    floods = {
        "10 MB of text": "x" * 10_000_000,
        "10 MB of code": run + " NOP\n" * 2_000_000,
        "10 MB printed": f'{run} rep 1000000 : print "xxxxxxxxxx"',
        "fences": "```asm\n" * 1_000_000,
        "printed": f'while 1\nprint "{"x" * 100}"\nendwhile',
    }
    return {**files, **reads, **loops, **floods, "nothing": "", "nul": f"{run} LDA\0\n", "half": run + " \ud800"}


@pytest.mark.tools
@pytest.mark.slow
def test_hostile_candidates_get_a_score_each_and_leak_nothing(inside: Path) -> None:
    """Also nothing hangs, and a right answer beside them is scored as right."""
    prompt = next(p for p in EASY if p.check.get("entry"))
    secret = secrets.token_hex(16)
    with tempfile.NamedTemporaryFile("w", suffix=".asm") as canary:
        canary.write(f'db "{secret}" ; {secret}\n')
        canary.flush()
        texts = {**hostile(str(prompt.check["entry"]), Path(canary.name)), "right": prompt.references[0].text}
        candidates = {name: Candidate(prompt.id, text, source=name) for name, text in texts.items()}
        hafs("data", "import", "prompts", write("prompts.jsonl", prompt.to_dict())).ok()
        rows = write("candidates.jsonl", *(c.to_dict() for c in candidates.values()))
        hafs("data", "import", "candidates", rows).ok()
        ran = hafs("score", "--output", "scores.jsonl").ok()
    assert f"{len(texts)} candidates scored now, 0 unscored" in ran.out
    named = {c.id: name for name, c in candidates.items()}
    scores = {named[row["candidate_id"]]: row for row in lines(Path("scores.jsonl"))}
    assert set(scores) == set(texts)
    assert {name for name, s in scores.items() if s["passed"]} == {"right"}
    for name, s in scores.items():
        assert name == "right" or (0 <= s["value"] < 0.5 and s["cause"]), (name, s)
        assert len(json.dumps(s)) < 20_000, f"{name} keeps all of its output"
        if "passwd" in name or "secret" in name:
            assert (s["value"], s["cause"]) == (0, "screened: file access"), (name, s)
    stored = Path("scores.jsonl").read_text() + ran.out + ran.err
    for leak in (secret, secret.upper(), secret.encode().hex(), "root:", "/bin/sh"):
        assert leak not in stored


@pytest.mark.tools
def test_a_task_file_is_trusted_no_more_than_an_answer(inside: Path) -> None:
    """A check can name support code, which is assembled as it stands: the sandbox must stop it."""
    secret = secrets.token_hex(16)
    with tempfile.NamedTemporaryFile("w", suffix=".asm") as canary:
        canary.write(f'print "{secret}"\nerror "{secret}"\n')
        canary.flush()
        check = {**EASY[0].check, "support": f'incsrc "{canary.name}"'}
        row = Prompt("hostile", checker="asm", check=check, references=EASY[0].references)
        ran = hafs("tasks", "check", write("tasks.jsonl", row.to_dict()), "--json")
    assert ran.code in (1, 2) and "Traceback" not in ran.err
    assert secret not in ran.out + ran.err
