"""From report data to a page: which sections there are, in what order, and every figure in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hafs.evals.compare import Benchmark, Comparison, Paired
from hafs.evals.tables import Cell, Table, category_table, coverage_lines, main_table, paired_table, side_lines
from hafs.evals.words import interval, model_title, percent, points, seconds
from hafs.report.blocks import (
    Bar,
    BarGroup,
    Bars,
    Block,
    Code,
    Figure,
    Forest,
    Grid,
    Key,
    ReportPage,
    Section,
    SideBySide,
    Span,
    Text,
)
from hafs.report.curves import charts_of
from hafs.report.data import Example, Failures, Pairs, ReportData, Rerun, ShownAnswer, Stage, Training
from hafs.statistics import Estimate

__all__ = [
    "build_page",
    "change_forest",
    "examples_section",
    "failures_section",
    "headline",
    "rerun_section",
    "time_section",
]

_LONGEST = 6000  # characters of a prompt or answer that are shown


def build_page(data: ReportData) -> ReportPage:
    """Everything the report shows; a section without data is left out."""
    c = data.comparison
    sections = [
        _result(c, data.sampled) if c else None,
        _categories(c) if c else None,
        failures_section(data.failures) if data.failures and data.failures.causes else None,
        examples_section(data.examples) if data.examples else None,
        *(_training(t) for t in data.training),
        _pairs(data.pairs) if data.pairs and data.pairs.sources else None,
        time_section(data.stages) if data.stages else None,
        rerun_section(data.rerun) if data.rerun else None,
        _notes(data, c),
    ]
    return ReportPage(
        title=data.title,
        lead=data.summary or (headline(c) if c else ""),
        verdict=_verdict(c) if c else None,
        reason=c.reason if c else "",
        figures=_figures(c) if c else (),
        sections=tuple(s for s in sections if s and s.blocks),
    )


def headline(c: Comparison) -> str:
    """Whether the last candidate got better, by how much, how surely, and on how many prompts."""
    if c.candidate in c.same:
        return c.sentence
    pair = c.overall[c.candidate]
    new, old, d = model_title(pair.model), model_title(pair.reference), pair.difference
    if d.value is None:
        return f"{new} cannot be compared with {old}: no prompt was scored for both."
    size = f"{points(d.value)} points on {d.n} prompts ({100 * d.level:g}% interval {interval(d, change=True)})"
    if pair.verdict == "not distinguishable":
        return f"{new} cannot be told from {old} at this size: {size}."
    return f"{new} is {pair.verdict} than {old}: {size}."


def _verdict(c: Comparison) -> tuple[str, str]:
    if c.candidate in c.same:
        return f"one model \u00b7 {model_title(c.reference)} kept", "even"
    done = f"{model_title(c.candidate)} promoted" if c.promote else f"{model_title(c.reference)} kept"
    return f"{c.verdict} · {done}", {"better": "good", "worse": "bad"}.get(c.verdict, "even")


def _style(c: Comparison, model: str) -> str:
    """The colour class of a model: reference, last candidate, before the reference, or another."""
    if model == c.reference:
        return "ref"
    if model == c.candidate:
        return "new"
    return "base" if c.models.index(model) < c.models.index(c.reference) else "alt"


def _figures(c: Comparison) -> tuple[Figure, ...]:
    pair = c.overall[c.candidate]
    if pair.difference.value is None or c.candidate in c.same:
        return ()
    new, old, wins = model_title(pair.model), model_title(pair.reference), pair.by_score

    def rate(e: Estimate) -> tuple[str, str]:
        return percent(e.value), interval(e)

    decided = f"{interval(wins.rate)}, n={wins.rate.n} decided" if wins.rate.n else f"{wins.ties} ties"
    return (
        Figure(f"{old} passes", *rate(pair.reference_rate), style="ref"),
        Figure(f"{new} passes", *rate(pair.rate), style="new"),
        Figure("Change, points", points(pair.difference.value), interval(pair.difference, change=True)),
        Figure(f"Win rate vs {old}", percent(wins.rate.value), decided),
    )


def _result(c: Comparison, sampled: Table | None) -> Section:
    blocks: list[Block] = [Grid(main_table(c))]
    blocks += [Text(c.decisions[m].sentence) for m in c.candidates]
    forest = change_forest(c)
    if forest:
        blocks.append(forest)
    blocks.append(Grid(paired_table(c)))
    blocks.append(
        Text(
            "Below gained and lost stands the p-value of McNemar's exact test. Detectable is the true"
            " difference that this many prompts would show four times in five. Win, tie and loss go by the"
            " checker's order: right answers first, then smaller or faster code.",
            small=True,
        )
    )
    if sampled:
        blocks.append(Grid(sampled))
    return Section("result", "Result", tuple(blocks))


def change_forest(c: Comparison) -> Forest | None:
    """Each candidate's change on each benchmark, with its interval, against zero."""
    rows: list[tuple[str, Paired]] = []
    for m in (m for m in c.candidates if m not in c.same):
        who = f"{model_title(m)}, " if len(c.candidates) > 1 else ""
        rows += [(f"{who}{b.title}", b.against[m]) for b in c.benchmarks]
        if len(c.benchmarks) > 1:
            rows.append((f"{who}all benchmarks" if who else "All benchmarks", c.overall[m]))
    ends = [(p.difference.low, p.difference.high) for _, p in rows]
    known = [x for pair in ends for x in pair if x is not None]
    if not known:
        return None
    low, high = min(0.0, *known), max(0.0, *known)
    low, high = math.floor(low * 20) / 20, math.ceil(high * 20) / 20  # whole steps of five points
    spans = [_span(name, p.difference, low, high) for name, p in rows]
    return Forest(
        title=f"Change of the pass rate against {model_title(c.reference)}, percentage points",
        spans=tuple(s for s in spans if s),
        zero=(0 - low) / (high - low),
        left=points(low),
        right=points(high),
    )


