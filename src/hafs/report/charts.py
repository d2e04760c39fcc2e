"""Line charts as inline SVG: no script, colours from the page's style sheet (light, dark and print), text as
text.

A chart is drawn 360 units wide, about its size on the page, so that its labels stay readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from hafs.report.blocks import Lines, Series

__all__ = ["is_long", "line_chart", "parts_of", "smooth", "ticks", "tidy"]

WIDTH, HEIGHT = 360.0, 210.0
TOP, BOTTOM, LEFT = 14.0, 36.0, 46.0
_MOST_POINTS = 240
_SMOOTH_FROM = 40  # with fewer points a line is shown as it is
_CHARACTER = 6.1  # width of a label's character
_LINE = 13.0  # height of a label

Points = Sequence[tuple[float, float]]


def line_chart(chart: Lines) -> Markup:
    """The chart as an SVG element; every label is escaped."""
    right = 12 + _CHARACTER * max(len(s.label) for s in chart.series)
    xs = [x for s in chart.series for x, _ in s.points]
    y_ticks = ticks(*_extent(chart))
    scale = _Scale((min(xs), max(xs)), (y_ticks[0], y_ticks[-1]), right)
    parts = [_grid(chart, scale, y_ticks)]
    parts += [_mark(mark, scale, alone=len(chart.marks) == 1) for mark in chart.marks]
    parts += [_line(s, scale) for s in chart.series]
    parts.append(_labels(chart.series, scale))
    label = escape(f"{chart.title}: {chart.caption}")
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        f"{WIDTH:g}", f"{HEIGHT:g}", label, Markup("").join(parts)
    )


class _Scale:
    """From data to the drawing's units."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], right: float) -> None:
        self.x0, self.x1 = x if x[0] < x[1] else (x[0] - 0.5, x[1] + 0.5)
        self.y0, self.y1 = y
        self.right = WIDTH - right
        self.bottom = HEIGHT - BOTTOM

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x0) / (self.x1 - self.x0) * (self.right - LEFT), 1)

    def y(self, value: float) -> float:
        return round(self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.bottom - TOP), 1)


def _extent(chart: Lines) -> tuple[float, float]:
    ys = [y for s in chart.series for _, y in s.points]
    low, high = min(ys), max(ys)
    if chart.share:
        low, high = max(0.0, low), min(1.0, high)
    return low, high


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values that enclose [low, high], about `about` steps; a constant gets room on both sides."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - max(abs(low) * 0.1, 0.1), high + max(abs(high) * 0.1, 0.1)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _whole_ticks(low: float, high: float) -> list[float]:
    """Ticks for steps: whole numbers inside [low, high], and at least the ends."""
    inside = [t for t in ticks(low, high) if low <= t <= high and t == int(t)]
    return inside if len(inside) >= 2 else [low, high]


def tidy(value: float, share: bool = False) -> str:
    """A figure of a chart: three significant digits, percent for shares, a true minus sign."""
    if share:
        return f"{100 * value:.1f}%"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return ("0" if text in ("-0", "0") else text).replace("-", "−")


def _grid(chart: Lines, scale: _Scale, y_ticks: Sequence[float]) -> Markup:
    row = Markup(
        '<line class="rule" x1="{x0}" x2="{x1}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{tx}" y="{ty}" text-anchor="end">{label}</text>'
    )
    column = Markup('<text class="tick" x="{x}" y="{y}" text-anchor="middle">{label}</text>')
    parts = []
    for t in y_ticks:
        label = f"{100 * t:.4g}%" if chart.share else f"{t:g}".replace("-", "−")
        y = scale.y(t)
        parts.append(row.format(x0=LEFT, x1=scale.right, y=y, tx=LEFT - 6, ty=y + 4, label=label))
    for t in _whole_ticks(scale.x0, scale.x1):
        parts.append(column.format(x=scale.x(t), y=scale.bottom + 15, label=f"{t:g}"))
    middle = (LEFT + scale.right) / 2
    parts.append(column.format(x=middle, y=scale.bottom + 31, label=chart.x_label))
    return Markup("").join(parts)


def _mark(mark: tuple[float, str], scale: _Scale, alone: bool) -> Markup:
    """A dotted line with its label: on the side with more room when it stands alone, else after the line."""
    x = scale.x(mark[0])
    anchor = "end" if alone and x > (LEFT + scale.right) / 2 else "start"
    return Markup(
        '<line class="mark" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
        '<text class="tick" x="{tx}" y="{ty}" text-anchor="{anchor}">{label}</text>'
    ).format(
        x=x,
        top=TOP - 12,
        bottom=scale.bottom,
        tx=x + (-4 if anchor == "end" else 4),
        ty=TOP - 4,
        anchor=anchor,
        label=mark[1],
    )


def _line(s: Series, scale: _Scale) -> Markup:
    """The line; a long one is drawn faintly as it is and firmly as its running mean."""
    path = Markup('<polyline class="line {style}{faint}" points="{points}"/>')

    def draw(points: Points, faint: bool) -> Markup:
        joined = " ".join(f"{scale.x(x):g},{scale.y(y):g}" for x, y in points)
        return path.format(style=s.style, faint=" faint" if faint else "", points=joined)

    out = Markup("")
    for part in parts_of(s):
        if is_long(part):
            out += draw(_thin(part), faint=True)
        out += draw(_thin(smooth(part)), faint=False)
        if s.dots or len(part) == 1:
            dot = Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.6"/>')
            out += Markup("").join(dot.format(s.style, scale.x(x), scale.y(y)) for x, y in part)
    return out


def parts_of(s: Series) -> list[Points]:
    """The series cut at its breaks."""
    edges = [-math.inf, *s.breaks, math.inf]
    parts = [[p for p in s.points if a <= p[0] < b] for a, b in pairwise(edges)]
    return [part for part in parts if part]


def is_long(points: Points) -> bool:
    """The line is shown as its running mean: single steps of a long one are mostly noise."""
    return len(points) >= _SMOOTH_FROM


def smooth(points: Points) -> Points:
    """The line as shown: when long, each value averaged with its neighbours (a twentieth in all)."""
    if not is_long(points):
        return points
    half = max(1, len(points) // 40)
    out = []
    for i, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, i - half) : i + half + 1]]
        out.append((x, sum(near) / len(near)))
    return out


def _thin(points: Points) -> Points:
    """At most `_MOST_POINTS` points, evenly picked, ends kept."""
    n = len(points)
    if n <= _MOST_POINTS:
        return points
    return [points[round(i * (n - 1) / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def _labels(series: Sequence[Series], scale: _Scale) -> Markup:
    """Each line's name at its end, moved apart where they would overlap."""
    ends = []
    for s in series:
        ends.append((scale.y(smooth(parts_of(s)[-1])[-1][1]), s))
    ends.sort(key=lambda e: e[0])
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + _LINE) if places else y)
    spill = max(0.0, places[-1] - scale.bottom)
    text = Markup('<text class="name {}" x="{}" y="{}">{}</text>')
    return Markup("").join(
        text.format(s.style, scale.right + 6, round(y - spill + 4, 1), s.label)
        for y, (_, s) in zip(places, ends, strict=True)
    )
