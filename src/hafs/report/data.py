"""What a report is made from: plain data, so that it can be saved as JSON and rendered again.

Everything but the title is optional; a section without data is left out. The helpers take evaluation results
and give the parts that need them: failures by cause, and prompts on which two models differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hafs.evals.compare import Comparison, Pair, pair_up, winner
from hafs.evals.results import EvalResult, PromptResult, parse
from hafs.evals.tables import Table
from hafs.evals.words import model_title, title


@dataclass(frozen=True)
class Training:
    """One training run's log: rows with a "step" and metrics under TRL's names, validation ones under
    "eval/".

    `kept` is the step whose weights were kept, `note` a warning or remark to print below the curves.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    kept: int | None = None
    note: str = ""


@dataclass(frozen=True)
class PairSource:
    """Where preference edges came from (`source`, such as "asm@1"): how many groups and edges."""

    source: str
    groups: int
    edges: int


@dataclass(frozen=True)
class Pairs:
    """The preference data: its sources, and prompts that made no group, by reason."""

    sources: tuple[PairSource, ...]
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FailureCause:
    """How many answers failed for one cause, before and after training."""

    cause: str
    before: int
    after: int


@dataclass(frozen=True)
class Failures:
    """Failed answers by cause for two models, over the `prompts` scored for both."""

    before: str
    after: str
    prompts: int
    causes: tuple[FailureCause, ...]


@dataclass(frozen=True)
class ShownAnswer:
    """One model's answer and what the checker said of it, in words."""

    model: str
    text: str
    passed: bool | None
    said: str


@dataclass(frozen=True)
class Example:
    """A prompt on which two models differ."""

    prompt: str
    before: ShownAnswer
    after: ShownAnswer
    benchmark: str = ""
    category: str = ""


@dataclass(frozen=True)
class Stage:
    """A stage of the run and the seconds it took."""

    name: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Rerun:
    """What it takes to run it again: commands, the configuration file, facts (seeds, hashes, versions)."""

    commands: tuple[str, ...] = ()
    config: str = ""
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """A whole report. `summary` opens it; without one the comparison's own sentence does. `sampled` is the table of
    pass@k."""

    title: str
    summary: str = ""
    comparison: Comparison | None = None
    sampled: Table | None = None
    training: tuple[Training, ...] = ()
    pairs: Pairs | None = None
    failures: Failures | None = None
    examples: tuple[Example, ...] = ()
    stages: tuple[Stage, ...] = ()
    rerun: Rerun | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "comparison": self.comparison.to_dict() if self.comparison else None}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> ReportData:
        """The inverse of `to_dict`; raises DataError naming what is wrong."""
        return parse(cls, row, "report")


def failures_by_cause(before: Sequence[EvalResult], after: Sequence[EvalResult], at_most: int = 12) -> Failures | None:
    """Failed answers by cause over the prompts scored for both, the most frequent before first.

    `before` and `after` hold one result a benchmark. Causes past `at_most` are summed under "other causes".
    None when there is nothing scored for both.
    """
    pairs = _pairs(before, after)
    if not pairs:
        return None
    old = Counter(b.cause or "not named" for _, _, b in pairs if not b.passed)
    new = Counter(a.cause or "not named" for _, a, _ in pairs if not a.passed)
    order = sorted(old | new, key=lambda cause: (-old[cause], -new[cause], cause))
    causes = [FailureCause(cause, old[cause], new[cause]) for cause in order[:at_most]]
    rest = order[at_most:]
    if rest:
        causes.append(FailureCause("other causes", sum(old[c] for c in rest), sum(new[c] for c in rest)))
    return Failures(before[0].name, after[0].name, len(pairs), tuple(causes))


def differing_examples(
    before: Sequence[EvalResult], after: Sequence[EvalResult], limit: int = 6
) -> tuple[Example, ...]:
    """Prompts on which two models differ: half gained, half lost (as far as there are any), over many
    categories.

    Prompts that only differ in efficiency fill up what is left. The choice depends on the data alone.
    """
    pairs = _pairs(before, after)
    gained = _spread(p for p in pairs if p[1].passed and not p[2].passed)
    lost = _spread(p for p in pairs if p[2].passed and not p[1].passed)
    other = _spread(p for p in pairs if p[1].passed == p[2].passed and winner(p[1], p[2]) != 0)
    n_lost = min(len(lost), max(limit // 2, limit - len(gained)))
    chosen = [*gained[: limit - n_lost], *lost[:n_lost]]
    chosen += other[: limit - len(chosen)]
    return tuple(
        Example(
            prompt=b.prompt,
            before=_answer(before[0].name, b),
            after=_answer(after[0].name, a),
            benchmark=title(benchmark),
            category=b.category,
        )
        for benchmark, a, b in chosen
    )


def said(r: PromptResult) -> str:
    """What the checker said of an answer, in words: passed with its size and speed, or the cause and
    evidence.
    """
    if r.passed is None:
        return f"unscored: {r.reason}"
    d = r.details
    if r.passed:
        figures = [f"{d[unit]} {unit}" for unit in ("bytes", "clocks") if d.get(unit) is not None]
        return "passed" + (f": {', '.join(figures)}" if figures else "")
    evidence = []
    if d.get("total"):
        evidence.append(f"{d.get('correct', 0)} of {d['total']} inputs right")
    evidence += [str(e) for e in _listed(d.get("errors"))[:2]] or [str(e) for e in _listed(d.get("clobbers"))[:2]]
    return f"failed: {r.cause or 'no cause given'}" + (f" ({'; '.join(evidence)})" if evidence else "")


def _listed(value: Any) -> list[Any]:
    return [] if not value else list(value) if isinstance(value, list | tuple) else [value]


def _answer(name: str, r: PromptResult) -> ShownAnswer:
    return ShownAnswer(model_title(name), r.text, r.passed, said(r))


def _pairs(before: Sequence[EvalResult], after: Sequence[EvalResult]) -> list[tuple[str, PromptResult, PromptResult]]:
    """(benchmark, after, before) for every prompt scored for both."""
    new = {r.benchmark: r for r in after}
    out = []
    for old in before:
        shared: list[Pair] = pair_up(new[old.benchmark], old)[0] if old.benchmark in new else []
        out += [(old.benchmark, a, b) for a, b in shared]
    return out


def _spread(pairs: Iterable[tuple[str, PromptResult, PromptResult]]) -> list[tuple[str, PromptResult, PromptResult]]:
    """Reordered so that the categories take turns."""
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for pair in pairs:
        category = (pair[0], pair[2].category)
        ranked.append((turns[category], pair))
        turns[category] += 1
    return [pair for _, pair in sorted(ranked, key=lambda x: x[0])]