def _span(label: str, e: Estimate, low: float, high: float) -> Span | None:
    if e.value is None or e.low is None or e.high is None:
        return None
    at, start, end = ((x - low) / (high - low) for x in (e.value, e.low, e.high))
    return Span(label, at, start, end, f"{points(e.value)} ({interval(e, change=True)})")


def _categories(c: Comparison) -> Section:
    return Section("categories", "By category", tuple(_category_bars(c, b) for b in c.benchmarks if b.categories))


def _category_bars(c: Comparison, b: Benchmark) -> Bars:
    groups = []
    for name, rates in b.categories.items():
        bars = tuple(
            Bar(model_title(m), e.value, percent(e.value), _style(c, m), e.low, e.high)
            for m in c.models
            if (e := rates[m]).value is not None
        )
        groups.append(BarGroup(name, bars, f"n={rates[c.reference].n}"))
    keys = tuple(Key(model_title(m), _style(c, m)) for m in c.models)
    table = category_table(c, b)
    return Bars(f"{b.title}: share passed, with {100 * c.level:g}% intervals", tuple(groups), keys, table)


def failures_section(f: Failures) -> Section:
    """Failed answers by cause, before and after."""
    before, after = model_title(f.before), model_title(f.after)
    most = max(max(c.before, c.after) for c in f.causes) or 1
    groups, rows = [], []
    for cause in f.causes:
        change = f"{cause.after - cause.before:+d}".replace("-", "−") if cause.after != cause.before else "0"
        bars = (
            Bar(before, cause.before / most, str(cause.before), "ref"),
            Bar(after, cause.after / most, str(cause.after), "new"),
        )
        groups.append(BarGroup(cause.cause, bars, change))
        rows.append((Cell(cause.cause), Cell(str(cause.before)), Cell(str(cause.after)), Cell(change)))
    total_before, total_after = sum(c.before for c in f.causes), sum(c.after for c in f.causes)
    table = Table("Failed answers", ("Cause", before, after, "Change"), tuple(rows))
    failed = f"{before} failed {total_before} and {after} failed {total_after}"
    text = f"Of {f.prompts} prompts scored for both, {failed}."
    keys = (Key(before, "ref"), Key(after, "new"))
    return Section("failures", "Why answers fail", (Text(text), Bars("Failed answers", tuple(groups), keys, table)))


