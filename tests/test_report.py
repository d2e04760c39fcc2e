"""The report: one file that asks for nothing, hostile text stays text, and the Markdown twin has the same figures."""

from __future__ import annotations

import html
import json
import math
import os
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.errors import DataError, HafsError
from hafs.evals import EvalResult, PromptResult, compare
from hafs.evals.tables import Table
from hafs.report import (
    Pairs,
    PairSource,
    ReportData,
    Rerun,
    Stage,
    Training,
    differing_examples,
    failures_by_cause,
    render_html,
    render_markdown,
    said,
    write_report,
)
from hafs.report.blocks import Climb, Forest, Rung, Track
from hafs.report.charts import line_chart, ticks
from hafs.report.climb import climb_chart
from hafs.report.curves import charts_of
from hafs.report.view import build_page

HOSTILE = (
    '</pre></main><script>alert(1)</script><img src="http://evil.test/x.png" onerror="alert(2)">'
    "<style>@import url(https://evil.test/a.css)</style>"
    "\n```\n# not a heading\n| not | a table |\n{{ 7 * 7 }} \x00 \ud800"
)
SECTIONS = {
    "result": "Result",
    "categories": "By category",
    "failures": "Why answers fail",
    "examples": "Where they differ",
    "training-sft": "Training: SFT",
    "training-dpo": "Training: DPO",
    "pairs": "Where the pairs came from",
    "time": "Where the time went",
    "again": "Run it again",
    "notes": "Notes",
}
VOID = {"meta", "img", "br", "link", "input", "hr", "base"}


def evaluated(name: str, benchmark: str, shift: int, text: str) -> EvalResult:
    causes = ("hang", "wrong result", "does not assemble: bad operand")
    rows = []
    for i in range(60):
        passed = None if i == 7 and name == "dpo" else (i * 7 + shift) % 10 < 6 + (name == "dpo")
        rows.append(
            PromptResult(
                f"{benchmark}{i}",
                f"Write routine {i}. {text}",
                category=f"category {i % 3}",
                passed=passed,
                reason="" if passed is not None else "emulator died",
                value=None if passed is None else float(passed),
                text=f"{text} answer {i}",
                cause="" if passed else causes[i % 3],
                details={"bytes": 7 + i % 5, "clocks": 116, "correct": i % 16, "total": 16, "errors": [text]},
                n_tokens=30 + i % 9,
            )
        )
    return EvalResult(name, benchmark, tuple(rows))


def report(text: str = "plain") -> ReportData:
    sft = [evaluated("sft", b, 0, text) for b in ("asm", "rom_hack")]
    dpo = [evaluated("dpo", b, 2, text) for b in ("asm", "rom_hack")]
    logs = [
        {"step": i, "loss": math.exp(-i / 30), "rewards/margins": i / 50, "logps/chosen": -20.0 - i / 10}
        for i in range(1, 61)
    ]
    checks = [{"step": i, "eval/loss": 0.7 - i / 200, "eval/pass_rate": 0.6 + i / 500} for i in (0, 20, 40, 60)]
    return ReportData(
        f"Round 1 {text}",
        comparison=compare({"sft": sft, "dpo": dpo}),
        training=(Training("sft", tuple(logs[:10])), Training("dpo", (*logs, *checks), kept=40, note=f"a note {text}")),
        pairs=Pairs((PairSource(f"asm {text}", 40, 1120), PairSource("reference", 9, 31)), {f"ties {text}": 4}),
        failures=failures_by_cause(sft, dpo),
        examples=differing_examples(sft, dpo),
        stages=(Stage("SFT", 312.4, text), Stage("DPO", 96.7), Stage("Report", 0.04)),
        rerun=Rerun((f"hafs demo {text}",), f"[dpo]\n# {text}", {"seed": "7", "torch": f"2.13 {text}"}),
        notes=(f"last words {text}",),
    )


