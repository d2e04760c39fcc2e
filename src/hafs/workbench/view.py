"""What a page of the workbench shows, apart from how: tables, charts, and the command that gives the same.

The terminal (`hafs open --show`), the page and its exports are made from one `View`, so they cannot differ.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hafs.store import Store, Workspace

if TYPE_CHECKING:
    from hafs.evals.tables import Table
    from hafs.report.blocks import Section

WIDEST = 60
"""Characters of a cell in a terminal; --json has the whole."""

Query = Mapping[str, str]
"""What stands behind the ? of a link."""


@dataclass(frozen=True)
class Sheet:
    """A table of finished words, as it is exported."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data: a row is an object by the header's words."""
        return {"title": self.title, "rows": [dict(zip(self.header, row, strict=True)) for row in self.rows]}


@dataclass(frozen=True)
class View:
    """One page: its name in the link, its title, a sentence, figures at its head, sections of report blocks, tables
    beside those of its blocks, and `values` for a template of its own. `command` gives the same in a terminal; `live`
    pages are shown anew when the workspace changes."""

    name: str
    title: str
    lead: str = ""
    figures: tuple[tuple[str, str, str], ...] = ()
    sections: tuple[Section, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    template: str = "view.html"
    live: bool = False
    command: str = ""

    def tables(self) -> list[Sheet]:
        """Every table of the page, those behind its charts included."""
        blocks = [b for section in self.sections for b in section.blocks]
        found = [t for b in blocks if (t := getattr(b, "table", None) or getattr(b, "figures", None)) is not None]
        return [*self.sheets, *map(_sheet, found)]

    def pictures(self) -> list[Any]:
        """Its charts."""
        blocks = [b for section in self.sections for b in section.blocks]
        return [b for b in blocks if b.kind in ("lines", "bars", "climb")]

    def to_dict(self) -> dict[str, Any]:
        """The page as plain JSON data."""
        figures = [{"figure": a, "value": b, "remark": c} for a, b, c in self.figures]
        tables = [t.to_dict() for t in self.tables()]
        return {"view": self.name, "title": self.title, "lead": self.lead, "figures": figures, "tables": tables}


@dataclass(frozen=True)
class OpenWorkspace:
    """The workspace that is looked at, its open store, and who looks."""

    space: Workspace
    store: Store
    who: str = ""

    @property
    def root(self) -> Path:
        """Where the workspace is."""
        return self.space.root


def _sheet(table: Table) -> Sheet:
    rows = tuple(tuple(f"{c.text} ({c.sub})" if c.sub else c.text for c in row) for row in table.rows)
    return Sheet(table.title, tuple(h or "name" for h in table.header), rows)


def to_csv(view: View) -> str:
    """Its tables as comma-separated lines, each under its title where there are several.

    A cell that a spreadsheet would take for a formula gets an apostrophe before it: texts come from models.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    tables = view.tables()
    for number, table in enumerate(tables):
        if len(tables) > 1:
            writer.writerows([[]] * bool(number) + [[table.title]])
        writer.writerow(table.header)
        writer.writerows([[f"'{c}" if c[:1] in "=+-@\t\r" and not _is_number(c) else c for c in r] for r in table.rows])
    return out.getvalue()


def called(model: str) -> str:
    """A model's short name: of what a training made, the training's (`…/models/dpo-1/model` is `dpo-1`)."""
    parts = Path(model).parts
    return parts[-2] if len(parts) > 1 and parts[-1] == "model" else model


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def to_text(view: View) -> str:
    """The page for a terminal."""
    lines = [view.title, *([view.lead] if view.lead else [])]
    lines += [f"{label}: {value} {remark}".rstrip() for label, value, remark in view.figures]
    for section in view.sections:
        lines.append(f"\n{section.title}")
        for block in section.blocks:
            lines += [str(getattr(block, "text", ""))] if block.kind == "text" else []
            lines += [f"{v.label}: {v.decided}. {v.reason}" for v in getattr(block, "verdicts", ())]
    for table in view.tables():
        rows = [[" ".join(cell.split())[:WIDEST] for cell in row] for row in (table.header, *table.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(table.header))]
        lines += ["", *([table.title] if table.title else [])]
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def bars(title: str, rows: list[tuple[str, float, str]], style: str = "new") -> Any:
    """A chart of bars from (name, length, words), with its table."""
    from hafs.evals.tables import Cell, Table
    from hafs.report.blocks import Bar, BarGroup, Bars

    most = max((n for _, n, _ in rows), default=0) or 1
    groups = tuple(BarGroup(name, (Bar(name, n / most, words, style),)) for name, n, words in rows)
    table = Table(title, ("What", "Count"), tuple((Cell(name), Cell(words)) for name, _, words in rows))
    return Bars(title, groups, (), table)


def grid(title: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], plain: bool = False) -> Any:
    """A table as a block."""
    from hafs.evals.tables import Cell, Table
    from hafs.report.blocks import Grid

    return Grid(Table(title, header, tuple(tuple(Cell(str(c)) for c in row) for row in rows), plain=plain))