def examples_section(examples: Sequence[Example]) -> Section:
    """Prompts on which two models differ, side by side."""
    text = "Prompts on which the two models differ, gains and losses alike; the data alone decides which."
    return Section("examples", "Where they differ", (Text(text, small=True), *(SideBySide(_cut(e)) for e in examples)))


def _cut(e: Example) -> Example:
    """The example with overlong texts cut, saying so."""

    def short(text: str) -> str:
        if len(text) <= _LONGEST:
            return text
        return f"{text[:_LONGEST]}\n… cut here; {len(text):,} characters in all"

    def answer(a: ShownAnswer) -> ShownAnswer:
        return replace(a, text=short(a.text), said=a.said if len(a.said) <= 400 else f"{a.said[:400]}…")

    return replace(e, prompt=short(e.prompt), before=answer(e.before), after=answer(e.after))


def _training(t: Training) -> Section | None:
    charts = charts_of(t)
    if not charts:
        return None
    kept = f" The weights of step {t.kept} were kept." if t.kept is not None else ""
    last = max(x for chart in charts for s in chart.series for x, _ in s.points)
    blocks: list[Block] = [Text(f"{last:g} optimiser steps.{kept}", small=True), *charts]
    if t.note:
        blocks.append(Text(t.note))
    name = "".join(ch if ch.isalnum() else "-" for ch in t.name.lower())
    return Section(f"training-{name}", f"Training: {model_title(t.name)}", tuple(blocks))


def _pairs(p: Pairs) -> Section:
    edges = sum(s.edges for s in p.sources)
    rows = [
        (Cell(s.source), Cell(f"{s.groups:,}"), Cell(f"{s.edges:,}"), Cell(percent(s.edges / edges if edges else None)))
        for s in p.sources
    ]
    table = Table("Preference edges by source", ("Source", "Groups", "Edges", "Share of edges"), tuple(rows))
    text = f"{edges:,} edges; an edge says that one answer to a prompt is better than another."
    blocks: list[Block] = [Text(text), Grid(table)]
    if p.skipped:
        skipped = tuple((Cell(why), Cell(f"{n:,}")) for why, n in p.skipped.items())
        blocks.append(Grid(Table("Prompts that made no group", ("Reason", "Prompts"), skipped)))
    return Section("pairs", "Where the pairs came from", tuple(blocks))


def time_section(stages: Sequence[Stage]) -> Section:
    """What each stage took."""
    total, most = sum(s.seconds for s in stages), max(s.seconds for s in stages) or 1.0
    groups, rows = [], []
    for s in stages:
        share = percent(s.seconds / total if total else 0.0)
        groups.append(BarGroup(s.name, (Bar("", s.seconds / most, f"{seconds(s.seconds)}, {share}", "plain"),), s.note))
        rows.append((Cell(s.name, s.note), Cell(seconds(s.seconds)), Cell(share)))
    table = Table("Time by stage", ("Stage", "Time", "Share"), tuple(rows))
    text = Text(f"{seconds(total)} in all.")
    return Section("time", "Where the time went", (text, Bars("Time by stage", tuple(groups), (), table)))


def rerun_section(r: Rerun) -> Section:
    """Everything that is needed to run it again."""
    blocks: list[Block] = []
    if r.commands:
        blocks.append(Code("\n".join(r.commands), "Commands"))
    if r.config:
        blocks.append(Code(r.config.rstrip("\n"), "hafs.toml"))
    if r.facts:
        rows = tuple((Cell(name), Cell(value)) for name, value in r.facts.items())
        blocks.append(Grid(Table("Seeds, hashes and versions", ("What", "Value"), rows, plain=True)))
    return Section("again", "Run it again", tuple(blocks))


def _notes(data: ReportData, c: Comparison | None) -> Section:
    lines = [*(side_lines(c) + coverage_lines(c) + list(c.notes) if c else []), *data.notes]
    return Section("notes", "Notes", tuple(Text(line, small=True) for line in lines))
