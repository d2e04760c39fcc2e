"""Why one answer failed: a cause and, finer, an error signature, from what its checker said.

The checker's own cause comes first; the domain of the checker may know more of it. The same error in two prompts has
the same signature: addresses, numbers and names that belong to one prompt are taken out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hafs.evals.results import PromptResult
from hafs.tasks.domain import domains_of

__all__ = ["Why", "got_and_expected", "plain", "texts", "why"]

_FORMAT = {
    "no code": "no code in the answer",
    "no answer": "no number in the answer",
    "malformed": "the answer has another form",
}
_WITHOUT_CODE = ("no code", "no answer", "syntax error", "not named")
_LONGEST = 80  # characters of a signature taken from a message


@dataclass(frozen=True)
class Why:
    """A cause ("off by one") and the signature of the error inside it ("memory: one too high, on some inputs")."""

    cause: str
    signature: str


def why(r: PromptResult, token_limit: int | None = None) -> Why:
    """The cause and signature of a failed answer; `token_limit` is where answers of its evaluation were cut.

    Raises ValueError for an answer that did not fail.
    """
    if r.passed is not False:
        raise ValueError("only a failed answer has a cause")
    cause, _, kind = (r.cause or "not named").partition(": ")
    asked = domains_of(r.scorer)
    cut = token_limit is not None and r.n_tokens is not None and r.n_tokens >= token_limit
    if cut and (cause in _WITHOUT_CODE or any(d.builds(cause, {}) is False for d in asked)):
        return Why("format", "cut at the token limit")
    if cause in _FORMAT:
        return Why("format", _FORMAT[cause])
    for domain in asked:
        if known := domain.why(cause, r):
            return Why(*known)
    found = _message(r.details)
    return Why(cause, f"{kind}: {found}" if kind and found and found != kind else kind or found or "no detail")


def got_and_expected(r: PromptResult) -> tuple[str, str]:
    """What the first wrong result was and what it should have been, in words; empty where the checker named none."""
    d = r.details
    for key in ("got", "actual"):
        if key in d and "expected" in d:
            return str(d[key]), str(d["expected"])
    for domain in domains_of(r.scorer):
        if known := domain.expected(d):
            return known
    return "; ".join(texts(d.get("errors"))[:1]), ""


def _message(details: Any) -> str:
    """The checker's first error, without what belongs to one prompt."""
    for key in ("errors", "error", "message"):
        if found := texts(details.get(key)):
            return plain(found[0])
    return ""


def plain(text: str) -> str:
    """A message without line numbers, addresses, numbers, and quoted names longer than an instruction's."""
    first = (text.strip().splitlines() or [""])[0]
    first = re.sub(r"^line -?\d+: ", "", first)
    first = re.sub(r"""(['"`])([^'"`]*)\1""", lambda m: m[0] if re.fullmatch(r"[A-Za-z]{1,3}", m[2]) else "…", first)
    first = re.sub(r"\$[0-9A-Fa-f]+", "$…", first)
    if first.startswith(("flag ", "left flag ")):
        return first
    return re.sub(r"(?<![\w-])[+-]?\d+(?![\w-])", "N", first)[:_LONGEST]


def texts(value: Any) -> list[str]:
    if not value:
        return []
    return [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
