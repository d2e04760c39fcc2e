"""The page of `hafs failures`: why a model fails, one section a benchmark, in the look of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hafs.evals.failures import Cluster, Failed, FailureReport, cluster_table, family_table, lead
from hafs.evals.words import model_title, percent, title
from hafs.files.jsonl import atomic_write
from hafs.report.blocks import Bar, BarGroup, Bars, Block, Code, Figure, Grid, Key, Page, Section, Text
from hafs.report.html import page_to_html

__all__ = ["failures_page", "write_failures"]

_CLUSTERS = 8  # that get examples
_LONGEST = 6000  # characters of a prompt or answer that are shown


def write_failures(reports: Sequence[FailureReport], path: str | Path) -> Path:
    """Write the page of `reports` (one a benchmark, of one model) as one self-contained HTML file."""
    with atomic_write(path) as f:
        f.write(page_to_html(failures_page(reports)).encode("utf-8", "replace").decode("utf-8"))
    return Path(path)


def failures_page(reports: Sequence[FailureReport]) -> Page:
    """The page as blocks."""
    first = reports[0]
    against = f" against {model_title(first.before)}" if first.before else ""
    sections = [section for r in reports for section in _sections(r)]
    return Page(
        title=f"Why {model_title(first.name)} fails{against}",
        lead=" ".join(lead(r) for r in reports),
        verdict=None,
        reason="",
        figures=tuple(figure for r in reports for figure in _figures(r)),
        sections=tuple(sections),
    )


def _figures(r: FailureReport) -> list[Figure]:
    name = title(r.benchmark)
    share = percent(r.failed / r.scored if r.scored else None)
    out = [Figure(f"{name}: failed", share, f"{r.failed} of {r.scored}", "new")]
    if r.before:
        out.append(Figure("Mended / broken", f"{r.mended} / {r.broken}", f"of {r.shared} prompts scored for both"))
    return out


def _sections(r: FailureReport) -> list[Section]:
    name = title(r.benchmark)
    anchor = "".join(ch if ch.isalnum() else "-" for ch in r.benchmark.lower())
    if not r.clusters:
        return [Section(f"clusters-{anchor}", name, (Text(lead(r)),))]
    out = [
        Section(f"clusters-{anchor}", f"{name}: causes", (_bars(r), Grid(cluster_table(r)))),
        Section(f"families-{anchor}", f"{name}: families", (Grid(family_table(r)),)),
    ]
    examples = tuple(b for c in r.clusters[:_CLUSTERS] for b in _examples(c))
    if examples:
        out.append(Section(f"examples-{anchor}", f"{name}: examples", examples))
    return out


def _bars(r: FailureReport) -> Bars:
    """Failed answers by cause."""
    most = max(r.causes.values(), default=1)
    groups = tuple(
        BarGroup(cause, (Bar(model_title(r.name), n / most, str(n), "new"),), percent(n / r.scored))
        for cause, n in r.causes.items()
    )
    return Bars("Failed answers by cause", groups, (Key(model_title(r.name), "new"),), cluster_table(r))


def _examples(c: Cluster) -> list[Block]:
    out: list[Block] = []
    for e in c.examples[:1]:
        out.append(Text(f"{c.cause}: {c.signature} ({c.n})"))
        out.append(Code(_cut(e.prompt), f"Prompt{f' of {e.family}' if e.family else ''}"))
        out.append(Code(_cut(e.answer), f"Answer. {_outcome(e)}"))
    return out


def _outcome(e: Failed) -> str:
    return f"Got {e.got}" + (f", expected {e.expected}." if e.expected else ".") if e.got else "It failed."


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}\n… cut here; {len(text):,} characters in all"
