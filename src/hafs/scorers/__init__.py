"""Scorers: what says how good a candidate is. A scorer gives a value or says why there is none; it never
guesses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from hafs import registry
from hafs.types import Candidate, Prompt, Score

__all__ = ["Scorer", "open_scorer"]


class Scorer(Protocol):
    """What every scorer has. `arguments` hold what changes its results, so that a score can be made again."""

    name: str
    version: str
    arguments: Mapping[str, Any]

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in the order of the items."""
        ...

    def close(self) -> None:
        """Give back processes and files."""
        ...


def open_scorer(spec: str, **options: Any) -> Scorer:
    """Open the scorer registered under `spec` ("asm"). Raises UsageError when there is none."""
    scorer: Scorer = registry.load("scorers", spec)(**options)
    return scorer
