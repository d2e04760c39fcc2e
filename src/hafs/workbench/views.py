"""The pages of the workbench by name, and those that stand in its navigation."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from urllib.parse import parse_qsl, urlencode

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

ENTRY = ("token",)
"""Of a link: what lets somebody in, and shows nothing."""


def view_at(bench: OpenWorkspace, link: str) -> View:
    """The view that a link names (`prompts?family=sum`). Raises UsageError where there is none of that name."""
    name, _, query = link.strip("/").partition("?")
    if name not in VIEWS:
        raise UsageError(f"there is no page {name!r}", f"use one of: {', '.join(VIEWS)}")
    return view_of(bench, name, dict(parse_qsl(query)))


def view_of(bench: OpenWorkspace, name: str, query: Query) -> View:
    """The view of that name, with the command that prints the same in a terminal."""
    given = urlencode({k: v for k, v in query.items() if v.strip() and k not in ENTRY})
    link = shlex.quote(f"{name}?{given}" if given else name)
    return replace(VIEWS[name](bench, dict(query)), command=f"hafs open --show {link}")
