"""What a report shows, gathered from evaluations, preference groups and the training logs of a workspace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from hafs.evals import Comparison, EvalResult
from hafs.report import (
    Pairs,
    PairSource,
    ReportData,
    Rerun,
    Stage,
    Training,
    differing_examples,
    failures_by_cause,
)
from hafs.types import PreferenceGroup


def gather_report(
    title: str,
    results: Mapping[str, list[EvalResult]],
    comparison: Comparison,
    models: Path,
    groups: Sequence[PreferenceGroup] = (),
    skipped: Mapping[str, int] | None = None,
    stages: tuple[Stage, ...] = (),
    rerun: Rerun | None = None,
) -> ReportData:
    """What a report shows, from evaluations and from the training logs under `models`/NAME."""
    reference, candidate = comparison.reference, comparison.candidate
    return ReportData(
        title=title,
        comparison=comparison,
        training=tuple(t for name in results if (t := training_of(name, models / name)) is not None),
        pairs=Pairs(sources(groups), dict(skipped or {})) if groups else None,
        failures=failures_by_cause(results[reference], results[candidate]),
        examples=differing_examples(results[reference], results[candidate]),
        stages=stages,
        rerun=rerun,
    )


def training_of(name: str, run: Path) -> Training | None:
    """The curves of a training run, when it has any."""
    log = run / "log.jsonl"
    if not log.is_file():
        return None
    rows = tuple(json.loads(line) for line in log.read_text(encoding="utf-8").splitlines())
    result = json.loads((run / "run.json").read_text(encoding="utf-8")).get("result", {})
    return Training(name, rows, kept=result.get("best_step"), note=" ".join(result.get("warnings", ())))


def sources(groups: Sequence[PreferenceGroup]) -> tuple[PairSource, ...]:
    """How many groups and edges each source has given."""
    by_source: dict[str, list[int]] = {}
    for group in groups:
        for source in {e.source for e in group.edges}:
            count = by_source.setdefault(source, [0, 0])
            count[0] += 1
            count[1] += sum(e.source == source for e in group.edges)
    return tuple(PairSource(name, n, edges) for name, (n, edges) in sorted(by_source.items()))


def facts(results: Mapping[str, list[EvalResult]]) -> dict[str, str]:
    """What a figure depends on beside the settings: model hashes and package versions."""
    hashes = {f"model {name}": rows[0].model for name, rows in results.items()}
    return {**hashes, **{p: version(p) for p in ("hafs", "torch", "transformers", "peft")}}
