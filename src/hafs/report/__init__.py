"""The report of a run: one self-contained HTML page and its Markdown twin, from plain data.

data.py says what a report can hold, view.py turns it into a page of blocks (every figure already in words),
and html.py and markdown.py show the same blocks; curves.py and charts.py draw the training curves.

    data = ReportData(title="DPO, round 1", comparison=comparison, training=(Training("dpo", rows),))
    html, markdown = write_report(data, "out/report.html")
"""

from __future__ import annotations

from pathlib import Path

from hafs.files.jsonl import atomic_write
from hafs.report.data import (
    Answer,
    Example,
    FailureCause,
    Failures,
    Pairs,
    PairSource,
    ReportData,
    Rerun,
    Stage,
    Training,
    differing_examples,
    failures_by_cause,
    said,
)
from hafs.report.html import page_to_html
from hafs.report.markdown import page_to_markdown
from hafs.report.view import build_page, headline

__all__ = [
    "Answer",
    "Example",
    "FailureCause",
    "Failures",
    "PairSource",
    "Pairs",
    "ReportData",
    "Rerun",
    "Stage",
    "Training",
    "differing_examples",
    "failures_by_cause",
    "headline",
    "render_html",
    "render_markdown",
    "said",
    "write_report",
]


def render_html(data: ReportData) -> str:
    """The report as one HTML document."""
    return page_to_html(build_page(data))


def render_markdown(data: ReportData) -> str:
    """The report as Markdown, with the same figures."""
    return page_to_markdown(build_page(data))


def write_report(data: ReportData, path: str | Path) -> tuple[Path, Path]:
    """Write the page to `path` (".html" is added when it is missing) and its Markdown twin beside it.

    Returns both paths. Raises HafsError when the place cannot be written; what was there before stays whole.
    """
    stem = str(Path(path).expanduser()).removesuffix(".html")
    html, markdown = Path(f"{stem}.html"), Path(f"{stem}.md")
    page = build_page(data)
    for target, text in ((html, page_to_html(page)), (markdown, page_to_markdown(page))):
        with atomic_write(target) as f:
            f.write(text.encode("utf-8", "replace").decode("utf-8"))  # a model can emit half a character
    return html, markdown
