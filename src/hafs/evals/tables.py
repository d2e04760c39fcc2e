"""A comparison as tables: the same rows for the terminal, for Markdown and for the report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from hafs.evals.compare import Benchmark, Comparison, Paired, Wins
from hafs.evals.words import interval, model_title, p_value, percent, points, tokens
from hafs.statistics import Estimate
from hafs.tasks.domain import build_verb

__all__ = [
    "Cell",
    "Table",
    "category_table",
    "category_tables",
    "coverage_lines",
    "fence",
    "main_table",
    "markdown_cell",
    "markdown_table",
    "paired_table",
    "rich_table",
    "side_lines",
    "to_markdown",
    "to_rich",
    "to_text",
]


@dataclass(frozen=True)
class Cell:
    """A figure and, smaller, what qualifies it (its interval and n)."""

    text: str
    sub: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table; the first column is text, the others are figures unless `plain`."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    plain: bool = False


def main_table(c: Comparison) -> Table:
    """A row for each benchmark, for human preference and for the win rates; a column for each model."""
    rows = [(Cell(b.title), *(_rate_cell(b.rates[m]) for m in c.models)) for b in c.benchmarks]
    rows.append((Cell("Human Preference"), *(_rate_cell(c.human.get(m)) for m in c.models)))
    rows.append(
        (
            Cell(f"Win Rate vs {model_title(c.reference)}"),
            *(_win_cell(c.overall[m].by_score) if m in c.candidates else Cell("-") for m in c.models),
        )
    )
    if c.judged:
        row = (_rate_cell(c.judged.get(m)) for m in c.models)
        rows.append((Cell(f"Judge's Win Rate vs {model_title(c.reference)}"), *row))
    return Table("", ("Metric", *map(model_title, c.models)), tuple(rows))


def paired_table(c: Comparison) -> Table:
    """Every other model against the reference, prompt by prompt, also pooled over several benchmarks.

    Below gained and lost stands McNemar's exact p; "detectable" is the true difference (percentage points)
    that this many prompts would show four times in five.
    """
    rows = []
    for m in (m for m in c.models if m in c.overall and m not in c.same):
        parts: list[tuple[str, Paired]] = [(b.title, b.against[m]) for b in c.benchmarks]
        if len(parts) > 1:
            parts.append(("All benchmarks", c.overall[m]))
        rows += [_paired_row(model_title(m), name, p) for name, p in parts]
    header = ("Model", "Prompts", "Difference (points)", "Gained / lost", "Win / tie / loss", "Detectable (points)")
    return Table(f"Against {model_title(c.reference)}, prompt by prompt", header, tuple(rows))


def category_tables(c: Comparison) -> list[Table]:
    """Pass rates by category, one table a benchmark that has categories."""
    return [category_table(c, b) for b in c.benchmarks if b.categories]


def category_table(c: Comparison, b: Benchmark) -> Table:
    """Pass rates on one benchmark: a row for each category, a column for each model."""
    rows = tuple((Cell(name), *(_rate_cell(rates[m]) for m in c.models)) for name, rates in b.categories.items())
    return Table(f"{b.title} by category", ("Category", *map(model_title, c.models)), rows)


def coverage_lines(c: Comparison) -> list[str]:
    """For every benchmark how many prompts were scored for each model, and why the others were not."""
    lines = []
    for b in c.benchmarks:
        parts = []
        for m in c.models:
            missing = sum(b.unscored[m].values())
            total = b.rates[m].n + missing
            why = "; ".join(f"{n} × {reason}" for reason, n in b.unscored[m].items())
            parts.append(f"{model_title(m)} {b.rates[m].n} of {total}" + (f" ({why})" if why else ""))
        lines.append(f"{b.title}, prompts scored: {', '.join(parts)}.")
    return lines


def side_lines(c: Comparison) -> list[str]:
    """For every candidate how the share of answers that build and the mean length changed."""
    lines = []
    for m in (m for m in c.candidates if m not in c.same):
        pair, parts = c.overall[m], []
        if pair.builds.value is not None:
            span = interval(pair.builds, change=True)
            parts.append(f"answers that {build_verb()} {points(pair.builds.value)} points ({span})")
        if pair.tokens.value is not None:
            parts.append(f"mean answer length {tokens(pair.tokens)}")
        if parts:
            lines.append(f"{model_title(m)} against {model_title(c.reference)}: {', '.join(parts)}.")
    return lines


def _rate_cell(e: Estimate | None) -> Cell:
    if e is None or e.value is None:
        return Cell("-")
    return Cell(percent(e.value), f"{interval(e)}, n={e.n}")


def _win_cell(w: Wins) -> Cell:
    if w.rate.value is None:
        return Cell("-", f"no prompt decided, {w.ties} ties")
    return Cell(percent(w.rate.value), f"{interval(w.rate)}, n={w.rate.n} decided")


def _paired_row(model: str, benchmark: str, p: Paired) -> tuple[Cell, ...]:
    out = f"{p.left_out} left out" if p.left_out else ""
    seen = "-" if p.detectable is None else f"{100 * p.detectable:.1f}"
    w = p.by_score
    return (
        Cell(model, benchmark),
        Cell(str(p.difference.n), out),
        Cell(points(p.difference.value), interval(p.difference, change=True)),
        Cell(f"{p.gained}/{p.lost}", f"p {p_value(p.p)}" if p.difference.n else ""),
        Cell(f"{w.wins}/{w.ties}/{w.losses}"),
        Cell(seen),
    )


def _all_tables(c: Comparison) -> list[Table]:
    return [main_table(c), paired_table(c), *category_tables(c)]


def _closing(c: Comparison) -> list[str]:
    return [d for name in c.candidates for d in (c.decisions[name].sentence, c.decisions[name].reason)]


def to_markdown(c: Comparison) -> str:
    """The comparison as Markdown: table, meaning, paired figures, categories, coverage, notes."""
    main, *others = _all_tables(c)
    parts = [markdown_table(main), *map(markdown_cell, _closing(c)), *map(markdown_table, others)]
    parts.append("\n".join(f"- {markdown_cell(line)}" for line in (*side_lines(c), *coverage_lines(c), *c.notes)))
    return "\n\n".join(parts) + "\n"


def markdown_table(t: Table) -> str:
    """A Markdown pipe table, its title in bold above it."""
    header = [markdown_cell(h) for h in t.header]
    rows = [[_markdown_figure(cell) for cell in row] for row in t.rows]
    widths = [max(3, *(len(r[i]) for r in [header, *rows])) for i in range(len(header))]
    rule = ["-" * w if i == 0 or t.plain else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [
        "| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |" for row in (header, rule, *rows)
    ]
    return (f"**{markdown_cell(t.title)}**\n\n" if t.title else "") + "\n".join(lines)


def _markdown_figure(cell: Cell) -> str:
    return markdown_cell(f"{cell.text} ({cell.sub})" if cell.sub else cell.text)


def markdown_cell(text: str) -> str:
    """One line of text that Markdown shows as it is: no markup, no HTML, no new cell."""
    line = " ".join(text.split()).replace("&", "&amp;").replace(">", "&gt;")
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)  # only these can open a tag
    return re.sub(r"([\\`*_\[\]|~]|^[#+-](?= ))", r"\\\1", line)


def fence(text: str) -> str:
    """A fenced Markdown block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}text\n{text}\n{ticks}"


