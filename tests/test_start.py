"""A stranger's way in: `hafs start`, `hafs status`, a Python function as the check, and the loop after them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hafs.config import parse_config
from hafs.data import read_prompts
from hafs.errors import UsageError
from hafs.evals.contamination import Index
from hafs.files.jsonl import write_jsonl
from hafs.judge.clients import judge_of
from hafs.scorers import open_scorer
from hafs.types import Candidate, Prompt, Reference, Score
from hafs.workflows.loop.ask import Source, plan
from hafs.workflows.start import parse_check
from run_hafs import Ran, hafs, lines

WHAT = "parcel refund lamp price sale password invoice meeting address holiday job sofa flight report tooth"
TOPICS = [f"a {what}" for what in (*WHAT.split(), "gym membership")]
ASKED = "Write one subject line about {}."
ANY = Prompt("?")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: templated prompts with answers, and a check."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    write_jsonl(Path("subjects.jsonl"), [{"prompt": ASKED.format(t), "answer": f"Subject: {t}"} for t in TOPICS])
    Path("mine.py").write_text("def score(prompt, answer):\n    return answer.startswith('Subject:')\n")
    return tmp_path


def begin(model: Path, *more: str, check: str = "mine.py:score", prompts: str = "subjects.jsonl", to: str = "w") -> Ran:
    where = ("--model", str(model), "--prompts", prompts, "--check", check, "--minutes", "10", "--workspace", to)
    return hafs("start", *where, *more)


def scored(spec: str, *answers: str, prompt: Prompt = ANY) -> list[Score]:
    scorer = open_scorer(spec)
    try:
        return list(scorer.score([(prompt, Candidate(prompt.id, text)) for text in answers]))
    finally:
        scorer.close()


# ---- a Python function


RETURNS = """
import os
from beside import half

def score(prompt, answer, row):
    print("this is no result")
    if answer == "ask":
        return row["references"] == ["r"] and row["check"]["n"] == 1 and prompt == row["text"]
    if answer == "spin":
        while True:
            pass
    return {
        "true": lambda: True, "false": lambda: False, "half": half, "one": lambda: 1,
        "text": lambda: (0, "too long"), "dict": lambda: (0.7, {"passed": True, "seen": {3}}),
        "cause": lambda: (False, {"cause": "short"}),
        "raise": lambda: {}["x"], "none": lambda: None, "two": lambda: 2, "nan": lambda: float("nan"),
        "odd": lambda: (1, [3]), "exit": lambda: os._exit(3), "stop": lambda: exit(0),
        "read": lambda: open("/etc/hostname").read() and True,
    }[answer]()
