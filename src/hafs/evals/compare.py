"""Is one model better than another? Answers are paired by prompt; the result says what this size can show.

`compare` takes evaluation results of several models over the same benchmarks and gives rates with intervals,
the paired difference of each model from the reference, wins, ties and losses by prompt, and a decision in
words.

A prompt counts in a pair only when both answers were scored; the others are left out and counted. A model
wins a prompt when its score key is higher by more than the tolerance: correctness first, then efficiency. The
verdict goes by the interval of the paired difference over all benchmarks: above zero is "better", below zero
is "worse", and anything else is "not distinguishable" at this size.

A model is promoted when all of these hold:
- at least `min_coverage` of the prompts were scored for both models;
- its share of answers that build (assemble) has not fallen (the interval of the paired change is not below zero): a
  model that breaks its answers is the failure that training curves hide;
- no single benchmark got worse (interval below zero);
- it is another model than the reference: training that kept its start has made none;
- it passes at least as many of the shared prompts as the reference. That is "at least as good", not "proven
  better": `strict=True` also asks that the interval be above zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from hafs.errors import UsageError
from hafs.evals.results import MIN_COVERAGE, EvalResult, PromptResult, parse
from hafs.evals.words import interval, model_title, p_value, percent, points, title
from hafs.statistics import (
    Estimate,
    holm,
    mcnemar,
    minimum_detectable_difference,
    paired_bootstrap,
    paired_difference,
    wilson,
)
from hafs.tasks.domain import build_verb

__all__ = ["Benchmark", "Comparison", "Decision", "Paired", "Wins", "compare", "pair_up", "same_models", "winner"]

METHODS = (
    "Pass rates, pass@k, win rates and preferences have Wilson intervals, paired differences Tango's score interval,"
    " lengths and changes of pass@k a bootstrap over prompts. Unscored prompts are left out of every figure and never"
    " count as failed."
)
Verdict = Literal["better", "worse", "not distinguishable"]
Pair = tuple[PromptResult, PromptResult]


@dataclass(frozen=True)
class Wins:
    """Wins, ties and losses by prompt; `rate` is the wins' share of the decided prompts (Wilson interval)."""

    wins: int
    ties: int
    losses: int
    rate: Estimate