def to_rich(c: Comparison) -> RenderableType:
    """The comparison for a terminal."""
    main, *others = _all_tables(c)
    said = [Text(line) for line in _closing(c)]
    small = [Text(line, style="dim") for line in (*side_lines(c), *coverage_lines(c), *c.notes)]
    return Group(rich_table(main), *said, Text(), *(rich_table(t) for t in others), *small)


def rich_table(t: Table) -> RichTable:
    """A table for the terminal, with what qualifies a figure dimmed below it."""
    out = RichTable(
        title=Text(t.title, style="bold") if t.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for i, name in enumerate(t.header):
        figures = i > 0 and not t.plain
        out.add_column(Text(name), justify="right" if figures else "left", min_width=9 if figures else None)
    for row in t.rows:
        out.add_row(*(_rich_cell(cell, first=i == 0) for i, cell in enumerate(row)))
    return out


def _rich_cell(cell: Cell, *, first: bool) -> Text:
    text = Text(cell.text, style="" if first else "bold")
    return text.append(f"\n{cell.sub}", style="dim not bold") if cell.sub else text


def to_text(c: Comparison, width: int = 110) -> str:
    """The comparison as plain text, `width` columns wide."""
    out = StringIO()
    Console(file=out, width=width, color_system=None).print(to_rich(c))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
