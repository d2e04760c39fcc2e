"""Data health: what is in the preference groups, what did not become one and why, how far the sources agree."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, func, select

from hafs.store import schema
from hafs.store.marks import LEFT_OUT, marks
from hafs.workbench.prompts import disagreed
from hafs.workbench.view import OpenWorkspace, Query, View, bars, grid


def health(bench: OpenWorkspace, query: Query) -> View:
    """The pictures of the newest groups."""
    from hafs.preferences.collect import newest_stats
    from hafs.preferences.stats import charts_of_stats, headline_of
    from hafs.report.blocks import Section, Text

    stats = newest_stats(bench.store)
    charts = [bars(c.title[:1].upper() + c.title[1:], c.rows) for c in charts_of_stats(stats)] if stats.groups else []
    left = marks(bench.store, LEFT_OUT)
    odd = disagreed(bench)
    agreed: list[Any] = [Text(f"Judge, people and checker order two answers in different ways on {len(odd)} prompts.")]
    agreed += _agreement(bench)
    sections = (
        Section("groups", "What is in the groups", tuple(charts)),
        Section("dropped", "What was left out, and why", _dropped(bench, len(left))),
        Section("families", "Families without a right answer", _families(bench)),
        Section("agreement", "Agreement", tuple(agreed)),
    )
    told = stats.longer_wins + stats.shorter_wins
    figures = [
        ("Groups", f"{stats.groups:,}", f"{stats.edges:,} edges"),
        ("Longer wins", f"{stats.longer_wins / told:.0%}" if told else "-", "of edges between different lengths"),
        ("Disagreement", str(len(odd)), "prompts"),
        ("Left out by a mark", str(len(left)), "prompts and answers"),
    ]
    lead = f"{headline_of(stats)}." if stats.groups else "There are no preference groups yet: `hafs preferences build`."
    return View("data", "Data health", lead, tuple(figures), sections)


def _dropped(bench: OpenWorkspace, marked: int) -> tuple[Any, ...]:
    built = bench.store.newest("preferences")
    if built is None:
        return ()
    m = built.metrics
    rows = [(f"prompts: {why}", float(n), f"{n:,}") for why, n in dict(m.get("skipped", {})).items()]
    words = {
        "equal": "answers of a text that was there already",
        "unscored": "answers without a score",
        "wrong_over_wrong": "pairs of two wrong answers",
    }
    rows += [(what, float(m[key]), f"{m[key]:,}") for key, what in words.items() if m.get(key)]
    n = m.get("left_out", 0)
    n = sum(n.values()) if isinstance(n, dict) else n
    rows += [("left out of training by a person's mark", float(n), f"{n:,}")] if n else []
    return (bars("In the newest build", sorted(rows, key=lambda r: -r[1]), "alt"),) if rows else ()


def _families(bench: OpenWorkspace) -> tuple[Any, ...]:
    """Families by how many of their prompts have an answer that passed."""
    p, c, t = schema.prompts.c, schema.candidates.c, schema.scores.c
    passed = func.max(case((t.passed.is_(True), 1), else_=0)).label("passed")
    each = (
        select(p.family, c.prompt_id, passed)
        .join(schema.prompts, c.prompt_id == p.id)
        .join(schema.scores, t.candidate_id == c.id)
        .where(t.passed.is_not(None))
        .group_by(p.family, c.prompt_id)
        .subquery()
    )
    query = select(each.c.family, func.count(), func.sum(each.c.passed)).group_by(each.c.family)
    with bench.store.connection() as conn:
        found = sorted(((f or "(none)", int(n), int(k)) for f, n, k in conn.execute(query)), key=lambda r: r[2] / r[1])
    rows = [(f, f"{k} of {n}", f"{k / n:.0%}", "none has a right answer" if not k else "") for f, n, k in found]
    return (
        (grid("Prompts that have a right answer, by family", ("Family", "Prompts", "Share", ""), rows),) if rows else ()
    )


def _agreement(bench: OpenWorkspace) -> list[Any]:
    """What the newest calibration of each judge says."""
    rows = []
    for run in bench.store.runs(kind="calibration"):
        if run.status == "finished":
            e = run.outputs["judge"]["decided"]
            rows.append(
                (str(run.config.get("judge", "")), f"{e['value']:.0%}" if e["value"] is not None else "-", str(e["n"]))
            )
    return (
        [grid("Judges and people, on pairs that both decided", ("Judge", "Agreement", "Prompts"), rows)] if rows else []
    )