@dataclass(frozen=True)
class Paired:
    """One model against the reference on the prompts scored for both.

    `difference` is the change of the pass rate, `p` McNemar's exact p, `gained` and `lost` the prompts that
    only one of the two passes. `by_score` goes by the score key, `by_pass` by pass or fail alone. `builds` is
    the change of the share of answers that build (None where that means nothing), `tokens` that of the mean answer
    length (tokens).
    `detectable` is the true difference that this many prompts would show four times in five. `left_out`
    prompts were not scored for both.
    """

    model: str
    reference: str
    rate: Estimate
    reference_rate: Estimate
    difference: Estimate
    p: float
    by_score: Wins
    by_pass: Wins
    builds: Estimate
    tokens: Estimate
    detectable: float | None
    left_out: int

    @property
    def gained(self) -> int:
        return self.by_pass.wins

    @property
    def lost(self) -> int:
        return self.by_pass.losses

    @property
    def verdict(self) -> Verdict:
        """What the interval of the difference says."""
        if self.difference.above_zero:
            return "better"
        return "worse" if self.difference.below_zero else "not distinguishable"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: pass rates by model, overall and by category, and each model against the reference.

    `unscored` gives for each model how many prompts have no pass or fail, by reason.
    """

    name: str
    title: str
    prompts: int
    rates: dict[str, Estimate]
    categories: dict[str, dict[str, Estimate]]
    unscored: dict[str, dict[str, int]]
    against: dict[str, Paired]


@dataclass(frozen=True)
class Decision:
    """What to do with one model: verdict, a sentence with the figures, whether to promote it, and why."""

    model: str
    verdict: Verdict
    promote: bool
    sentence: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Several models on the same benchmarks. `overall` pools the benchmarks; `decisions` has one entry a
    candidate.

    Candidates are the models named after the reference (or, when it is the last, those before it); the
    shortcuts `verdict`, `promote`, `sentence` and `reason` speak of the last candidate. A model under two names has one
    column, in `models`; `same` maps its other names to that of the column.
    """

    reference: str
    models: tuple[str, ...]
    candidates: tuple[str, ...]
    level: float
    benchmarks: tuple[Benchmark, ...]
    overall: dict[str, Paired]
    decisions: dict[str, Decision]
    human: dict[str, Estimate] = field(default_factory=dict)
    judged: dict[str, Estimate] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def candidate(self) -> str:
        return self.candidates[-1]

    @property
    def decision(self) -> Decision:
        return self.decisions[self.candidate]

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict

    @property
    def promote(self) -> bool:
        return self.decision.promote

    @property
    def sentence(self) -> str:
        return self.decision.sentence

    @property
    def reason(self) -> str:
        return self.decision.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, opening with the last candidate's decision."""
        return {"candidate": self.candidate, **asdict(self.decision), **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Comparison:
        """The inverse of `to_dict`; raises DataError naming what is wrong."""
        return parse(cls, row, "comparison")


def compare(
    results: Mapping[str, Sequence[EvalResult]],
    reference: str = "sft",
    *,
    human: Mapping[str, tuple[int, int]] | None = None,
    judged: Mapping[str, Estimate] | None = None,
    level: float = 0.95,
    strict: bool = False,
    min_coverage: float = MIN_COVERAGE,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare models on the benchmarks that the reference was evaluated on.

    `results` maps model names, in the order of the table's columns, to one result a benchmark. `human` maps
    names to (prompts won, prompts decided), `judged` to a judge's win rate over the reference, `notes` are
    remarks to print with the table. For `strict` and `min_coverage` see the module's text on promotion. Raises
    UsageError when the reference or a candidate is missing, or a model lacks a benchmark.
    """
    tables = _by_benchmark(results, reference)
    order = list(results)
    after = order[order.index(reference) + 1 :]
    candidates = tuple(after or order[: order.index(reference)])
    others = [name for name in order if name != reference]
    benchmarks = tuple(_benchmark(name, row, reference, level) for name, row in tables.items())
    overall = {}
    for name in others:
        pairs, left_out = _pooled((row[name], row[reference]) for row in tables.values())
        overall[name] = _paired(name, reference, pairs, left_out, level)
    same = same_models({name: rows[0].model for name, rows in results.items() if rows}, reference)
    decisions = {
        name: _unchanged(name, reference)
        if same.get(name) == reference
        else _decide(overall[name], [b.against[name] for b in benchmarks], benchmarks, strict, min_coverage)
        for name in candidates
    }
    return Comparison(
        reference=reference,
        models=tuple(name for name in order if name not in same),
        candidates=candidates,
        level=level,
        benchmarks=benchmarks,
        overall=overall,
        decisions=decisions,
        human={name: wilson(won, n, level) for name, (won, n) in (human or {}).items()},
        judged=dict(judged or {}),
        same=same,
        notes=(
            *_same_notes(same, reference),
            *_decoding_notes(tables),
            *_many_notes(benchmarks, [name for name in candidates if name not in same], level),
            *notes,
            METHODS,
        ),
    )


def same_models(models: Mapping[str, str], reference: str) -> dict[str, str]:
    """The names of models that are there under another name already: name -> that name; equal hashes are one model.

    `models` maps names to content hashes. The reference keeps its name, of others the first one.
    """
    first = {models[reference]: reference} if models.get(reference) else {}
    found = {}
    for name, hash in models.items():
        if hash and first.setdefault(hash, name) != name:
            found[name] = first[hash]
    return found


def pair_up(new: EvalResult, old: EvalResult) -> tuple[list[Pair], int]:
    """(new, old) for every prompt scored for both, in the reference's order, and how many were left out."""
    ours = {r.prompt_id: r for r in new.results}
    pairs = [
        (ours[r.prompt_id], r)
        for r in old.results
        if r.passed is not None and r.prompt_id in ours and ours[r.prompt_id].passed is not None
    ]
    everything = ours.keys() | {r.prompt_id for r in old.results}
    return pairs, len(everything) - len(pairs)


def _pooled(results: Iterable[tuple[EvalResult, EvalResult]]) -> tuple[list[Pair], int]:
    """`pair_up` over several benchmarks, where a prompt that is in two of them counts once: for its first pair."""
    pairs: dict[str, Pair] = {}
    everything: set[str] = set()
    for new, old in results:
        for pair in pair_up(new, old)[0]:
            pairs.setdefault(pair[1].prompt_id, pair)
        everything |= {r.prompt_id for r in (*new.results, *old.results)}
    return list(pairs.values()), len(everything) - len(pairs)


def winner(new: PromptResult, old: PromptResult) -> int:
    """1 when `new` is better, -1 when `old` is, 0 for a tie.

    Keys are compared part by part, higher first; when only the last parts differ, and by no more than the
    larger tolerance, it is a tie. Without keys the values decide.
    """
    a, b = new.key, old.key
    if not a or not b:
        a, b = (new.value or 0.0,), (old.value or 0.0,)
    near = len(a) == len(b) and a[:-1] == b[:-1] and abs(a[-1] - b[-1]) <= max(new.tolerance, old.tolerance)
    return 0 if near else (a > b) - (a < b)


def _by_benchmark(results: Mapping[str, Sequence[EvalResult]], reference: str) -> dict[str, dict[str, EvalResult]]:
    """{benchmark: {model: result}} in the reference's order of benchmarks."""
    if reference not in results:
        raise UsageError(
            f"there is no result of the reference {reference!r}",
            f"evaluate it, or name one of: {', '.join(results) or 'none yet'}",
        )
    if len(results) < 2:
        raise UsageError(f"there is nothing to compare {reference} with", "name at least two evaluated models")
    known = {r.benchmark: r for r in results[reference]}
    tables: dict[str, dict[str, EvalResult]] = {benchmark: {} for benchmark in known}
    for name, rows in results.items():
        found = {r.benchmark: r for r in rows}
        for benchmark, table in tables.items():
            if benchmark not in found:
                raise UsageError(f"{name} was not evaluated on {benchmark}", f"run hafs eval for {name} first")
            table[name] = found[benchmark]
            if not _prompts(found[benchmark]) & _prompts(known[benchmark]):
                raise UsageError(
                    f"{name} and {reference} answered different prompts under the name {benchmark}",
                    "evaluate both on the same file; files of other prompts need other names",
                )
    return tables


def _prompts(result: EvalResult) -> set[str]:
    return {r.prompt_id for r in result.results}


def _benchmark(name: str, row: Mapping[str, EvalResult], reference: str, level: float) -> Benchmark:
    categories: dict[str, dict[str, Estimate]] = {}
    for category in dict.fromkeys(r.category for r in row[reference].results if r.category):
        categories[category] = {
            m: _rate([r for r in result.results if r.category == category], level) for m, result in row.items()
        }
    against = {}
    for model, result in row.items():
        if model != reference:
            pairs, left_out = pair_up(result, row[reference])
            against[model] = _paired(model, reference, pairs, left_out, level)
    return Benchmark(
        name=name,
        title=title(name),
        prompts=len(row[reference].results),
        rates={m: _rate(result.results, level) for m, result in row.items()},
        categories=categories,
        unscored={m: result.unscored() for m, result in row.items()},
        against=against,
    )


def _rate(rows: Sequence[PromptResult], level: float) -> Estimate:
    scored = [r.passed for r in rows if r.passed is not None]
    return wilson(sum(scored), len(scored), level)


def _paired(model: str, reference: str, pairs: Sequence[Pair], left_out: int, level: float) -> Paired:
    n = len(pairs)
    by_pass = _wins([int(bool(a.passed)) - int(bool(b.passed)) for a, b in pairs], level)
    built = [int(a.builds) - int(b.builds) for a, b in pairs if a.builds is not None and b.builds is not None]
    counted = [(a.n_tokens, b.n_tokens) for a, b in pairs if a.n_tokens is not None and b.n_tokens is not None]
    changed = (by_pass.wins + by_pass.losses) / n if n else 0.0
    return Paired(
        model=model,
        reference=reference,
        rate=_rate([a for a, _ in pairs], level),
        reference_rate=_rate([b for _, b in pairs], level),
        difference=paired_difference(by_pass.wins, by_pass.losses, n, level),
        p=mcnemar(by_pass.wins, by_pass.losses),
        by_score=_wins([winner(a, b) for a, b in pairs], level),
        by_pass=by_pass,
        builds=paired_difference(built.count(1), built.count(-1), len(built), level),
        tokens=paired_bootstrap([a for a, _ in counted], [b for _, b in counted], level=level),
        detectable=minimum_detectable_difference(n, changed, level=level) if n else None,
        left_out=left_out,
    )


def _wins(signs: Sequence[int], level: float) -> Wins:
    wins, losses = signs.count(1), signs.count(-1)
    return Wins(wins, signs.count(0), losses, wilson(wins, wins + losses, level))


def _decide(
    overall: Paired, each: Sequence[Paired], benchmarks: Sequence[Benchmark], strict: bool, min_coverage: float
) -> Decision:
    promote, reason = _promotion(overall, each, benchmarks, strict, min_coverage)
    return Decision(overall.model, overall.verdict, promote, _sentence(overall, len(benchmarks)), reason)


def _unchanged(name: str, reference: str) -> Decision:
    new, old = model_title(name), model_title(reference)
    said = f"{new} kept the {old} model: nothing was learnt that validation could see."
    return Decision(name, "not distinguishable", False, said, f"{new} and {old} are one model, so {old} is kept.")


def _same_notes(same: Mapping[str, str], reference: str) -> list[str]:
    """Name the models that have no column of their own."""
    return [
        f"{model_title(name)} and {model_title(column)} are one model (equal hashes), so they have one column."
        for name, column in same.items()
        if column != reference
    ]


def _promotion(
    overall: Paired, each: Sequence[Paired], benchmarks: Sequence[Benchmark], strict: bool, min_coverage: float
) -> tuple[bool, str]:
    """Whether to promote, and the first rule that decided it, in words."""
    new, old = model_title(overall.model), model_title(overall.reference)
    n, total = overall.difference.n, overall.difference.n + overall.left_out
    if n == 0:
        return False, f"No prompt was scored for both, so {old} is kept."
    if n < min_coverage * total:
        return (False, f"Only {n} of {total} prompts were scored for both, too few to decide, so {old} is kept.")
    if overall.builds.below_zero:
        change = points(overall.builds.value)
        return False, f"Fewer answers of {new} {build_verb()} ({change} points), so {old} is kept."
    for pair, benchmark in zip(each, benchmarks, strict=True):
        if pair.difference.below_zero:
            return False, f"{new} is worse on {benchmark.title}, so {old} is kept."
    both = f"{percent(overall.rate.value)} against {percent(overall.reference_rate.value)}"
    if overall.gained < overall.lost:
        return False, f"{new} passes fewer prompts than {old} ({both}), so {old} is kept."
    if strict and not overall.difference.above_zero:
        return False, f"The interval of the difference reaches zero, so {old} is kept."
    return True, f"{new} passes at least as many prompts as {old} ({both}), so {new} is promoted."


def _sentence(pair: Paired, benchmarks: int) -> str:
    """The figures, whether they are real at this size, and what difference could be seen, in words."""
    new, old, d = model_title(pair.model), model_title(pair.reference), pair.difference
    if d.n == 0:
        return f"{new} and {old} have no scored prompt in common, so nothing can be said."
    over = f"{d.n} prompts" + (f" of {benchmarks} benchmarks" if benchmarks > 1 else "")
    figures = (
        f"{new} passes {percent(pair.rate.value)} of {over}, {old} {percent(pair.reference_rate.value)}: "
        f"{points(d.value)} points ({100 * d.level:g}% interval {interval(d, change=True)}); "
        f"{pair.gained} prompts gained, {pair.lost} lost."
    )
    if pair.verdict == "not distinguishable":
        meaning = "At this size the difference cannot be told from chance."
    else:
        side = "above" if pair.verdict == "better" else "below"
        meaning = f"The difference is real at this size: the whole interval is {side} zero."
        if pair.p > 1 - d.level:
            meaning += f" McNemar's exact test is more cautious (p {p_value(pair.p)}): take it as borderline."
    if pair.detectable is None:
        return f"{figures} {meaning} No difference could be seen with so few prompts."
    seen = f"a true difference of {100 * pair.detectable:.1f} points would show four times in five"
    return f"{figures} {meaning} With {d.n} prompts, {seen}."


def _decoding_notes(tables: Mapping[str, Mapping[str, EvalResult]]) -> list[str]:
    """Name the benchmarks on which models answered under different settings or on different prompts."""
    notes = []
    for benchmark, row in tables.items():
        first = next(iter(row.values()))
        for name, result in row.items():
            if result.decoding != first.decoding:
                notes.append(
                    f"{title(benchmark)}: {model_title(name)} was decoded with other settings than"
                    f" {model_title(next(iter(row)))}; the two are not like for like."
                )
            if {r.prompt_id for r in result.results} != {r.prompt_id for r in first.results}:
                notes.append(
                    f"{title(benchmark)}: {model_title(name)} answered other prompts than"
                    f" {model_title(next(iter(row)))}; only shared prompts are paired."
                )
    return notes


def _many_notes(benchmarks: Sequence[Benchmark], candidates: Sequence[str], level: float) -> list[str]:
    """With several comparisons one can look real by chance: say which still do after Holm's correction.

    A candidate that is another model under a second name is no comparison, so it is not among `candidates`.
    """
    made = [(m, b) for m in candidates for b in benchmarks]
    if len(made) < 2:
        return []
    adjusted = holm([b.against[m].p for m, b in made])
    real = [
        f"{model_title(m)} on {b.title} (p {p_value(p)})"
        for (m, b), p in zip(made, adjusted, strict=True)
        if p <= 1 - level
    ]
    left = ", ".join(real) if real else "none"
    return [f"Taken one by one, {len(made)} comparisons were made; real after Holm's correction: {left}."]
