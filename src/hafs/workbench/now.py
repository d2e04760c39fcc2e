"""What runs now: processes with their stages, the training's curves, the newest answers, memory, money."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from hafs.annotate.web.app import duration
from hafs.files.activity import Activity, activities, memory_limit
from hafs.store import browse, schema
from hafs.workbench.view import OpenWorkspace, Query, Sheet, View

SAMPLES = 6
_CURVES = (
    ("Loss", "nats", ("loss", "eval/loss"), False),
    ("Reward margin", "nats, β × log-ratio to the reference", ("rewards/margins", "eval/rewards/margins"), False),
    ("Pairs ordered right", "share of pairs", ("rewards/accuracies", "eval/rewards/accuracies"), True),
    ("Validation pass rate", "share of prompts", ("eval/pass_rate",), True),
    ("Reward", "mean of the answers", ("rewards/mean", "objective/scores"), False),
)
"""Charts of a training that runs: title, unit, the measures that it may be of, whether it is a share."""


def now(bench: OpenWorkspace, query: Query) -> View:
    """The page of what happens."""
    found = activities(bench.root)
    running = [a for a in found if a.alive]
    killed = [a for a in found if not a.alive]
    samples = browse.newest(bench.store, SAMPLES)
    rows = [
        (a.command, s.what, f"{s.done} of {s.total}", left(s), f"{a.pid} on {a.host}")
        for a in running
        for s in a.stages
    ]
    sheets = (
        Sheet("What runs", ("command", "stage", "done", "left", "process"), tuple(rows)),
        Sheet(
            "Newest answers",
            ("id", "prompt", "answer", "model", "outcome", "cause"),
            tuple((s.id, s.prompt, s.text, s.model_name, s.outcome, s.cause) for s in samples),
        ),
    )
    values = {
        "running": running,
        "killed": killed,
        "samples": samples,
        "left": left,
        "figures_of": _figures_of,
        "size": size,
    }
    return View(
        "now",
        "Now",
        figures=_figures(bench, running),
        sections=_curves(bench, running),
        sheets=sheets,
        values=values | {"training": next((Path(a.folder).name for a in running if a.folder), "")},
        template="now.html",
        live=True,
    )


def left(stage: Any) -> str:
    """The time that a stage still takes, in words."""
    if stage.done >= stage.total:
        return "done"
    return f"{duration(stage.seconds_left)} left" if stage.seconds_left is not None else ""


def _figures_of(stage: Any) -> str:
    """The newest figures of a stage worth a line."""
    shown = ("loss", "rewards/margins", "rewards/accuracies", "eval/pass_rate", "eval/loss", "kl", "cost", "reward")
    return " · ".join(
        f"{k.removeprefix('eval/').split('/')[-1]} {stage.figures[k]:.3g}" for k in shown if k in stage.figures
    )


def _figures(bench: OpenWorkspace, running: Sequence[Activity]) -> tuple[tuple[str, str, str], ...]:
    said = [("Running", str(len(running)), "process" if len(running) == 1 else "processes")]
    here = [a for a in running if a.here]
    if here:
        used, most = sum(a.memory for a in here), memory_limit()
        said.append(("Memory", size(used), f"{used / most:.0%} of this machine's {most / 2**30:.0f} GB"))
    sampling = any(s.what == "generating" and s.done < s.total for a in running for s in a.stages[-1:])
    if sampling and (speed := _tokens_a_second(bench)):
        said.append(("Sampling", f"{speed:,.0f}", "tokens a second, the last minute"))
    if spent := _spending(bench, running):
        said.append(spent)
    return tuple(said)


def _tokens_a_second(bench: OpenWorkspace) -> float:
    c = schema.candidates.c
    query = select(func.sum(c.n_tokens), func.min(c.added), func.max(c.added)).where(c.added > time.time() - 60)
    with bench.store.connection() as conn:
        tokens, first, _ = conn.execute(query).one()
    return float(tokens) / max(1.0, time.time() - first) if tokens else 0.0


def _spending(bench: OpenWorkspace, running: Sequence[Activity]) -> tuple[str, str, str] | None:
    """What judges have cost, beside the budget of a run that asks one now."""
    from hafs.judge.run.ledger import Ledger

    cost = sum(row["cost"] for row in Ledger(bench.store).spending())
    budgets = [b for a in running if (b := _flag(a.command, "--budget"))]
    if not cost and not budgets:
        return None
    return "Judges", f"${cost:.2f}", f"budget of this run ${float(budgets[0]):.2f}" if budgets else "so far"


def size(n: int) -> str:
    """Bytes in words."""
    return f"{n / 2**30:.1f} GB" if n >= 2**30 else f"{n / 2**20:.0f} MB"


def _flag(command: str, name: str) -> str:
    """The number that stands behind a flag."""
    words = shlex.split(command)
    for word, after in zip(words, [*words[1:], ""], strict=True):
        value = after if word == name else word.removeprefix(f"{name}=") if word.startswith(f"{name}=") else ""
        if value.replace(".", "", 1).isdigit():
            return value
    return ""


# ---- curves


def log_rows(folder: Path) -> list[dict[str, Any]]:
    """The lines of a training log, but one that is being written."""
    try:
        text = (folder / "log.jsonl").read_text(encoding="utf-8")
    except OSError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines() if line]


def _curves(bench: OpenWorkspace, running: Sequence[Activity]) -> tuple[Any, ...]:
    folder = next((Path(a.folder) for a in running if a.folder and (Path(a.folder) / "log.jsonl").is_file()), None)
    if folder is None:
        return ()
    from hafs.report.blocks import Section

    before = _predecessor(bench.root, folder)
    charts = against(log_rows(folder), folder.name, log_rows(before) if before else [], before.name if before else "")
    return (Section("curves", f"Training: {folder.name}", tuple(charts)),) if charts else ()


def _predecessor(root: Path, folder: Path) -> Path | None:
    """The training of the same kind that ended last before this one."""
    from hafs.models.lineage import training_runs

    runs = training_runs([root, folder])
    kind = next((r.kind for r in runs if r.directory == folder.resolve()), "")
    others = [r.directory for r in runs if r.kind == kind and r.directory != folder.resolve()]
    logs = [d for d in others if (d / "log.jsonl").is_file()]
    return max(logs, key=lambda d: (d / "log.jsonl").stat().st_mtime, default=None)


def against(rows: Sequence[dict[str, Any]], name: str, old: Sequence[dict[str, Any]], before: str) -> list[Any]:
    """Charts of a training, with the one before in the same axes."""
    from hafs.evals.tables import Cell, Table
    from hafs.report.blocks import Lines, Series
    from hafs.report.charts import tidy

    charts = []
    for title, unit, keys, share in _CURVES:
        key = next((k for k in keys if any(k in r for r in rows)), "")
        if not key:
            continue
        lines = [(before, _points(old, key), "ref"), (name, _points(rows, key), "new")]
        series = tuple(Series(n, p, style, key.startswith("eval/")) for n, p, style in lines if p)
        ends = [(s.label, s.points[-1]) for s in series]
        table = Table(
            title,
            ("Run", "Step", "Newest"),
            tuple((Cell(n), Cell(f"{x:g}"), Cell(tidy(y, share))) for n, (x, y) in ends),
        )
        caption = "; ".join(f"{n} at {tidy(y, share)} in step {x:g}" for n, (x, y) in ends) + "."
        charts.append(Lines(title, "optimiser step", unit, series, caption, table, share=share))
    return charts


def _points(rows: Sequence[dict[str, Any]], key: str) -> tuple[tuple[float, float], ...]:
    found = [(float(r["step"]), float(r[key])) for r in rows if isinstance(r.get(key), int | float) and "step" in r]
    return tuple(p for p in found if p[1] == p[1] and abs(p[1]) != float("inf"))
