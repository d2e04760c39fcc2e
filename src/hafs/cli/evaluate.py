"""`hafs eval`: a model on benchmarks."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hafs.cli.common import Json, WorkspaceDir, emit, none_scored, progress_bars, read_prompts, workspace_at

if TYPE_CHECKING:
    from hafs.types import Prompt


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    model: str = typer.Option(None, help="The model: HF directory, hub id, or `default`."),
    name: str = typer.Option(None, help="Its name in the comparison (baseline, sft, dpo); else the directory's."),
    benchmark: list[str] = typer.Option(None, help="asm, rom_hack, demo, or a task file; may be repeated."),
    max_new_tokens: int = typer.Option(None),
    output: Path = typer.Option(None, help="Also write the results here (JSON)."),
    workspace: WorkspaceDir = None,
    json: Json = False,
) -> None:
    """Answer a benchmark greedily and check every answer; the result is kept for `hafs compare`.

    Answers that cannot be checked stay unscored, with the reason; exit code 1 when that is all of them.
    """
    from hafs.config import override
    from hafs.evals.words import interval, percent
    from hafs.jsonl import atomic_write
    from hafs.pipeline import evaluate, scorer_for
    from hafs.statistics import wilson

    space = workspace_at(workspace)
    chosen = space.config.model.name if model is None else model
    settings = override(space.config.eval, max_new_tokens=max_new_tokens)
    title = name or role(chosen)
    asked = {which: benchmark_prompts(which) for which in benchmark or settings.benchmarks}
    results = []
    with space.open_store() as store, progress_bars(quiet=json) as progress:
        for which, prompts in asked.items():
            with closing(scorer_for(space.config, prompts[0].checker)) as scorer:
                results.append(evaluate(store, scorer, chosen, title, which, prompts, settings, progress))
    if output is not None:
        with atomic_write(output) as f:
            jsonlib.dump([r.to_dict() for r in results], f)
    lines = []
    unscored: Counter[str] = Counter()
    for r in results:
        unscored.update(r.unscored())
        rate = wilson(r.passed, r.scored, settings.level) if r.scored else None
        found = f"{percent(rate.value)} ({interval(rate)})" if rate else "unscored"
        lines.append(f"{r.name} on {r.benchmark}: {found}, {r.passed} of {r.scored} right, coverage {r.coverage:.0%}")
    summary = [{"name": r.name, "benchmark": r.benchmark, "passed": r.passed, "scored": r.scored,
                "coverage": r.coverage, "unscored": r.unscored()} for r in results]  # fmt: skip
    emit({"results": summary}, "\n".join(lines), json)
    none_scored(sum(r.scored for r in results), unscored)


def benchmark_prompts(which: str) -> list[Prompt]:
    """The prompts of a benchmark by name, or of a task file."""
    from hafs.tasks import BENCHMARKS, benchmark

    return benchmark(which) if which in BENCHMARKS or not Path(which).is_file() else read_prompts(Path(which))


def role(model: str) -> str:
    """What a model is called in a comparison: its directory's name, of DIR/model that of DIR."""
    path = Path(model).expanduser()
    if path.is_dir():
        path = path.resolve()
    return path.parent.name if path.name == "model" and path.parent.name else path.name
