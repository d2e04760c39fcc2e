"""The pages of the workbench by name, and those that stand in its navigation."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from hafs.errors import UsageError
from hafs.workbench import now, prompts
from hafs.workbench.view import Bench, Query, View

VIEWS: dict[str, Callable[[Bench, Query], View]] = {"now": now.now, "prompts": prompts.prompts, "prompt": prompts.story}
NAVIGATION = (("now", "Now"), ("prompts", "Prompts"))


def view_of(bench: Bench, link: str) -> View:
    """The view that a link names (`prompts?family=sum`). Raises UsageError where there is none of that name."""
    name, _, query = link.strip("/").partition("?")
    made = VIEWS.get(name)
    if made is None:
        raise UsageError(f"there is no page {name!r}", f"use one of: {', '.join(VIEWS)}")
    return made(bench, dict(parse_qsl(query)))
