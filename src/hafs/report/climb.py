"""The chart of scores from model to model as inline SVG: intervals as whiskers, the path of the models that were kept,
and, dotted, the rounds that were rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from hafs.report.blocks import Climb, Rung, Track
from hafs.report.charts import ticks

__all__ = ["climb_chart"]

WIDTH, HEIGHT = 760.0, 330.0
TOP, BOTTOM, LEFT, RIGHT = 16.0, 52.0, 46.0, 60.0
_APART = 12.0  # between tracks at one model


def climb_chart(chart: Climb) -> Markup:
    """The chart as an SVG element; every label is escaped."""
    frame = _Frame(chart)
    parts = [_grid(chart, frame)]
    last = len(chart.tracks) - 1
    for i, track in enumerate(chart.tracks):
        side = -1 if i == 0 else 1 if i == last else 0
        parts.append(_track(track, chart.kept, frame, (i - last / 2) * _APART, side))
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return svg.format(f"{WIDTH:g}", f"{HEIGHT:g}", escape(chart.title), Markup("").join(parts))


class _Frame:
    """From models and shares to the drawing's units."""

    def __init__(self, chart: Climb) -> None:
        ends = [x for t in chart.tracks for r in t.rungs if r for x in (r.low, r.high)]
        ends += [t.target for t in chart.tracks if t.target is not None]
        found = ticks(min(ends, default=0.0), max(ends, default=1.0), about=5)
        self.ticks = [t for t in found if -1e-9 <= t <= 1 + 1e-9]
        self.low, self.high = self.ticks[0], self.ticks[-1]
        self.bottom = HEIGHT - BOTTOM
        self._n = len(chart.names)

    def x(self, i: int) -> float:
        step = (WIDTH - LEFT - RIGHT) / self._n
        return round(LEFT + step * (i + 0.5), 1)

    def y(self, share: float) -> float:
        inside = min(max(share, self.low), self.high)
        return round(self.bottom - (inside - self.low) / (self.high - self.low) * (self.bottom - TOP), 1)


def _grid(chart: Climb, frame: _Frame) -> Markup:
    row = Markup(
        '<line class="rule" x1="{x0}" x2="{x1}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{tx}" y="{ty}" text-anchor="end">{label}</text>'
    )
    parts = [
        row.format(x0=LEFT, x1=WIDTH - RIGHT, y=frame.y(t), tx=LEFT - 8, ty=frame.y(t) + 4, label=f"{100 * t:.4g}%")
        for t in frame.ticks
    ]
    name = Markup('<text class="{}" x="{}" y="{}" text-anchor="middle">{}</text>')
    for i, label in enumerate(chart.names):
        parts.append(name.format("model", frame.x(i), frame.bottom + 22, label))
        if not chart.kept[i]:
            parts.append(name.format("state bad", frame.x(i), frame.bottom + 38, "rolled back"))
    return Markup("").join(parts)


def _track(track: Track, kept: Sequence[bool], frame: _Frame, shift: float, side: int) -> Markup:
    """A benchmark's path. Its figures stand above on the left (`side` -1), below on the right (1), or nowhere (0)."""
    parts = [_target(track, frame)] if track.target is not None else []
    points = [(frame.x(i) + shift, frame.y(r.value), kept[i]) for i, r in enumerate(track.rungs) if r]
    path = [f"{x:g},{y:g}" for x, y, ok in points if ok]
    back = Markup('<polyline class="{} {}" points="{}"/>')
    last = ""
    for x, y, ok in points:
        if not ok and last:
            parts.append(back.format("back", track.style, f"{last} {x:g},{y:g}"))
        last = f"{x:g},{y:g}" if ok else last
    parts.append(back.format("path", track.style, " ".join(path)))
    parts += [_rung(r, track.style, frame, frame.x(i) + shift, kept[i], side) for i, r in enumerate(track.rungs) if r]
    return Markup("").join(parts)


def _rung(r: Rung, style: str, frame: _Frame, x: float, kept: bool, side: int) -> Markup:
    """A point with its whisker and, on a side, its figure."""
    whisker = Markup(
        '<path class="whisker {style}" d="M{x} {low}V{high}M{a} {low}H{b}M{a} {high}H{b}"/>'
        '<circle class="rung {style}{hollow}" cx="{x}" cy="{y}" r="4.6"/>'
    )
    value = Markup('<text class="value {}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')
    drawn = whisker.format(
        style=style,
        x=f"{x:g}",
        low=frame.y(r.low),
        high=frame.y(r.high),
        a=f"{x - 4:g}",
        b=f"{x + 4:g}",
        y=frame.y(r.value),
        hollow="" if kept else " hollow",
    )
    if not side:
        return drawn
    y = min(frame.y(r.value) + (13 if side > 0 else -5), frame.bottom - 5)
    at, anchor = (x + 9 * side, y), "start" if side > 0 else "end"
    return drawn + value.format(style, *at, anchor, f"{100 * r.value:.1f}%")


def _target(track: Track, frame: _Frame) -> Markup:
    assert track.target is not None
    y = frame.y(track.target)
    return Markup(
        '<line class="target {style}" x1="{x0}" x2="{x1}" y1="{y}" y2="{y}"/>'
        '<text class="tick" x="{x1}" y="{ty}" dx="6">target</text>'
    ).format(style=track.style, x0=LEFT, x1=WIDTH - RIGHT, y=y, ty=y + 4)
