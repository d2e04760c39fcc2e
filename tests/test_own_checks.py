"""A user's own command as a check: found where the user left it, told from its own failure, tried before it is used."""

from __future__ import annotations

import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from hafs.files.jsonl import write_jsonl
from hafs.scorers import open_scorer
from hafs.types import Candidate, Prompt, Reference, Score
from run_hafs import hafs, workspace

SUBJECT = """
import json, sys
text = open(sys.argv[1]).read().strip()
right = text.startswith("Subject:")
print(json.dumps({"value": 1.0 if right else 0.2, "passed": right}))
"""
GOOD, BAD = "Subject: hello", "hello"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, with a workspace and a check in it."""
    monkeypatch.chdir(workspace(tmp_path))
    Path("checks").mkdir()
    Path("checks/mine.py").write_text(SUBJECT)
    return tmp_path


def prompt(run: str, reference: str = GOOD, **check: Any) -> Prompt:
    references = (Reference("r", reference),) if reference else ()
    return Prompt("Write a subject line.", checker="code", check={"run": run, **check}, references=references)


def scored(asked: Prompt, *answers: str) -> list[Score]:
    scorer = open_scorer("code")
    try:
        return list(scorer.score([(asked, Candidate(asked.id, text)) for text in answers]))
    finally:
        scorer.close()


def test_relative_paths_and_any_python_work(folder: Path) -> None:
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    (site / "only_here.py").write_text("PREFIX = 'Subject:'\n")
    Path("checks/venv.py").write_text(
        "import sys, only_here\nsys.exit(not open(sys.argv[1]).read().startswith(only_here.PREFIX))"
    )
    for run in (
        "python3 checks/mine.py {file}",
        f"{sys.executable} {folder}/checks/mine.py {{file}}",
        "env/bin/python checks/mine.py {file}",
        "./env/bin/python checks/venv.py {file}",
    ):
        good, bad = scored(prompt(run), GOOD, BAD)
        assert (good.passed, bad.passed) == (True, False), (run, good)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("python3 checks/nothere.py {file}", "script checks/nothere.py is not there"),
        ("nothing/bin/python checks/mine.py {file}", "no program 'nothing/bin/python'"),
        ("no-such-program {file}", "no program 'no-such-program'"),
        ("python3 checks/imports.py {file}", "ModuleNotFoundError: No module named 'not_installed'"),
        ("python3 checks/raises.py {file}", "KeyError: 'x'"),
        ("python3 checks/broken.py {file}", "SyntaxError"),
        ("/bin/sh -c 'exit 127'", "exit code 127"),
        ("/bin/sh checks/lost.sh {file}", "not found"),
    ],
)
def test_a_check_that_fails_by_itself_leaves_answers_unscored(folder: Path, run: str, words: str) -> None:
    Path("checks/imports.py").write_text("import not_installed\n")
    Path("checks/raises.py").write_text("import sys\nopen(sys.argv[1])\n{}['x']\n")
    Path("checks/broken.py").write_text("def (\n")
    Path("checks/lost.sh").write_text("no-such-program-at-all\n")
    asked = prompt(run)
    for got in scored(asked, GOOD, BAD):
        assert got.value is None and words in got.reason, got
    write_jsonl(Path("p.jsonl"), [asked])
    refused = hafs("generate", "--prompts", "p.jsonl", "--model", "nowhere-at-all").failed(2, "cannot be run", words)
    assert "hafs.db" not in refused.err


def test_an_assertion_and_an_answers_own_crash_are_verdicts(folder: Path) -> None:
    Path("checks/asserts.py").write_text("import sys\nassert open(sys.argv[1]).read().startswith('Subject:')\n")
    assert [s.passed for s in scored(prompt("python3 checks/asserts.py {file}"), GOOD, BAD)] == [True, False]
    Path("checks/runs.py").write_text("import runpy, sys\nrunpy.run_path(sys.argv[1])\n")
    crash = Prompt("?", checker="code", check={"run": "python3 checks/runs.py {file}", "language": "python"})
    assert [s.passed for s in scored(crash, "```python\nx = 1\n```", "```python\nraise KeyError('x')\n```")] == [
        True,
        False,
    ]
    assert scored(prompt("python3 {file}", language="python"), "```python\n1 / 0\n```")[0].passed is False


@pytest.mark.parametrize(
    ("script", "reference", "words"),
    [
        ("raise SystemExit(3)", GOOD, "refuses the reference answer"),
        ("raise SystemExit(0)", GOOD, "takes nonsense"),
        ("print('{\"value\": 0.5}')", GOOD, "takes nonsense"),
        ("raise SystemExit(0)", "", "takes nonsense"),
        ("print('{\"value\": 2}')", GOOD, "cannot be run: the command's value is 2"),
        ("print('{\"value\": ' + '[' * 100000)", GOOD, "cannot be read"),
    ],
)
def test_a_check_is_tried_before_anything_is_generated(folder: Path, script: str, reference: str, words: str) -> None:
    Path("checks/odd.py").write_text(script)
    write_jsonl(Path("p.jsonl"), [prompt("python3 checks/odd.py {file}", reference)])
    for verb in (["generate"], ["preferences", "generate", "--scorer", "code"], ["eval", "--name", "m", "--benchmark"]):
        asked = [*verb, "p.jsonl"] if verb[-1] == "--benchmark" else [*verb, "--prompts", "p.jsonl"]
        hafs(*asked, "--model", "nowhere-at-all").failed(2, words)


def test_an_edited_check_scores_anew_and_rescore_scores_again(folder: Path) -> None:
    asked = prompt("python3 checks/mine.py {file}")
    write_jsonl(Path("p.jsonl"), [asked])
    write_jsonl(Path("c.jsonl"), [Candidate(asked.id, text) for text in (GOOD, BAD)])
    hafs("data", "import", "prompts", "p.jsonl").ok()
    hafs("data", "import", "candidates", "c.jsonl").ok()
    score = ("score", "--scorer", "code", "--json")

    def passed(*more: str) -> tuple[int, int]:
        found = hafs(*score, *more).ok().json
        (total,) = found["totals"]
        return found["scored"], total["passed"]

    assert passed() == (2, 1) and passed() == (0, 1)
    Path("checks/mine.py").write_text(SUBJECT.replace('"Subject:"', '("Subject:", "hello")'))
    assert passed() == (2, 2), "the content of the script is part of a score's identity"
    assert passed() == (0, 2) and passed("--rescore") == (2, 2)
    Path("checks/mine.py").write_text(SUBJECT)
    assert passed() == (0, 1), "what the script said before it was edited is still known"