class Page(HTMLParser):
    """What a page holds: tags, sections, tables as rows of cells, and text (without the style and the axes)."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.sections: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " "
        if tag == "section":
            self.sections.append(str(dict(attrs)["id"]))
        elif tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "small" and "table" in self.open:
            self.tables[-1][-1][-1] += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self.text += " "

    def handle_data(self, data: str) -> None:
        if not {"style", "svg", "em"} & set(self.open):
            self.text += data
        if self.open and ("td" in self.open or "th" in self.open):
            self.tables[-1][-1][-1] += data


def markdown_tables(source: str) -> list[list[list[str]]]:
    """The pipe tables outside of fences, markup undone, as rows of cells."""
    tables: list[list[list[str]]] = []
    fence, before = "", ""
    for line in source.splitlines():
        mark = re.match(r"`{3,}", line)
        if fence or mark:
            fence = "" if fence and line == fence else fence or (mark.group() if mark else "")
            continue
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
            if not all(re.fullmatch(r"-+:?", c) for c in cells):
                tables[-1].append([html.unescape(re.sub(r"\\([^\w\s])", r"\1", c)) for c in cells])
        before = line
    return tables


def bare(cells: list[str]) -> list[str]:
    """The words and figures of a row without the brackets that only one of the two renderings has."""
    return [" ".join(re.sub(r"[()]", " ", cell).split()) for cell in cells]


def test_every_section_is_there_with_data_and_gone_without() -> None:
    full = report()
    page = Page(render_html(full))
    assert page.sections == list(SECTIONS)
    headings = re.findall(r"^## (.*)$", render_markdown(full), flags=re.M)
    assert headings == list(SECTIONS.values())
    empty = {
        "comparison": None,
        "training": (),
        "pairs": None,
        "failures": None,
        "examples": (),
        "stages": (),
        "rerun": None,
        "notes": (),
    }
    owned = {
        "comparison": {"result", "categories"},
        "training": {"training-sft", "training-dpo"},
        "pairs": {"pairs"},
        "failures": {"failures"},
        "examples": {"examples"},
        "stages": {"time"},
        "rerun": {"again"},
        "notes": set(),
    }
    for field, nothing in empty.items():
        without = replace(full, **{field: nothing})
        assert set(Page(render_html(without)).sections) == set(SECTIONS) - owned[field]
        left = re.findall(r"^## (.*)$", render_markdown(without), flags=re.M)
        assert set(left) == {SECTIONS[s] for s in set(SECTIONS) - owned[field]}
    only_title = ReportData("Nothing yet", **empty)
    assert Page(render_html(only_title)).sections == []
    assert render_markdown(only_title) == "# Nothing yet\n"


def test_the_summary_comes_first_and_says_how_sure() -> None:
    data = report()
    first = render_markdown(data).splitlines()[2]
    assert re.search(r"[+−]\d+\.\d points on \d+ prompts \\?\(95% interval", first)
    assert Page(render_html(data)).text.index("95% interval") < Page(render_html(data)).text.index("Result")
    assert "**My own words.**" in render_markdown(replace(data, summary="My own words."))


def test_hostile_text_stays_text() -> None:
    page = Page(render_html(report(HOSTILE)))
    plain = Page(render_html(report()))
    assert [t for t, _ in page.tags if t in ("script", "img", "link", "iframe", "object", "base")] == []
    assert [t for t, _ in page.tags] == [t for t, _ in plain.tags]  # not one element more
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not page.open
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "{{ 7 * 7 }}" in render_markdown(report(HOSTILE))


def test_hostile_text_cannot_leave_its_place_in_markdown() -> None:
    hostile, plain = render_markdown(report(HOSTILE)), render_markdown(report())
    assert len(markdown_tables(hostile)) == len(markdown_tables(plain))
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", hostile)
    assert "<script" not in outside
    assert "<img" not in outside
    assert not re.search(r"^# not a heading", outside, flags=re.M)


def test_the_page_asks_for_nothing() -> None:
    source = render_html(report())
    assert not re.search(r"https?://|//[a-z]|@import|url\(", source)
    page = Page(source)
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed", "video", "audio", "form")
        assert "src" not in attrs
        assert str(attrs.get("href", "#")).startswith("#")
    policy = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0].startswith("default-src 'none'")


def test_intervals_stand_where_zero_says() -> None:
    data = report()
    assert data.comparison is not None
    forest = next(b for b in build_page(data).sections[0].blocks if isinstance(b, Forest))
    pairs = [*(b.against["dpo"] for b in data.comparison.benchmarks), data.comparison.overall["dpo"]]
    assert len(forest.spans) == len(pairs)
    for span, pair in zip(forest.spans, pairs, strict=True):
        assert 0 <= span.low < span.at < span.high <= 1
        assert (span.low > forest.zero) == pair.difference.above_zero
        assert (span.at - forest.zero) * (pair.gained - pair.lost) >= 0
        assert (span.at - span.low) / (span.high - span.low) == pytest.approx(
            (pair.difference.value - pair.difference.low) / (pair.difference.high - pair.difference.low)
        )
    width = (forest.spans[0].high - forest.spans[0].low) / (pairs[0].difference.high - pairs[0].difference.low)
    assert forest.spans[0].at - forest.zero == pytest.approx(pairs[0].difference.value * width)


def test_links_lead_to_sections() -> None:
    page = Page(render_html(report()))
    assert [a["href"] for t, a in page.tags if t == "a"] == [f"#{s}" for s in page.sections]


def test_markdown_has_the_same_figures() -> None:
    data = report()
    page, markdown = Page(render_html(data)), render_markdown(data)
    twin = markdown_tables(markdown)
    in_markdown = [[bare(row) for row in table] for table in twin]
    assert len(page.tables) >= 6
    for table in page.tables:
        assert [bare(row) for row in table] in in_markdown
    unescaped = html.unescape(re.sub(r"\\([^\w\s])", r"\1", markdown))
    words = " ".join(re.sub(r"[|()*\-]", " ", unescaped).split())
    figures = set(re.findall(r"[+−]?\d[\d.,]*\d%?", page.text))
    assert len(figures) > 100
    assert {f for f in figures if f not in words} == set()


def test_data_survives_json() -> None:
    data = report()
    row = json.loads(json.dumps(data.to_dict(), allow_nan=False))
    again = ReportData.from_dict(row)
    assert again == data
    assert render_html(again) == render_html(data)
    with pytest.raises(DataError, match="no report: title"):
        ReportData.from_dict({})


def test_files_are_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    page, markdown = write_report(report(HOSTILE), tmp_path / "out" / "round-1.2")
    assert (page.name, markdown.name) == ("round-1.2.html", "round-1.2.md")
    first = page.read_bytes(), markdown.read_bytes()
    assert write_report(report(HOSTILE), page) == (page, markdown)
    assert (page.read_bytes(), markdown.read_bytes()) == first
    (tmp_path / "file").write_text("")
    with pytest.raises((HafsError, OSError)):
        write_report(report(), tmp_path / "file" / "report")


def test_overlong_answers_are_cut_and_say_so() -> None:
    data = report("x" * 100_000)
    source = render_html(data)
    assert "characters in all" in source
    assert len(source) < 5_000_000


def test_failures_count_prompts_scored_for_both() -> None:
    sft, dpo = evaluated("sft", "asm", 0, ""), evaluated("dpo", "asm", 2, "")
    f = failures_by_cause([sft], [dpo])
    assert f is not None
    assert f.prompts == 59
    both = [(a, b) for a, b in zip(sft.results, dpo.results, strict=True) if b.passed is not None]
    assert sum(c.before for c in f.causes) == sum(not a.passed for a, _ in both)
    assert sum(c.after for c in f.causes) == sum(not b.passed for _, b in both)
    few = failures_by_cause([sft], [dpo], at_most=1)
    assert few is not None
    assert [c.cause for c in few.causes][1:] == ["other causes"]
    assert sum(c.after for c in few.causes) == sum(c.after for c in f.causes)
    assert failures_by_cause([], []) is None


def test_examples_show_losses_as_well_as_gains() -> None:
    sft, dpo = evaluated("sft", "asm", 0, ""), evaluated("dpo", "asm", 2, "")
    shown = differing_examples([sft], [dpo], limit=6)
    assert len(shown) == 6
    assert sum(bool(e.after.passed) for e in shown) == 3
    assert all(e.before.passed != e.after.passed for e in shown)
    assert len({e.category for e in shown}) == 3
    assert differing_examples([sft], [sft]) == ()


def test_what_the_checker_said() -> None:
    details = {"bytes": 7, "clocks": 116, "correct": 3, "total": 16, "errors": ["line 2: no such label"]}
    assert said(PromptResult("p", passed=True, details=details)) == "passed: 7 bytes, 116 clocks"
    failed = said(PromptResult("p", passed=False, cause="wrong result", details=details))
    assert failed == "failed: wrong result (3 of 16 inputs right; line 2: no such label)"
    assert said(PromptResult("p", reason="emulator died")) == "unscored: emulator died"
    assert said(PromptResult("p", passed=True)) == "passed"


def test_curves_leave_out_what_is_no_number() -> None:
    rows = ({"step": 1, "loss": float("nan")}, {"step": 2, "loss": 0.5}, {"step": 3}, {"step": 4, "loss": "high"})
    source = render_html(ReportData("t", training=(Training("dpo", rows),)))
    assert source.count("<svg") == 1
    assert "nan" not in source
    assert "<svg" not in render_html(ReportData("t", training=(Training("dpo", rows[:1]),)))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_data_evenly(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * max(1.0, abs(low), span)
    assert found[-1] >= low + span - 1e-6 * max(1.0, abs(low), span)
    assert 2 <= len(found) <= 8
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) == pytest.approx(min(gaps), rel=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_shows_it_without_complaint(tmp_path: Path) -> None:
    page, _ = write_report(report(HOSTILE), tmp_path / "report")
    flags = [
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
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
    shown = Page(done.stdout)
    assert shown.sections == list(SECTIONS)
    assert not [t for t, _ in shown.tags if t in ("script", "img")]
    assert "CONSOLE" not in done.stderr


def test_rounds_stand_one_after_the_other_and_their_lines_are_not_joined() -> None:
    first = Training("dpo-1", tuple({"step": i, "loss": 0.7 - i / 100} for i in range(1, 11)), kept=10)
    second = Training("dpo-2", tuple({"step": i, "loss": 0.6 - i / 100} for i in range(1, 6)), kept=5)
    (chart,) = charts_of(first, second)
    (line,) = chart.series
    assert [x for x, _ in line.points] == [*range(1, 11), *range(12, 17)]
    assert chart.marks == ((0.0, "DPO 1"), (11.0, "DPO 2"))
    drawn = str(line_chart(chart))
    assert drawn.count("<polyline") == 2 and "DPO 1" in drawn and "DPO 2" in drawn
    assert chart.caption == "training 0.69 to 0.6, then 0.59 to 0.55."
    (alone,) = charts_of(first)
    assert alone.marks == ((10.0, "kept"),) and str(line_chart(alone)).count("<polyline") == 1


shares = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.booleans()), min_size=1, max_size=6)


@settings(deadline=None)
@given(shares, st.none() | st.floats(0, 1))
def test_every_score_stands_in_the_chart_and_higher_is_higher(
    scores: list[tuple[float, float, float, bool]], target: float | None
) -> None:
    rungs = tuple(Rung(*(sorted(s[:3])[i] for i in (1, 0, 2))) for s in scores)
    names, kept = tuple(f"<m{i}>" for i in range(len(scores))), tuple(s[3] for s in scores)
    drawn = str(climb_chart(Climb("t", names, kept, (Track("b", "new", rungs, target),), Table("", (), ()))))
    ys = [float(y) for y in re.findall(r'<circle class="rung[^>]* cy="([\d.]+)"', drawn)]
    assert len(ys) == len(rungs) and all(0 <= y <= 330 for y in ys)
    assert drawn.count("rung new hollow") == drawn.count("rolled back") == kept.count(False)
    assert "<m0>" not in drawn and "&lt;m0&gt;" in drawn and ("target" in drawn) == (target is not None)
    for a, b in pairwise(sorted(zip([r.value for r in rungs], ys, strict=True))):
        assert a[1] >= b[1] - 0.11, "drawn to a tenth of a unit"
