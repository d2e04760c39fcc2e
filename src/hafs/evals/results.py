"""What one model reached on one benchmark: an answer for every prompt, and what the checker said of it.

A prompt without an answer, or whose answer could not be checked, stays in the list as unscored with the
reason: it never counts as failed, and `coverage` says how much of the benchmark the figures rest on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from hafs.errors import DataError
from hafs.judge.clients import judge_of
from hafs.scorers.run import JUDGED, NO_CHECKER, checker_of
from hafs.tasks.domain import domains_of
from hafs.types import Candidate, Prompt, Score

__all__ = ["MIN_COVERAGE", "EvalResult", "PromptResult", "eval_result", "parse", "without_score"]

T = TypeVar("T")

MIN_COVERAGE = 0.9
"""The share of prompts that must be scored before a pass rate decides anything."""


def without_score(prompt: Prompt) -> str:
    """Why an answer to the prompt has no score at all."""
    if judge_of(prompt.checker):
        return JUDGED
    return "the answer was not scored" if checker_of(prompt) else NO_CHECKER


@dataclass(frozen=True)
class PromptResult:
    """One prompt of a benchmark with the model's answer `text`, its length (tokens) and its check.

    `scorer` names the checker ("" in results of the first version). `passed` is None when there is nothing to count,
    with the `reason`. `key`, `tolerance`, `cause` and `details` are the score's; `value` is in [0, 1], or None when
    unscored.
    """

    prompt_id: str
    prompt: str = ""
    category: str = ""
    family: str = ""
    passed: bool | None = None
    reason: str = ""
    value: float | None = None
    text: str = ""
    key: tuple[float, ...] = ()
    tolerance: float = 0.0
    cause: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    n_tokens: int | None = None
    scorer: str = ""

    def __post_init__(self) -> None:
        if self.passed is None and not self.reason:
            raise ValueError("an unscored prompt needs a reason")

    @property
    def builds(self) -> bool | None:
        """Whether the answer became a program that could be run; None when unscored, or where that means nothing."""
        if self.passed is None:
            return None
        known = (d.builds(self.cause, self.details) for d in domains_of(self.scorer))
        return next((built for built in known if built is not None), None)


@dataclass(frozen=True)
class EvalResult:
    """One model on one benchmark: `name` is the model's role ("sft"), `model` its content hash.

    `seconds` is what the evaluation took; `decoding` records how the answers were made (temperature, seed,
    token limit).
    """

    name: str
    benchmark: str
    results: tuple[PromptResult, ...]
    model: str = ""
    model_path: str = ""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if len({r.prompt_id for r in self.results}) != len(self.results):
            raise DataError(
                f"{self.name} has two answers to one prompt of {self.benchmark}", "evaluate with one answer a prompt"
            )

    @property
    def passed(self) -> int:
        """How many prompts passed."""
        return sum(r.passed is True for r in self.results)

    @property
    def scored(self) -> int:
        """How many prompts have a pass or a fail."""
        return sum(r.passed is not None for r in self.results)

    @property
    def coverage(self) -> float:
        """The share of prompts that were scored, in [0, 1]; 0 for an empty benchmark."""
        return self.scored / len(self.results) if self.results else 0.0

    @property
    def mean_tokens(self) -> float | None:
        """The mean answer length in tokens; None where no length is known."""
        known = [r.n_tokens for r in self.results if r.n_tokens is not None]
        return sum(known) / len(known) if known else None

    def unscored(self) -> dict[str, int]:
        """How many prompts are unscored, by reason."""
        counts: dict[str, int] = {}
        for r in self.results:
            if r.passed is None:
                counts[r.reason] = counts.get(r.reason, 0) + 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `passed`, `scored` and `coverage` are for readers and ignored when read back."""
        counts = {"passed": self.passed, "scored": self.scored, "coverage": self.coverage}
        return {**asdict(self), **counts}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> EvalResult:
        """The inverse of `to_dict`; raises DataError naming what is wrong."""
        return parse(cls, row, "evaluation result")


def eval_result(
    name: str,
    model: str,
    model_path: str,
    benchmark: str,
    decoding: Mapping[str, Any],
    prompts: Sequence[Prompt],
    candidates: Iterable[Candidate],
    scores: Mapping[str, Score],
    *,
    seconds: float = 0.0,
) -> EvalResult:
    """Join a benchmark's prompts with their answers and the answers' `scores` (by candidate id).

    `model` is the content hash. Raises DataError when a prompt has more than one answer.
    """
    answers: dict[str, Candidate] = {}
    for candidate in candidates:
        if answers.setdefault(candidate.prompt_id, candidate).id != candidate.id:
            raise DataError(f"{name} has two answers to one prompt of {benchmark}", "evaluate with one answer a prompt")
    rows = []
    for prompt in prompts:
        answer = answers.get(prompt.id)
        rows.append(_row(prompt, answer, scores.get(answer.id) if answer else None))
    return EvalResult(name, benchmark, tuple(rows), model, model_path, decoding, seconds)


def parse(cls: type[T], row: Mapping[str, Any], what: str) -> T:
    """Build the dataclass `cls` (with those inside it) from JSON data; DataError names the wrong key."""
    try:
        return TypeAdapter(cls).validate_python(row)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(f"this is no {what}: {where}: {first['msg']}") from e


def _row(prompt: Prompt, answer: Candidate | None, score: Score | None) -> PromptResult:
    """One line of a result; whatever is missing becomes the reason it is unscored."""
    about: dict[str, Any] = {
        "prompt_id": prompt.id,
        "prompt": prompt.text,
        "category": prompt.category,
        "family": prompt.family,
        "text": answer.text if answer else "",
        "n_tokens": answer.n_tokens if answer else None,
    }
    if answer is None:
        return PromptResult(**about, reason="no answer was generated")
    if score is None:
        return PromptResult(**about, reason=without_score(prompt))
    if score.value is None:
        return PromptResult(**about, scorer=score.scorer, reason=score.reason, cause=score.cause, details=score.details)
    return PromptResult(
        **about,
        scorer=score.scorer,
        passed=score.passed,
        reason="" if score.passed is not None else f"{score.scorer} gives no pass or fail",
        value=score.value,
        key=score.key,
        tolerance=score.tolerance,
        cause=score.cause,
        details=score.details,
    )
