"""Models and runs: which model came of which, what each saw and scored, and any two beside each other."""

from __future__ import annotations

from typing import Any

from hafs.errors import UsageError
from hafs.evals.kept import newest_results
from hafs.models.lineage import TrainingRun, training_runs
from hafs.workbench.view import OpenWorkspace, Query, View, grid

_SETTINGS = ("learning_rate", "num_epochs", "beta", "loss", "seed", "method")
BRANCH, SPACE = "\u2514 ", "\u2003"
"""What a model in the tree stands behind, and how far in."""
DIFFERING = 12
"""Prompts that are shown where two models differ."""


def models(bench: OpenWorkspace, query: Query) -> View:
    """The tree of models, what they scored, and the runs of the workspace."""
    from hafs.evals.words import interval, percent
    from hafs.report.blocks import Section
    from hafs.statistics import wilson

    results = newest_results(bench.store)
    runs = training_runs([bench.root])
    benchmarks = sorted({r.benchmark for r in results})
    rates = {(r.model, r.benchmark): wilson(r.passed, r.scored) for r in results}
    names = {r.model: r.name for r in results}
    rows = []
    for depth, model, run in _tree(runs, list(names)):
        name = names.get(model) or (run.directory.name if run else model[:8] or "in training")
        found = [rates.get((model, b)) for b in benchmarks]
        said = ("" if e is None or e.value is None else f"{percent(e.value)} ({interval(e)}, n={e.n})" for e in found)
        made = f"{run.kind}, {_saw(run)}" if run else "no run here made it"
        rows.append((BRANCH * bool(depth) + name, model[:12], made, _settings(run), *said))
    header = ("Model", "Hash", "Made by", "Settings", *benchmarks)
    blocks = [
        grid("From each model to those that were trained on it", header, _indented(rows, runs, names), plain=True)
    ]
    done = [
        (
            r.kind,
            r.status,
            str(r.config.get("name") or r.config.get("stage") or r.config.get("scorer") or ""),
            _when(r.started),
            r.id,
        )
        for r, _ in zip(bench.store.runs(), range(60), strict=False)
    ]
    sections = (
        Section("tree", "Models", tuple(blocks) if rows else ()),
        Section(
            "runs",
            "The newest runs",
            (grid("The newest first", ("Kind", "How it ended", "Of", "Began", "Id"), done, plain=True),)
            if done
            else (),
        ),
    )
    return View(
        "models",
        "Models and runs",
        lead="" if rows else "No model was trained or evaluated in this workspace yet.",
        sections=sections,
        values={"names": sorted({r.name for r in results}, key=[r.name for r in results].index)},
        template="models.html",
    )


def _indented(rows: list[tuple[str, ...]], runs: list[TrainingRun], names: dict[str, str]) -> list[tuple[str, ...]]:
    depths = [depth for depth, _, _ in _tree(runs, list(names))]
    return [(SPACE * max(0, d - 1) + r[0], *r[1:]) for d, r in zip(depths, rows, strict=True)]


def _tree(runs: list[TrainingRun], evaluated: list[str]) -> list[tuple[int, str, TrainingRun | None]]:
    """(depth, hash, the run that made it) of each model, parents before children."""
    made = {r.model or f"run {r.directory}": r for r in runs if r.model != r.parent}
    children: dict[str, list[str]] = {}
    for model, run in made.items():
        children.setdefault(run.parent, []).append(model)
    roots = [m for m in dict.fromkeys([*(r.parent for r in runs), *evaluated]) if m not in made]
    out: list[tuple[int, str, TrainingRun | None]] = []

    def grow(model: str, depth: int) -> None:
        if any(model == m for _, m, _ in out):
            return
        out.append((depth, model, made.get(model)))
        for child in children.get(model, []):
            grow(child, depth + 1)

    for root in [*roots, *made]:
        grow(root, 0)
    return out


def _saw(run: TrainingRun) -> str:
    n = sum(1 for _ in run.trained_on())
    kept = (run.result or {}).get("best_step")
    return f"{n} groups" + (f", step {kept} kept" if kept is not None else ", not ended")


def _settings(run: TrainingRun | None) -> str:
    return ", ".join(f"{k} {run.settings[k]}" for k in _SETTINGS if k in run.settings) if run else ""


def _when(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def compared(bench: OpenWorkspace, query: Query) -> View:
    """Two models beside each other, as `hafs compare` does it. Raises UsageError for a name without results."""
    from hafs.evals import compare
    from hafs.evals.tables import main_table, paired_table
    from hafs.report import differing_examples, failures_by_cause
    from hafs.report.blocks import Grid, Section, Text
    from hafs.report.view import change_forest, examples_section, failures_section

    old, new = query.get("reference", ""), query.get("candidate", "")
    if not old or not new or old == new:
        raise UsageError("two names are needed that differ", "choose them under Models")
    results = {name: newest_results(bench.store, name) for name in (old, new)}
    for name, found in results.items():
        if not found:
            raise UsageError(f"nothing was evaluated under the name {name!r}", f"hafs eval --model MODEL --name {name}")
    both = {r.benchmark for r in results[old]} & {r.benchmark for r in results[new]}
    if not both:
        raise UsageError(f"{old} and {new} have no benchmark in common", "evaluate both on one")
    results = {name: [r for r in found if r.benchmark in both] for name, found in results.items()}
    c = compare(results, old)
    blocks: list[Any] = [
        Grid(main_table(c)),
        Text(c.decisions[new].sentence),
        *filter(None, [change_forest(c)]),
        Grid(paired_table(c)),
    ]
    sections = [Section("result", f"{new} against {old}", tuple(blocks))]
    failed = failures_by_cause(results[old], results[new])
    if failed and failed.causes:
        sections.append(failures_section(failed))
    if examples := differing_examples(results[old], results[new], DIFFERING):
        sections.append(examples_section(examples))
    return View("compare", f"{new} against {old}", lead=c.reason, sections=tuple(sections))
