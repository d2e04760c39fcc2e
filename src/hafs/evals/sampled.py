"""What a model reaches when it may try several times: sampled answers to each prompt, and pass@k from them.

pass@k of a prompt is the unbiased estimate of Chen et al. (2021) from the answers that were scored; of a benchmark it
is the mean over prompts, with Wilson's interval at the effective number of prompts. A prompt with fewer than k scored
answers has no pass@k: it is left out and counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hafs.errors import UsageError
from hafs.evals.results import parse, without_score
from hafs.evals.tables import Cell, Table
from hafs.evals.words import interval, model_title, percent, points, title
from hafs.statistics import Estimate, paired_bootstrap, paired_difference, pass_at_k, wilson_mean
from hafs.types import Candidate, Prompt, Score

__all__ = ["SampledPrompt", "SampledResult", "sampled_result", "sampled_table"]


@dataclass(frozen=True)
class SampledPrompt:
    """A prompt with how many of its answers were scored, passed and unscored (by reason)."""

    prompt_id: str
    category: str
    family: str
    n: int
    passed: int
    unscored: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class SampledResult:
    """One model's sampled answers to one benchmark; `decoding` says how they were sampled (temperature, number, seed).

    `model` is the content hash, `name` what the model is called in a comparison.
    """

    name: str
    benchmark: str
    results: tuple[SampledPrompt, ...]
    model: str = ""
    model_path: str = ""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def samples(self) -> int:
        """Answers asked of each prompt."""
        return int(self.decoding.get("candidates", 1))

    def by_prompt(self, k: int) -> dict[str, float]:
        """pass@k of every prompt that has at least k scored answers, by prompt id."""
        return {r.prompt_id: pass_at_k(r.n, r.passed, k) for r in self.results if r.n >= k}

    def pass_at(self, k: int, level: float = 0.95) -> Estimate:
        """pass@k over the prompts, in [0, 1]; `n` is how many prompts have k scored answers."""
        if k > self.samples:
            raise UsageError(
                f"pass@{k} needs at least {k} answers a prompt, here are {self.samples}", "raise --samples or lower --k"
            )
        return wilson_mean(list(self.by_prompt(k).values()), level)

    def unscored(self) -> dict[str, int]:
        """How many answers are unscored, by reason."""
        counts: dict[str, int] = defaultdict(int)
        for r in self.results:
            for reason, n in r.unscored.items():
                counts[reason] += n
        return dict(counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> SampledResult:
        """The inverse of `to_dict`; raises DataError naming what is wrong."""
        return parse(cls, row, "sampled evaluation result")


def sampled_result(
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
) -> SampledResult:
    """Join prompts with their sampled answers and the answers' scores (by candidate id)."""
    answers: dict[str, list[Candidate]] = defaultdict(list)
    for c in candidates:
        answers[c.prompt_id].append(c)
    rows = []
    for p in prompts:
        unscored: dict[str, int] = defaultdict(int)
        n = passed = 0
        for c in answers[p.id]:
            score = scores.get(c.id)
            if score is None or score.passed is None:
                unscored[(score.reason if score else "") or without_score(p)] += 1
            else:
                n, passed = n + 1, passed + score.passed
        rows.append(SampledPrompt(p.id, p.category, p.family, n, passed, dict(unscored)))
    return SampledResult(name, benchmark, tuple(rows), model, model_path, decoding, seconds)


def sampled_table(
    results: Mapping[str, Sequence[SampledResult]], ks: Sequence[int], reference: str = "", level: float = 0.95
) -> Table:
    """A row for each benchmark and k, a column for each model: pass@k with its interval.

    A model other than `reference` also gets its change in points, paired by prompt.
    """
    found = {name: {r.benchmark: r for r in rows} for name, rows in results.items()}
    benchmarks = dict.fromkeys(b for rows in found.values() for b in rows)
    rows = [
        (
            Cell(f"{title(b)}, pass@{k}"),
            *(_cell(found[m].get(b), found.get(reference, {}).get(b), k, level) for m in found),
        )
        for b in benchmarks
        for k in ks
        if any(b in found[m] and k <= found[m][b].samples for m in found)
    ]
    return Table("Sampled answers", ("Metric", *map(model_title, found)), tuple(rows))


def _cell(result: SampledResult | None, reference: SampledResult | None, k: int, level: float) -> Cell:
    if result is None or k > result.samples:
        return Cell("-")
    e = result.pass_at(k, level)
    if e.value is None:
        return Cell("-", "too few scored answers")
    sub = f"{interval(e)}, n={e.n}"
    if reference is not None and reference is not result and k <= reference.samples:
        change = paired_change(result, reference, k, level)
        if change.value is not None:
            sub += f"; {points(change.value)} ({interval(change, change=True)})"
    return Cell(percent(e.value), sub)


def paired_change(
    new: SampledResult, old: SampledResult, k: int, level: float = 0.95, *, draws: int = 4000
) -> Estimate:
    """The change of pass@k from `old` to `new` over the prompts that have it in both.

    Where every prompt's pass@k is 0 or 1, as for k of all answers, it is that of passes (Tango's interval); else it is
    resampled by prompt, `draws` times.
    """
    ours, theirs = new.by_prompt(k), old.by_prompt(k)
    pairs = [(ours[p], theirs[p]) for p in theirs if p in ours]
    if {x for pair in pairs for x in pair} <= {0.0, 1.0}:
        return paired_difference(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)), len(pairs), level)
    return paired_bootstrap([a for a, _ in pairs], [b for _, b in pairs], level=level, draws=draws)
