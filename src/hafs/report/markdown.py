"""The report as Markdown: the twin of the HTML page, block by block."""

from __future__ import annotations

from dataclasses import replace

from hafs.evals.tables import fence, markdown_cell, markdown_table
from hafs.report.blocks import (
    Bars,
    Block,
    Climb,
    Code,
    Figure,
    Forest,
    Grid,
    Lines,
    ReportPage,
    ShownVerdict,
    SideBySide,
    Text,
    Verdicts,
)
from hafs.report.data import Example, ShownAnswer

__all__ = ["page_to_markdown"]


def page_to_markdown(page: ReportPage) -> str:
    """The page as Markdown; text from models stands in fenced blocks, everything else is escaped."""
    parts = [f"# {markdown_cell(page.title)}"]
    if page.lead:
        parts.append(f"**{markdown_cell(page.lead)}**")
    if page.verdict:
        parts.append(f"{markdown_cell(page.verdict[0])}: {markdown_cell(page.reason)}")
    if page.figures:
        parts.append("\n".join(_figure(f) for f in page.figures))
    for section in page.sections:
        parts.append(f"## {markdown_cell(section.title)}")
        parts += [text for block in section.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _figure(f: Figure) -> str:
    return f"- {markdown_cell(f.label)}: {markdown_cell(f.value)}" + (f" ({markdown_cell(f.sub)})" if f.sub else "")


def _block(block: Block) -> str:
    match block:
        case Text():
            return markdown_cell(block.text)
        case Grid():
            return markdown_table(block.table)
        case Bars():
            return markdown_table(block.table)
        case Lines():
            title = markdown_cell(f"{block.title} ({block.y_label})")
            figures = markdown_table(replace(block.figures, title=""))
            return f"**{title}**: {markdown_cell(block.caption)}\n\n{figures}"
        case Code():
            caption = f"{markdown_cell(block.caption)}:\n\n" if block.caption else ""
            return caption + fence(block.text)
        case SideBySide():
            return _example(block.example)
        case Climb():
            return markdown_table(block.table)
        case Verdicts():
            return "\n".join(_verdict(v) for v in block.verdicts)
        case Forest():
            return ""  # the paired table below it holds the same figures


def _verdict(v: ShownVerdict) -> str:
    said = " ".join(x for x in (v.reason, v.remark) if x)
    return f"- {markdown_cell(v.label)}: **{markdown_cell(v.decided)}**. {markdown_cell(said)}"


def _example(e: Example) -> str:
    where = " · ".join(x for x in (e.benchmark, e.category) if x)
    parts = [f"### {markdown_cell(where) or 'Prompt'}", fence(e.prompt), _answer(e.before), _answer(e.after)]
    return "\n\n".join(parts)


def _answer(a: ShownAnswer) -> str:
    return f"{markdown_cell(a.model)}: {markdown_cell(a.said)}\n\n{fence(a.text)}"
