"""The pages of the workbench by name, and those that stand in its navigation."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from urllib.parse import parse_qsl

from hafs.errors import UsageError
from hafs.workbench import now, prompts
from hafs.workbench.view import OpenWorkspace, Query, View


def _late(module: str, name: str) -> Callable[[OpenWorkspace, Query], View]:
    """A view that is imported when it is first asked for: the first page comes sooner."""

    def made(bench: OpenWorkspace, query: Query) -> View:
        found: Callable[[OpenWorkspace, Query], View] = getattr(import_module(f"hafs.workbench.{module}"), name)
        return found(bench, query)

    return made


VIEWS: dict[str, Callable[[OpenWorkspace, Query], View]] = {
    "now": now.now,
    "prompts": prompts.prompts,
    "prompt": prompts.story,
    "models": _late("models", "models"),
    "compare": _late("models", "compared"),
    "try": _late("box", "box"),
    "data": _late("health", "health"),
    "loop": _late("rounds", "loop"),
    "judge": _late("judging", "judge"),
}
NAVIGATION = (
    ("now", "Now"),
    ("prompts", "Prompts"),
    ("models", "Models"),
    ("data", "Data"),
    ("loop", "Loop"),
    ("judge", "Judges"),
)


def view_of(bench: OpenWorkspace, link: str) -> View:
    """The view that a link names (`prompts?family=sum`). Raises UsageError where there is none of that name."""
    name, _, query = link.strip("/").partition("?")
    made = VIEWS.get(name)
    if made is None:
        raise UsageError(f"there is no page {name!r}", f"use one of: {', '.join(VIEWS)}")
    return made(bench, dict(parse_qsl(query)))