"""


def test_a_function_says_what_it_returns_and_its_own_fault_is_no_score(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hafs.scorers.function.scorer.SECONDS", 1.0)
    Path("beside.py").write_text("def half():\n    return 0.5\n")
    Path("returns.py").write_text(RETURNS)
    prompt = Prompt("?", check={"n": 1}, references=(Reference("r", "r"),))
    verdicts = {
        "true": (1.0, True, ""),
        "false": (0.0, False, ""),
        "half": (0.5, False, ""),
        "one": (1.0, True, ""),
        "text": (0.0, False, "too long"),
        "dict": (0.7, True, ""),
        "cause": (0.0, False, "short"),
        "ask": (1.0, True, ""),
    }
    faults = {
        "raise": "KeyError: 'x' (returns.py line",
        "none": "returned None",
        "two": "returned 2",
        "nan": "returned nan",
        "odd": "type list",
        "exit": "ended the process",
        "stop": "raised SystemExit",
        "spin": "took more than 1 seconds",
    }
    found = dict(zip([*verdicts, *faults], scored("returns.py:score", *verdicts, *faults, prompt=prompt), strict=True))
    for answer, wanted in verdicts.items():
        assert (found[answer].value, found[answer].passed, found[answer].cause) == wanted, found[answer]
    for answer, words in faults.items():
        assert found[answer].value is None and words in found[answer].reason, found[answer]
    assert found["dict"].details == {"seen": "{3}"}


def test_a_function_sees_its_own_files_alone(folder: Path) -> None:
    Path("secret.txt").write_text("x")
    Path("reads.py").write_text(
        f"def score(prompt, answer):\n    return open({str(folder / 'secret.txt')!r}).read() == 'x'\n"
    )
    (got,) = scored("reads.py", "a")
    assert got.value is None and "Error" in got.reason


def test_an_edited_function_or_module_is_another_scorer(folder: Path) -> None:
    Path("beside.py").write_text("N = 1\n")
    Path("edited.py").write_text("import beside\ndef score(prompt, answer):\n    return bool(beside.N)\n")
    first = open_scorer("edited.py:score").arguments
    assert open_scorer("edited.py").arguments == first
    Path("beside.py").write_text("N = 0\n")
    assert open_scorer("edited.py:score").arguments != first
    assert not scored("edited.py:score", "a")[0].passed


@pytest.mark.parametrize(
    ("spec", "text", "words"),
    [
        ("lost.py:score", "", "there is no"),
        ("odd.py:score", "def other(): pass\n", "no function 'score'"),
        ("odd.py:score", "def (:\n", "cannot be read as Python"),
        ("function:odd.txt", "", "cannot read"),
    ],
)
def test_a_function_that_is_not_there_is_refused(folder: Path, spec: str, text: str, words: str) -> None:
    Path("odd.py").write_text(text)
    with pytest.raises(UsageError, match=words):
        open_scorer(spec)


def test_a_function_is_part_of_an_expression_and_no_judge(folder: Path) -> None:
    assert judge_of("mine.py:score") is None and judge_of("./a/mine.py") is None
    assert judge_of("hafs-coder:14b") == "hafs-coder:14b"
    good, bad = scored(
        "./mine.py:score*0.5+exact*0.5",
        "Subject: x",
        "x",
        prompt=Prompt("?", references=(Reference("r", "Subject: x"),)),
    )
    assert (good.value, bad.value) == (1.0, 0.0)


def test_every_verb_that_decides_by_a_check_tries_it_first(folder: Path, tiny_model: Path) -> None:
    hafs("init", ".").ok()
    Path("takes.py").write_text("def score(prompt, answer):\n    return True\n")
    rows = [
        Prompt("Say hello to Ann.", checker="takes.py:score"),
        Prompt("Add 2 and 3", references=(Reference("r", "5"),)),
    ]
    write_jsonl(Path("own.jsonl"), rows)
    model = ("--sft-model", str(tiny_model))
    for verb in (
        ("generate", "--model", "nowhere", "--prompts", "own.jsonl"),
        ("preferences", "generate", "--model", "nowhere", "--prompts", "own.jsonl"),
        ("eval", "--model", "nowhere", "--name", "m", "--benchmark", "own.jsonl"),
        ("train", "ppo", *model, "--prompts", "own.jsonl", "--scorer", "automatic"),
        ("train", "dpo", "--online", *model, "--prompts", "own.jsonl", "--scorer", "automatic"),
    ):
        hafs(*verb).failed(2, "takes.py:score", "takes")


# ---- start


@pytest.mark.parametrize(
    ("text", "kind", "argument"),
    [
        ("tests", "tests", ""),
        ("rows", "tests", ""),
        ("regex:^a:b$", "regex", "^a:b$"),
        ("command:python3 c.py {file}", "command", "python3 c.py {file}"),
        ("a/b.py:score", "function", "a/b.py:score"),
        ("judge:gpt-5", "judge", "gpt-5"),
        ("text:min_words=3", "scorer", "text:min_words=3"),
    ],
)
def test_what_check_may_say(text: str, kind: str, argument: str) -> None:
    found = parse_check(text)
    assert (found.kind, found.argument) == (kind, argument)


@pytest.mark.parametrize("text", ["", "regex:", "schema", "command:python3 c.py", "people:ann"])
def test_a_check_that_says_too_little_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_check(text)


def test_on_a_terminal_an_answer_that_cannot_be_used_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hafs.cli import start as verb

    ask, said = verb._asking(quiet=False), iter(["soon", "0", "5"])
    ask.asked = True
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(said))
    assert ask("Minutes", "--minutes", None, "10", verb._minutes) == 5.0
    assert capsys.readouterr().err.count("is no number of minutes") == 2


def test_a_missing_answer_names_its_flag(folder: Path, tiny_model: Path) -> None:
    hafs("start").failed(2, "--model")
    given: list[str] = []
    for flag, value, missing in (
        ("--model", str(tiny_model), "--prompts"),
        ("--prompts", "subjects.jsonl", "--check"),
        ("--check", "mine.py", "--minutes"),
        ("--minutes", "10", "--workspace"),
    ):
        given += [flag, value]
        hafs("start", *given).failed(2, missing)
    assert not list(folder.glob("*/hafs.toml"))


CHECKS: dict[str, Any] = {
    "mine.py:score": None,
    "command:sh mine.sh {file}": ("code", "run"),
    "regex:^Subject: .+": ("text", "regex"),
    "exact": ("exact", ""),
    "text:regex=^Subject": ("text:regex=^Subject", ""),
}


@pytest.mark.parametrize("check", CHECKS)
def test_start_writes_a_workspace_that_the_verbs_understand(folder: Path, tiny_model: Path, check: str) -> None:
    Path("mine.sh").write_text('read -r line < "$1"\ncase "$line" in Subject:*) exit 0 ;; esac\nexit 1\n')
    made = begin(tiny_model, "--json", check=check).ok().json
    assert made["references"] == {"tried": 16, "right": 16} and made["next"][0] == "hafs loop run"
    root = Path(made["root"])
    config = parse_config(tomllib.loads((root / "hafs.toml").read_text()))
    assert config.model.name == str(tiny_model) and config.loop.max_minutes == 10
    parts = {p.id: p for p in read_prompts(root / "tasks/tasks.jsonl").rows}
    test = read_prompts(root / "tasks/test.jsonl").rows
    assert len(parts) + len(test) == len(TOPICS) and not {p.id for p in test} & set(parts)
    assert not Index({p.id: p.text for p in test}, others=[p.text for p in parts.values()]).copies(
        p.text for p in parts.values()
    )
    assert {p.split for p in test} == {"test"} and {p.split for p in parts.values()} == {"train", "validation"}
    checker, key = CHECKS[check] or (f"{folder}/mine.py:score", "")
    assert all(p.checker == checker and (not key or p.check[key]) for p in [*parts.values(), *test])
    for file in ("tasks", "test"):  # from anywhere: paths of scripts are whole
        os.chdir("/")
        hafs("tasks", "check", root / f"tasks/{file}.jsonl").ok()


def test_start_repeated_says_what_is_there_and_overwrites_when_told(folder: Path, tiny_model: Path) -> None:
    begin(tiny_model).ok()
    settings = Path("w/hafs.toml")
    settings.write_text(settings.read_text() + "# mine\n")
    again = begin(tiny_model).ok()
    assert "nothing was changed" in again.err and "next: hafs loop run" in again.out
    assert settings.read_text().endswith("# mine\n")
    begin(tiny_model, "--overwrite").ok()
    assert "# mine" not in settings.read_text() and "# mine" in Path("w/hafs.toml.before").read_text()
    begin(tiny_model, "--overwrite", check="exact").failed(2, "with another check", "another --workspace")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("regex:^No", "refuses 16 of 16 reference answers"),
        ("regex:", "not said which"),
        ("text:max_words=100", "takes 'zqxj"),
        ("text", "says neither right nor wrong of"),
        ("lost.py:score", "there is no"),
        ("schema:lost.json", "cannot be read"),
        ("tests", "do not say how they are checked"),
        ("command:python3 lost.py {file}", "is not there"),
        ("no-such-scorer", "no scorer named"),
    ],
)
def test_start_refuses_a_check_that_cannot_decide(folder: Path, tiny_model: Path, check: str, words: str) -> None:
    begin(tiny_model, check=check).failed(2, words)
    assert not Path("w").exists()


def test_references_that_the_check_refuses_are_named_and_left_out(folder: Path, tiny_model: Path) -> None:
    rows = lines(Path("subjects.jsonl"))
    rows[3]["answer"] = "no subject"
    write_jsonl(Path("odd.jsonl"), rows)
    made = begin(tiny_model, "--json", prompts="odd.jsonl").ok()
    assert made.json["references"] == {"tried": 16, "right": 15} and "left out: the reference answer" in made.err
    kept = [*lines(Path("w/tasks/tasks.jsonl")), *lines(Path("w/tasks/test.jsonl"))]
    assert sum(not r.get("references") for r in kept) == 1


def test_rows_keep_their_own_splits_and_few_prompts_are_refused(folder: Path, tiny_model: Path) -> None:
    rows = [{**r, "split": ("train", "validation", "test")[i % 3]} for i, r in enumerate(lines(Path("subjects.jsonl")))]
    write_jsonl(
        Path("split.jsonl"), [{"text": r["prompt"], "references": [r["answer"]], "split": r["split"]} for r in rows]
    )
    made = begin(tiny_model, "--json", prompts="split.jsonl").ok().json
    assert made["by"] == "the rows' own splits" and made["sizes"] == {"train": 6, "validation": 5, "test": 5}
    write_jsonl(Path("few.jsonl"), rows[:5])
    begin(tiny_model, prompts="few.jsonl", to="few").failed(2, "5 prompts are too few")


@pytest.mark.parametrize(("check", "words"), [("people", "hafs annotate start"), ("judge:gpt-5", "judge:gpt-5")])
def test_judges_and_people_are_no_loop(folder: Path, tiny_model: Path, check: str, words: str) -> None:
    made = begin(tiny_model, "--json", check=check).ok().json
    assert not any("loop" in command for command in made["next"]) and any(words in c for c in made["next"])
    assert "[loop]" not in Path("w/hafs.toml").read_text()


# ---- the loop after it


def test_a_loop_asks_every_family_of_a_file_and_makes_up_for_short_ones(folder: Path) -> None:
    rows = [
        Prompt(f"{f} number {i}", family=f, split="train") for f, n in (("a", 1), ("b", 5), ("c", 2)) for i in range(n)
    ]
    held = [Prompt(f"held {i}", family="a", split="validation") for i in range(2)]
    write_jsonl(Path("t.jsonl"), [*rows, *held])
    loop = parse_config({"loop": {"prompts": "t.jsonl", "decision_prompts": 1}}).loop
    source = Source(loop, 1, near_copy=1.0)
    assert source.taught == [] and source.families == ["a", "b", "c"]
    asks = plan({}, source.families, 6, 2, 2)
    asked = source.new(asks, [])
    assert sum(map(len, asked.values())) == 6 and len(asked["a"]) == 1 and len(asked["c"]) == 2
    assert sum(map(len, source.new(asks, [p for found in asked.values() for p in found]).values())) == 2


def small(root: Path) -> None:
    """Settings with which the tiny model is done in seconds."""
    text = (root / "hafs.toml").read_text()
    text = re.sub(r"num_epochs = \d", "num_epochs = 1", text).replace("[sft]", '[sft]\nprecision = "fp32"')
    text = re.sub(r"max_new_tokens = \d+", "max_new_tokens = 8", text).replace("[dpo]", '[dpo]\nprecision = "fp32"')
    (root / "hafs.toml").write_text(text)


def test_from_start_to_compare(folder: Path, tiny_model: Path) -> None:
    begin(tiny_model).ok()
    small(Path("w"))
    done = hafs("loop", "run", "--workspace", "w", "--json").ok().json
    assert set(done["scores"]) >= {"baseline", "sft", "dpo-1"} and done["rounds"][0]["asked"]
    assert all("test" in rates for rates in done["scores"].values())
    found = hafs("status", "--workspace", "w", "--json").ok().json
    assert found["loop"] == "finished" and found["models"]["sft"] == "trained" and found["running"] == []
    command = shlex.split(found["next"][0])[1:]
    assert command[0] == "compare" and {"baseline", "sft"} <= set(command)
    hafs(*command, "--workspace", "w").ok()
    # from another folder the workspace's own files are found, and the loop is still the finished one
    os.chdir("/")
    again = hafs("loop", "run", "--workspace", folder / "w", "--json").ok()
    assert again.json["scores"] == done["scores"] and "SFT" not in again.err


def test_a_loop_without_references_begins_with_the_model(folder: Path, tiny_model: Path) -> None:
    write_jsonl(Path("bare.jsonl"), [{"prompt": ASKED.format(t)} for t in TOPICS])
    Path("length.py").write_text("def score(prompt, answer):\n    return len(answer.strip()) > 20\n")
    made = begin(tiny_model, "--json", prompts="bare.jsonl", check="length.py").ok().json
    assert made["sft"] is False
    small(Path("w"))
    done = hafs("loop", "run", "--workspace", "w", "--max-rounds", "0").ok()
    assert "without SFT" in done.err and not Path("w/models/sft").exists()


# ---- status


def test_status_says_what_to_type_next(folder: Path, tiny_model: Path) -> None:
    assert hafs("status", "--json").ok().json["next"] == ["hafs start"]
    hafs("init", "w").ok()
    where = ("--workspace", "w")

    def next_one() -> str:
        return str(hafs("status", *where, "--json").ok().json["next"][0])

    assert "hafs start" in next_one()
    prompts = [Prompt(ASKED.format(t), references=(Reference("r", "x"),)) for t in TOPICS[:2]]
    write_jsonl(Path("p.jsonl"), prompts)
    hafs("data", "import", "prompts", "p.jsonl", *where).ok()
    assert next_one() == "hafs generate"
    write_jsonl(Path("c.jsonl"), [Candidate(p.id, text) for p in prompts for text in ("x", "y")])
    hafs("data", "import", "candidates", "c.jsonl", *where).ok()
    assert next_one() == "hafs score"
    hafs("score", *where).ok()
    assert next_one() == "hafs preferences build"
    hafs("preferences", "build", *where, "--output", "g.jsonl").ok()
    assert next_one() == "hafs train dpo --sft_model default"
    said = hafs("status", *where).ok().out
    assert "exact: 2" in said and "4 scores" in said and "2 preference groups" in said


def test_status_sees_other_processes(folder: Path) -> None:
    hafs("init", "w").ok()
    waits = "import sys, time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", waits], cwd="w", stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = hafs("status", "--workspace", "w", "--json").ok().json["running"]
        assert found == [], "a process that is not hafs is none of its own"
        other.kill()
    fake = Path("bin/hafs")
    fake.parent.mkdir()
    fake.write_text(f"#!{sys.executable}\n{waits}\n")
    fake.chmod(0o755)
    with subprocess.Popen([fake.absolute(), "train", "dpo"], cwd="w", stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (found,) = hafs("status", "--workspace", "w", "--json").ok().json["running"]
        other.kill()
    assert found["pid"] == other.pid and found["command"] == "hafs train dpo"


# ---- the page


PAGE = Path(__file__).resolve().parents[1] / "docs/how-to/own-task.md"


def test_the_page_s_examples_run(folder: Path, tiny_model: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", text, re.M | re.S)
    assert {name for name, _ in files} >= {"my_check.py", "words.py", "subject.py", "orders.jsonl"}
    for name, content in files:
        Path(name).write_text(content)
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    commands = [line for kind, block in blocks if not kind for line in block.splitlines() if line]
    assert commands[0] == "hafs start" and len(commands) >= 8
    for command in commands[1:]:
        hafs(*(str(tiny_model) if w == "default" else w for w in shlex.split(command)[1:])).ok()
    for data in re.findall(r"^In a row: `(.*?)`", text, re.M):
        row = {"text": "?", "references": ["Subject: a word"], **json.loads(f"{{{data}}}")}
        write_jsonl(Path("row.jsonl"), [row])
        hafs("tasks", "check", "row.jsonl").ok()
