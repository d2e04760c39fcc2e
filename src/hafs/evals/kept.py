"""Evaluations that the workspace holds."""

from __future__ import annotations

from hafs.evals.results import EvalResult
from hafs.store import Run, Store


def newest_results(store: Store, name: str = "") -> list[EvalResult]:
    """The newest result of each benchmark under a name, or of every name and benchmark; in the order of their ends."""
    newest: dict[tuple[str, str], Run] = {}
    for run in sorted(store.runs(kind="eval"), key=lambda run: run.finished or run.started):
        if run.outputs and name in ("", run.config["name"]):
            newest[str(run.config["name"]), str(run.config["benchmark"])] = run
    return [EvalResult.from_dict(run.outputs) for run in newest.values()]
