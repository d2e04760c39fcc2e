"""Failure analysis: every failed answer in one cluster, causes as the real checker finds them, changes by prompt."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.evals import EvalResult, FailureReport, PromptResult, eval_result, failures
from hafs.evals.causes import got_and_expected, why
from hafs.report.failures import failures_page, write_failures
from hafs.report.html import page_to_html
from run_hafs import hafs
from test_asm_scorer import ANSWERS, AsmScorer, answers, prompt

CAUSES = ("no code", "hang", "wrong result", "screened: directive", "does not assemble: unknown label", "")
HOSTILE = '</pre><script>alert(1)</script><img src="http://evil.test/x">```'


def row(i: int, passed: bool | None, cause: str = "", **more: Any) -> PromptResult:
    more.setdefault("family", f"f{i % 3}")
    return PromptResult(
        f"p{i}",
        f"prompt {i}",
        "loops",
        passed=passed,
        cause=cause,
        reason="emulator died" if passed is None else "",
        **more,
    )


def result(rows: list[PromptResult], name: str = "dpo", **more: Any) -> EvalResult:
    return EvalResult(name, "asm", tuple(rows), **more)


def wrong(*texts: str, cause: str = "wrong result", correct: int = 0, clobbers: tuple[str, ...] = ()) -> PromptResult:
    details = {"errors": list(texts), "correct": correct, "total": 16, "clobbers": list(clobbers)}
    return row(0, False, cause, details=details)


@pytest.mark.parametrize(
    ("failed", "cause", "signature"),
    [
        (
            wrong("$7E02D8: got a51e, want a41e", "$7E02D8: got fe80, want fd80", cause="off by one", correct=8),
            "off by one",
            "memory: one too high, on some inputs",
        ),
        (
            wrong("$7E0010+1: got 04, want 05", "$7E0010+1: got ff, want 00"),
            "off by one",
            "memory: the carry into the high byte is lost or made up",
        ),
        (
            wrong("$7E0010+1: got 55, want 05", "$7E0010+1: got 17, want 00"),
            "wrong register width",
            "memory: only the low byte of a 16-bit result is right",
        ),
        (
            wrong("$7E001C: got 00, want 01", clobbers=("$7E001D",)),
            "wrong register width",
            "a 16-bit store over an 8-bit result",
        ),
        (
            wrong("$7E0010: got 3412, want 1234", "$7E0010: got ff00, want 00ff"),
            "wrong result",
            "memory: high and low byte swapped",
        ),
        (wrong("A: got 02, want 01", "A: got 06, want 03"), "wrong result", "register A: twice the value"),
        (
            wrong("$7E0092: got 7e, want 1e", "$7E0092: got 80, want 00", correct=3),
            "wrong result",
            "memory: too many bits, on some inputs",
        ),
        (
            wrong("$7E0016: got eb, want 97", "$7E0016: got d6, want 32", clobbers=("$7E00AC",)),
            "wrong result",
            "memory: something is written, but to another place",
        ),
        (wrong("flag C is 1, want 0"), "wrong result", "flag C is 1, want 0"),
        (row(0, False, "wrong answer", details={"answer": 0x1F, "right": 0x20}), "off by one", "a number: one too low"),
        (
            row(0, False, "wrong answer", details={"answer": 10, "right": 0x10}),
            "wrong answer",
            "decimal and hex mixed up",
        ),
        (
            row(0, False, "not smaller", details={"bytes": 9, "baseline": {"bytes": 7}}),
            "not smaller",
            "more bytes than the code to improve",
        ),
        (
            row(0, False, "tests fail", details={"errors": ["line 12: AssertionError: 17 != 'a long name'"]}),
            "tests fail",
            "AssertionError: N != …",
        ),
        (row(0, False), "not named", "no detail"),
    ],
)
def test_details_tell_the_cause(failed: PromptResult, cause: str, signature: str) -> None:
    found = why(failed)
    assert (found.cause, found.signature) == (cause, signature)


def test_an_answer_cut_at_the_token_limit_is_a_matter_of_format() -> None:
    cut = row(0, False, "does not assemble: bad operand", n_tokens=64)
    assert why(cut, 64).signature == "cut at the token limit"
    assert why(cut, 65).cause == why(cut).cause == "does not assemble"
    assert why(row(0, False, "wrong result", n_tokens=64), 64).cause == "wrong result"
    with pytest.raises(ValueError, match="failed"):
        why(row(0, True))


@pytest.mark.tools
def test_wrong_answers_on_the_real_checker_get_their_cause() -> None:
    """The corpus of wrong answers through assembler and emulator; the same error in other names is one cluster."""
    expected = {
        "prose only": ("format", "no code in the answer"),
        "places itself elsewhere": ("not allowed", "directive"),
        "another CPU": ("does not assemble", "unknown instruction: MOV"),
        "an undefined label": ("does not assemble", "unknown label"),
        "a mode that asar would guess": ("does not assemble", "addressing mode: LDA"),
        "16-bit mode left on": ("wrong register width", "left flag M at 0, want 1"),
        "the mask is missing": ("wrong result", "memory: too many bits, on some inputs"),
        "endless loop": ("hang", "did not return"),
        "a kept register changed": ("clobber", "register X"),
        "one byte short": ("off by one", "memory: a block misses its first or last byte"),
        "no CLC": ("off by one", "memory: one too high"),
    }
    chosen = [a for a in ANSWERS if a["name"] in expected]
    wide = "LoadPlayerState:\n REP #$20\n LDA $0E20\n AND #$001F\n STA $00\n SEP #$20\n RTS"
    renamed = "LoadPlayerState:\n LDA OtherName\n STA $00\n RTS"
    items = [answers(prompt(a["task"]), a["text"])[0] for a in chosen]
    items += answers(prompt("load"), wide, renamed)
    with AsmScorer(workers=1) as scorer:
        scores = list(scorer.score(items))
    found = []
    for (p, c), s in zip(items, scores, strict=True):
        (r,) = eval_result("x", "", "", "asm", {}, [p], [c], {c.id: s}).results
        found.append(why(r))
        assert got_and_expected(r) != ("", "") or why(r).cause == "format"
    assert {a["name"]: (w.cause, w.signature) for a, w in zip(chosen, found, strict=False)} == expected
    assert found[-2].cause == "wrong register width"
    assert found[-1] == found[[a["name"] for a in chosen].index("an undefined label")]


cases = st.lists(st.tuples(st.sampled_from(CAUSES), st.sampled_from([True, False, None])), max_size=30)


@given(cases, cases)
def test_clusters_and_families_add_up(now: list[tuple[str, bool | None]], then: list[tuple[str, bool | None]]) -> None:
    new, old = (result([row(i, p, c) for i, (c, p) in enumerate(x)], n) for x, n in ((now, "dpo"), (then, "sft")))
    r = failures(new, old)
    failed = {x.prompt_id for x in new.results if x.passed is False}
    members = [p for c in r.clusters for p in c.prompts]
    assert sorted(members) == sorted(failed), "every failed answer is in exactly one cluster"
    assert r.failed == len(failed) == sum(c.n for c in r.clusters) == sum(f.failed for f in r.families.values())
    assert r.scored == new.scored == sum(f.n for f in r.families.values())
    assert all(sum(c.families.values()) == c.n == len(c.prompts) for c in r.clusters)
    shared = {x.prompt_id for x in new.results if x.passed is not None} & {
        x.prompt_id for x in old.results if x.passed is not None
    }
    assert r.shared == len(shared)
    change = sum(x.passed is False for x in new.results if x.prompt_id in shared) - sum(
        x.passed is False for x in old.results if x.prompt_id in shared
    )
    assert change == r.broken - r.mended == sum(c.change or 0 for c in r.clusters)
    assert change == sum(f.change or 0 for f in r.families.values())
    assert FailureReport.from_dict(json.loads(json.dumps(r.to_dict()))) == r
    assert all(c.change == 0 for c in failures(new, new).clusters)


@given(cases, st.randoms())
def test_the_order_of_prompts_does_not_matter(now: list[tuple[str, bool | None]], random: Any) -> None:
    rows = [row(i, p, c) for i, (c, p) in enumerate(now)]
    mixed = list(rows)
    random.shuffle(mixed)

    def counts(r: FailureReport) -> Any:
        return Counter((c.cause, c.signature, c.n) for c in r.clusters), {k: f.share for k, f in r.families.items()}

    assert counts(failures(result(rows))) == counts(failures(result(mixed)))


def hostile_report() -> FailureReport:
    rows = [row(i, False, "hang", text=HOSTILE, details={"errors": [HOSTILE]}, family=HOSTILE) for i in range(3)]
    return failures(result([*rows, row(9, True)]), result([row(9, False, "hang")], "sft"))


def test_hostile_answers_stay_text() -> None:
    report = hostile_report()
    page = page_to_html(failures_page([report]))
    assert "<script>alert" not in page and "<img" not in page and "&lt;script&gt;" in page
    assert "````text" in report.to_markdown(), "a fence longer than the one in the answer"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_opens_in_a_browser_without_complaint(tmp_path: Path) -> None:
    page = write_failures([hostile_report()], tmp_path / "failures.html")
    flags = [
        "headless",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "enable-logging=stderr",
        "dump-dom",
    ]
    done = subprocess.run(
        ["chromium", *(f"--{f}" for f in flags), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert 'id="clusters-asm"' in done.stdout and "CONSOLE" not in done.stderr
    assert "<script" not in done.stdout and "http:" not in done.stdout.replace(HOSTILE, "").replace("http://evil", "")


def test_the_verb_prints_tables_json_markdown_and_a_page(tmp_path: Path) -> None:
    rows = [row(i, i > 2, "" if i > 2 else "hang") for i in range(6)]
    for name, rows_of in (("dpo", rows), ("sft", [row(i, False, "hang") for i in range(6)])):
        (tmp_path / f"{name}.json").write_text(json.dumps([result(rows_of, name).to_dict()]))
    spec = [f"dpo={tmp_path / 'dpo.json'}", "--before", f"sft={tmp_path / 'sft.json'}"]
    said = hafs("failures", *spec, "--html", tmp_path / "f.html", "--markdown", tmp_path / "f.md", "--json").ok().json
    (report,) = (FailureReport.from_dict(r) for r in said["reports"])
    assert report == failures(result(rows), result([row(i, False, "hang") for i in range(6)], "sft"))
    assert (report.failed, report.mended, report.broken) == (3, 3, 0)
    printed = hafs("failures", *spec).ok().out
    assert "3 of 6 scored prompts failed" in printed and "hang" in printed and "−3" in printed
    assert (tmp_path / "f.html").read_text().startswith("<!doctype html>") and "hang" in (tmp_path / "f.md").read_text()
    hafs("failures", spec[0], "--benchmark", "nope").failed(2, "dpo has no result on nope", "use some of: asm")
