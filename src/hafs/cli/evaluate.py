"""`hafs eval run`: a model on benchmarks; `hafs eval` alone means the same."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from hafs.cli.common import (
    AllowContaminated,
    Cluster,
    Json,
    WorkspaceDir,
    crew_at,
    emit,
    none_scored,
    note,
    progress_bars,
    workspace_at,
)
from hafs.cli.reading import ColumnsOption, Show, prompts_from, show_prompts
from hafs.errors import UsageError
from hafs.tasks import BENCHMARKS

if TYPE_CHECKING:
    from hafs.config import EvalConfig, GenerateConfig
    from hafs.evals import EvalResult, SampledResult
    from hafs.statistics import Estimate
    from hafs.types import Prompt


class _RunByDefault(TyperGroup):
    """`hafs eval --model X` is `hafs eval run --model X`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = [*self.commands, "--help", "-h"]
        return super().parse_args(ctx, args if args and args[0] in known else ["run", *args])


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="A model's answers to held-out prompts, checked. Without a verb: `run`.", cls=_RunByDefault
    )
    group.command("run")(evaluate)
    group.command("seal")(seal)
    group.command("open")(open_)
    app.add_typer(group, name="eval")


def evaluate(
    model: str = typer.Option(None, help="The model: HF directory, hub id, or `default`."),
    name: str = typer.Option(None, help="Its name in the comparison (baseline, sft, dpo); else the directory's."),
    benchmark: list[str] = typer.Option(None, help=f"{', '.join(BENCHMARKS)}, or a file of prompts; may be repeated."),
    columns: ColumnsOption = None,
    show: Show = None,
    max_new_tokens: int = typer.Option(None),
    thinking: str = typer.Option(None, help="Whether the model thinks first: keep, strip, or off."),
    samples: int = typer.Option(0, min=0, help="Also sample so many answers to each prompt, for pass@k."),
    temperature: float = typer.Option(0.8, min=0.01, help="Of the sampled answers."),
    top_p: float = typer.Option(1.0, min=0.01, max=1.0, help="Of the sampled answers."),
    k: list[int] = typer.Option(None, min=1, help="pass@k to print; may be repeated. By default 1 and --samples."),
    perplexity: bool = typer.Option(False, help="Also the perplexity of the reference answers under the model."),
    allow_contaminated: AllowContaminated = False,
    output: Path = typer.Option(None, help="Also write the greedy results here (JSON)."),
    cluster: Cluster = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Answer a benchmark greedily and check every answer; the result is kept for `hafs compare`.

    Answers that cannot be checked stay unscored, with the reason; exit code 1 when that is all of them.
    """
    from hafs.config import override
    from hafs.evals.evaluate import evaluate, evaluate_sampled
    from hafs.evals.leaks import refuse_trained_on
    from hafs.evals.sealed import refuse_sealed
    from hafs.models.naming import role
    from hafs.scorers.run import scorer_for, try_commands
    from hafs.tasks import benchmark_names

    space = workspace_at(workspace)
    chosen = space.config.model.name if model is None else model
    settings = override(space.config.eval, max_new_tokens=max_new_tokens, thinking=thinking)
    sampling, ks = _sampling(settings, samples, temperature, top_p, k)
    title = name or role(chosen)
    named = benchmark_names(benchmark or settings.benchmarks)
    asked = {name: benchmark_prompts(which, columns) for name, which in named.items()}
    for prompts in asked.values():
        show_prompts(prompts, show, chosen, workspace)
    results: list[EvalResult] = []
    sampled: list[SampledResult] = []
    likely: dict[str, Estimate] = {}
    everything = [p for prompts in asked.values() for p in prompts]
    with space.open_store() as store, progress_bars(quiet=json) as progress, crew_at(space, store, cluster) as crew:
        refuse_sealed(store, everything)
        try_commands(space.config, everything)
        near, models = settings.near_copy, {title: chosen}
        for line in refuse_trained_on(space, models, everything, near, allowed=allow_contaminated):
            note(f"warning: {line}")
        for which, prompts in asked.items():
            with closing(scorer_for(space.config)) as scorer:
                about = (store, scorer, chosen, title, which, prompts)
                results.append(evaluate(*about, settings, progress, crew))
                if sampling is not None:
                    sampled.append(evaluate_sampled(*about, sampling, progress, crew))
            if perplexity:
                likely[which] = _perplexity(chosen, prompts, settings.level, progress)
    _write(results, output)
    _show(results, sampled, likely, asked, ks, settings.level, json)


def _write(results: list[EvalResult], output: Path | None) -> None:
    """Write the greedy results where a file is named."""
    from hafs.files.jsonl import atomic_write

    if output is not None:
        with atomic_write(output) as f:
            jsonlib.dump([r.to_dict() for r in results], f)


def _show(
    results: list[EvalResult],
    sampled: list[SampledResult],
    likely: dict[str, Estimate],
    asked: dict[str, list[Prompt]],
    ks: list[int],
    level: float,
    as_json: bool,
) -> None:
    """Print what came of each benchmark; exit code 1 when nothing could be scored."""
    from hafs.scorers.run import JUDGED

    unscored: Counter[str] = Counter()
    data, lines = [], []
    for i, r in enumerate(results):
        unscored.update(r.unscored())
        row, text = _summary(r, asked[r.benchmark], level)
        if sampled:
            unscored.update(sampled[i].unscored())
            row["sampled"], more = _sampled_summary(sampled[i], ks, level)
            text += more
        if r.benchmark in likely:
            row["perplexity"], more = _perplexity_summary(likely[r.benchmark])
            text += more
        data.append(row)
        lines += text
    emit({"results": data}, "\n".join(lines), as_json)
    if n := unscored.pop(JUDGED, 0):
        note(
            f"unscored: {n} candidates, {JUDGED}; `hafs judge run --judge NAME --prompts FILE` when all models have"
            " answered, then `hafs judge winrate dpo sft`"
        )
    none_scored(sum(r.scored for r in results), unscored)


def seal(
    name: str = typer.Argument(help="What the sealed set is called."),
    file: Path = typer.Argument(help="Its prompts: a task file."),
    columns: ColumnsOption = None,
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Put a final test set away: it is opened once, for all models together, and the opening is recorded."""
    from hafs.evals.sealed import seal

    space = workspace_at(workspace)
    prompts = prompts_from(file, columns)
    with space.open_store() as store:
        kept = seal(space, store, name, prompts)
    text = f"{len(prompts)} prompts sealed as {name}, kept in {kept}"
    emit({"name": name, "prompts": len(prompts), "file": str(kept)}, text, json)


def open_(
    name: str = typer.Argument(help="The sealed set."),
    model: list[str] = typer.Option(help="NAME=MODEL, in the order of the table; repeated for each model."),
    reference: str = typer.Option("sft", help="Which one the others are compared with."),
    again: bool = typer.Option(False, help="Open it although it was opened before; every later table says so."),
    allow_contaminated: bool = typer.Option(
        False, help="Open it although a model was trained on some of its prompts; the table says so."
    ),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Open a sealed test set: evaluate all models on it, once, and compare them.

    Refused, and still sealed, when its prompts, or near copies of them, are in what a model was trained on.
    """
    from hafs.evals import compare, to_rich
    from hafs.evals.sealed import open_sealed

    pairs = [spec.partition("=") for spec in model]
    if any(not (who and what) for who, _, what in pairs):
        raise UsageError("a model to compare is written NAME=MODEL", "--model sft=models/sft/model --model dpo=…")
    models = {who: what for who, _, what in pairs}
    if len(models) > 1 and reference not in models:
        raise UsageError(f"there is no model {reference!r} to compare with", "--reference NAME, one of --model")
    space = workspace_at(workspace)
    with space.open_store() as store, progress_bars(quiet=json) as progress:
        results, notes = open_sealed(
            space, store, name, models, again=again, allow_contaminated=allow_contaminated, progress=progress
        )
    if len(models) < 2:
        (row, text), *_ = [_summary(r, [], space.config.eval.level) for rows in results.values() for r in rows]
        emit({"results": [row], "notes": notes}, "\n".join([*text, *notes]), json)
        return
    comparison = compare(results, reference, level=space.config.eval.level, notes=notes)
    emit(comparison.to_dict(), to_rich(comparison), json)


def _sampling(
    settings: EvalConfig, samples: int, temperature: float, top_p: float, ks: list[int] | None
) -> tuple[GenerateConfig | None, list[int]]:
    """How to sample (None: not at all), and the k of pass@k."""
    from hafs.config import GenerateConfig

    if not samples:
        if ks:
            raise UsageError("pass@k needs sampled answers", "--samples N, with N at least as large as --k")
        return None, []
    wanted = sorted(set(ks or [1, samples]))
    if wanted[-1] > samples:
        raise UsageError(f"pass@{wanted[-1]} needs at least {wanted[-1]} answers a prompt", "raise --samples")
    made = GenerateConfig(
        candidates=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=settings.max_new_tokens,
        thinking=settings.thinking,
        batch_size=settings.batch_size,
        seed=0,
    )
    return made, wanted


def _perplexity(model: str, prompts: Sequence[Prompt], level: float, progress: Any) -> Estimate:
    from hafs.evals.likelihood import perplexity, reference_nll

    return perplexity(list(reference_nll(model, prompts, progress=progress).values()), level)


def _summary(r: EvalResult, prompts: Sequence[Prompt], level: float) -> tuple[dict[str, Any], list[str]]:
    """One benchmark's greedy result as data and as lines: the rate, by category, exact matches, lengths."""
    from hafs.evals.words import interval, percent
    from hafs.statistics import bootstrap_mean, wilson

    rate = wilson(r.passed, r.scored, level) if r.scored else None
    found = f"{percent(rate.value)} ({interval(rate)})" if rate else "unscored"
    lines = [f"{r.name} on {r.benchmark}: {found}, {r.passed} of {r.scored} right, coverage {r.coverage:.0%}"]
    categories = {}
    for name in dict.fromkeys(x.category for x in r.results if x.category):
        mine = [x.passed for x in r.results if x.category == name and x.passed is not None]
        e = categories[name] = wilson(sum(mine), len(mine), level)
        lines.append(f"  {name}: {percent(e.value)} ({interval(e)}), n={e.n}")
    exact = _exact(r, prompts, level)
    lengths = [x.n_tokens for x in r.results if x.n_tokens is not None]
    length = bootstrap_mean(lengths, level=level)
    cut = sum(n >= r.decoding.get("max_new_tokens", n + 1) for n in lengths)
    if length.value is not None:
        lines.append(
            f"  length: {length.value:.1f} tokens ({length.low:.1f}–{length.high:.1f}), {cut} cut at the limit"
        )
    data = {
        "name": r.name,
        "benchmark": r.benchmark,
        "passed": r.passed,
        "scored": r.scored,
        "coverage": r.coverage,
        "unscored": r.unscored(),
        "categories": {name: vars(e) for name, e in categories.items()},
        "length": {**vars(length), "cut": cut},
        "exact_match": vars(exact) if exact else None,
    }
    if exact and exact.value:
        lines.append(f"  exact match with a reference: {percent(exact.value)} ({interval(exact)}), n={exact.n}")
    return data, lines


def _exact(r: EvalResult, prompts: Sequence[Prompt], level: float) -> Estimate | None:
    """The share of answers that equal a reference but for case, spaces and punctuation; None without references."""
    from hafs.scorers.exact import normalised
    from hafs.statistics import wilson

    wanted = {p.id: {normalised(x.text) for x in p.references} for p in prompts if p.references}
    hits = [
        normalised(x.text) in wanted[x.prompt_id] for x in r.results if x.prompt_id in wanted and x.n_tokens is not None
    ]
    return wilson(sum(hits), len(hits), level) if hits else None


def _sampled_summary(s: SampledResult, ks: Sequence[int], level: float) -> tuple[dict[str, Any], list[str]]:
    from hafs.evals.words import interval, percent

    found = {k: s.pass_at(k, level) for k in ks}
    parts = [f"pass@{k} {percent(e.value)} ({interval(e)}, n={e.n})" for k, e in found.items()]
    text = f"  sampled, {s.samples} answers a prompt at temperature {s.decoding['temperature']:g}: {', '.join(parts)}"
    data = {
        "samples": s.samples,
        "decoding": dict(s.decoding),
        "unscored": s.unscored(),
        "pass_at": {str(k): vars(e) for k, e in found.items()},
    }
    return data, [text]


def _perplexity_summary(e: Estimate) -> tuple[dict[str, Any] | None, list[str]]:
    if e.value is None or e.low is None or e.high is None:
        return None, ["  perplexity of references: no prompt has one"]
    return vars(e), [f"  perplexity of references: {e.value:.3f} ({e.low:.3f}–{e.high:.3f}), n={e.n} prompts"]


def benchmark_prompts(which: str, columns: str | None = None) -> list[Prompt]:
    """The prompts of a benchmark by name, or of a task file."""
    from hafs.tasks import benchmark, task_file

    path = task_file(which)
    return benchmark(which) if path is None else prompts_from(path, columns)
