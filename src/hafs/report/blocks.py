"""The parts a report page is built from; the HTML and the Markdown renderer each know how to show them all.

A block holds finished words and figures, so both renderings say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from hafs.evals.tables import Table
from hafs.report.data import Example

__all__ = [
    "Bar",
    "BarGroup",
    "Bars",
    "Block",
    "Climb",
    "Code",
    "Figure",
    "Forest",
    "Grid",
    "Key",
    "Lines",
    "ReportPage",
    "Rung",
    "Section",
    "Series",
    "ShownVerdict",
    "SideBySide",
    "Span",
    "Text",
    "Track",
    "Verdicts",
]


@dataclass(frozen=True)
class Text:
    """A paragraph; a `small` one is a remark."""

    text: str
    small: bool = False
    kind = "text"


@dataclass(frozen=True)
class Grid:
    """A table of figures."""

    table: Table
    kind = "grid"


@dataclass(frozen=True)
class Series:
    """A named line: (x, y) points in order; `style` is its colour class, `dots` marks single measurements.

    The line is cut before each x in `breaks`, where something new begins.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    style: str
    dots: bool = False
    breaks: tuple[float, ...] = ()


@dataclass(frozen=True)
class Lines:
    """A line chart. `y_label` names the unit, `marks` the steps to point out with their labels; `share` shows
    percent.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    caption: str
    figures: Table
    marks: tuple[tuple[float, str], ...] = ()
    share: bool = False
    kind = "lines"


@dataclass(frozen=True)
class Bar:
    """One bar: its length in [0, 1] of the track, what it says, and the interval on the same scale if it has
    one.
    """

    name: str
    length: float
    text: str
    style: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BarGroup:
    """The bars of one label, with a remark such as n."""

    label: str
    bars: tuple[Bar, ...]
    remark: str = ""


@dataclass(frozen=True)
class Key:
    """A colour and what it stands for."""

    name: str
    style: str


@dataclass(frozen=True)
class Bars:
    """Grouped bars with their key; `table` holds the same figures."""

    title: str
    groups: tuple[BarGroup, ...]
    keys: tuple[Key, ...]
    table: Table
    kind = "bars"


@dataclass(frozen=True)
class Span:
    """A point with its interval on a scale in [0, 1]."""

    label: str
    at: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Forest:
    """Differences with their intervals against a zero line at `zero`; `left` and `right` label the ends."""

    title: str
    spans: tuple[Span, ...]
    zero: float
    left: str
    right: str
    kind = "forest"


@dataclass(frozen=True)
class Rung:
    """One model's score with its interval, all shares in [0, 1]."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Track:
    """One benchmark's scores, one a model; None where a model has none. `style` is its colour class."""

    label: str
    style: str
    rungs: tuple[Rung | None, ...]
    target: float | None = None


@dataclass(frozen=True)
class Climb:
    """Scores from model to model. `names` are the models in order, `kept` whether each was (or still is) the best so
    far; the others were rolled back to the one before. `table` holds the same figures.
    """

    title: str
    names: tuple[str, ...]
    kept: tuple[bool, ...]
    tracks: tuple[Track, ...]
    table: Table
    kind = "climb"


@dataclass(frozen=True)
class ShownVerdict:
    """A decision: about what, what was decided (`style` is its colour class), why, and a remark."""

    label: str
    decided: str
    style: str
    reason: str
    remark: str = ""


@dataclass(frozen=True)
class Verdicts:
    """Decisions in their order."""

    verdicts: tuple[ShownVerdict, ...]
    kind = "verdicts"


@dataclass(frozen=True)
class SideBySide:
    """A prompt and two answers."""

    example: Example
    kind = "example"


@dataclass(frozen=True)
class Code:
    """Text to copy, as it is."""

    text: str
    caption: str = ""
    kind = "code"


Block = Text | Grid | Lines | Bars | Forest | Climb | Verdicts | SideBySide | Code


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `id` is its anchor."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Figure:
    """One of the figures below the summary."""

    label: str
    value: str
    sub: str = ""
    style: str = ""


@dataclass(frozen=True)
class ReportPage:
    """The whole report. `verdict` is (words, class) or None without a comparison."""

    title: str
    lead: str
    verdict: tuple[str, str] | None
    reason: str
    figures: tuple[Figure, ...]
    sections: tuple[Section, ...]
