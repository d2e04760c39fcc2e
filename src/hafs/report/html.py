"""The report as one HTML file: no script, no request, style inside, every text escaped by the template
engine.
"""

from __future__ import annotations

from functools import cache
from itertools import groupby
from operator import attrgetter

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template

from hafs.report.blocks import ReportPage
from hafs.report.charts import line_chart
from hafs.report.climb import climb_chart

__all__ = ["page_to_html"]

_kind = attrgetter("kind")


def page_to_html(page: ReportPage) -> str:
    """The page as a self-contained HTML document."""
    return _template().render(page=page)


@cache
def _template() -> Template:
    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("hafs.report", "templates"),
                PackageLoader("hafs.report", "static"),
                PackageLoader("hafs.annotate.web", "static"),  # the colours and types of every page
            ]
        ),
        autoescape=True,  # the texts come from models: they are hostile input
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["line_chart"] = line_chart
    environment.filters["climb_chart"] = climb_chart
    environment.filters["groupby_runs"] = lambda blocks: [(k, list(run)) for k, run in groupby(blocks, _kind)]
    environment.filters["pct"] = lambda share: f"{100 * share:.2f}%"
    return environment.get_template("report.html")
