"""A page's charts as one SVG file, with the style inside: it can be put into a paper or a message as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

import hafs.annotate.web
import hafs.report
from hafs.report.charts import HEIGHT, WIDTH, line_chart
from hafs.report.climb import climb_chart

_ROW, _GAP = 22, 46
_WIDE = 720


def picture(title: str, blocks: Sequence[Any]) -> str:
    """The charts below each other; an empty picture says that there are none."""
    parts, y = [], 40
    for block in blocks:
        drawn, height = _drawn(block)
        head = Markup('<text class="head" x="0" y="{}">{}</text>').format(y, block.title)
        parts.append(head + Markup('<g transform="translate(0 {})">{}</g>').format(y + 14, drawn))
        y += height + _GAP
    if not parts:
        parts = [Markup('<text x="0" y="40">This page has no picture.</text>')]
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 0 {} {}" role="img" aria-label="{}"><style>{}</style>'
            '<rect x="-16" y="0" width="100%" height="100%" fill="var(--paper)"/>{}</svg>'
        ).format(_WIDE + 32, max(y, 60), title, Markup(_style()), Markup("").join(parts))
    )


def _style() -> str:
    """The style of the charts, with the colours of every page."""
    design = Path(hafs.annotate.web.__file__).parent / "static" / "design.css"
    blocks = (Path(hafs.report.__file__).parent / "static" / "blocks.css").read_text(encoding="utf-8")
    kept = [line for line in blocks.splitlines() if line.startswith((".chart", ".climb", ".base", ".good"))]
    own = "text { font: 13px var(--sans); fill: var(--ink); } .head { font-weight: 600; } .bar { fill: var(--c); }"
    return "\n".join([design.read_text(encoding="utf-8").replace(":root", "svg"), own, *kept])


def _drawn(block: Any) -> tuple[Markup, int]:
    """A chart and its height."""
    if block.kind == "lines":
        return _placed(line_chart(block), _WIDE, int(HEIGHT * _WIDE / WIDTH)), int(HEIGHT * _WIDE / WIDTH)
    if block.kind == "climb":
        return _placed(climb_chart(block), _WIDE, 420), 420
    rows, y = [], 0
    row = Markup(
        '<text x="0" y="{}">{}</text><rect class="{} bar" x="230" y="{}" width="{}" height="12"/>'
        '<text x="{}" y="{}">{}</text>'
    )
    for group in block.groups:
        for bar in group.bars:
            width = round(bar.length * (_WIDE - 380), 1)
            rows.append(row.format(y + 14, group.label[:32], bar.style, y + 4, width, 238 + width, y + 14, bar.text))
            y += _ROW
    return Markup("").join(rows), y


def _placed(svg: Markup, width: int, height: int) -> Markup:
    """A chart inside another picture: it needs its size."""
    return Markup(str(svg).replace("<svg ", f'<svg width="{width}" height="{height}" ', 1))
