"""The scorer `exact`: is the answer, but for case, spaces and punctuation around it, one of the prompt's references?

It is what checks a prompt of your own that names no checker but has reference answers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hafs.types import Candidate, Prompt, Score

__all__ = ["ExactScorer", "normalised"]

_EDGES = " \t\n\"'`.,;:!?()[]{}"
_RAISED = re.compile("([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f\u2189])")
"""Digits above or below the line and fractions: NFKC makes "10²" what "102" is."""


def normalised(text: str) -> str:
    """`text` in Unicode NFKC, without case, with single spaces, and without quotes and punctuation at its ends.

    Punctuation inside stays: "1.5" and "15" are different answers, and so are ".5", "5" and "5!", "10²" and "102".
    """
    parts = _RAISED.split(text)
    parts[::2] = (unicodedata.normalize("NFKC", part) for part in parts[::2])
    whole = re.sub(r"\s+", " ", "".join(parts).casefold())
    bare = whole.strip(_EDGES)
    before, _, after = whole.partition(bare) if bare else ("", "", "")
    if bare[:1].isdigit() and before.endswith((".", ",")):
        bare = before[-1] + bare
    if bare[-1:].isdigit():
        bare += "!" * (len(after) - len(after.lstrip("!")))
    return bare


class ExactScorer:
    """1 for an answer that equals a reference after normalisation, else 0; unscored where there is no reference."""

    name = "exact"
    version = "2"

    def __init__(self, **_: Any) -> None:
        """Takes and ignores the options of other scorers (workers, sandbox): it runs nothing."""
        self.arguments: Mapping[str, Any] = {}

    def score(self, items: Sequence[tuple[Prompt, Candidate]]) -> Iterator[Score]:
        """One score per item, in order."""
        for prompt, candidate in items:
            yield self._score(prompt, candidate)

    def close(self) -> None:
        """Nothing to give back."""

    def _score(self, prompt: Prompt, candidate: Candidate) -> Score:
        wanted = {normalised(r.text): r.text for r in prompt.references}
        if not wanted:
            return Score(candidate.id, self.name, self.version, reason="the prompt has no reference answer")
        got = normalised(candidate.text)
        right = got in wanted
        cause = "" if right else "no answer" if not got else "another answer"
        details = {} if right else {"got": candidate.text[:200], "expected": next(iter(wanted.values()))[:200]}
        return Score(
            candidate.id,
            self.name,
            self.version,
            value=float(right),
            key=(float(right),),
            passed=right,
            cause=cause,
            details=details,
        )
