"""The loop: its rounds and decisions, what the next round would ask, and the gain against hours and dollars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from hafs.workbench.view import OpenWorkspace, Query, View, grid

FILE = "loop.json"


def loop(bench: OpenWorkspace, query: Query) -> View:
    """The page of the loop, as it stands."""
    try:
        said = json.loads((bench.root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        lead = (
            "No loop has ended a round here. `hafs loop run` writes where it stands after each round; what it does"
            " meanwhile is under Now."
        )
        return View("loop", "Loop", lead, live=True)
    from hafs.report.blocks import Section, Text

    hours = sum(said["seconds"].values()) / 3600
    path = _path(said)
    words = forecast(path)
    figures = [
        ("Kept", said["kept"], "the best model so far"),
        ("Rounds", str(len(said["rounds"])), f"of at most {said['limits']['max_rounds']}"),
        ("Time", f"{hours:.1f} h", "" if said["cost"] is None else f"${said['cost']:.2f}"),
    ]
    if path:
        figures.append(("Gain", f"{100 * path[-1][1]:+.1f}", "points on the decision prompts, of what was kept"))
    sections = (
        Section("scores", "Scores by round", _scores(said)),
        Section("decisions", "Decisions", _decisions(said)),
        Section("next", "The next round, before it is run", _plan(bench, said)),
        Section("gain", "Gain against hours and dollars", (*_gain(said, path), Text(words))),
    )
    lead = said["stop"]["reason"] if said["stop"] else "The loop has not stopped: the same command goes on."
    return View("loop", "Loop", lead, tuple(figures), sections, live=True)


Rate = Mapping[str, Any]


def _scores(said: Mapping[str, Any]) -> tuple[Any, ...]:
    """The climb of the models on every benchmark, with the same figures as a table."""
    from hafs.evals.tables import Cell, Table
    from hafs.evals.words import interval, model_title, percent, title
    from hafs.report.blocks import Climb, Rung, Track
    from hafs.statistics import Estimate

    scores: dict[str, dict[str, Rate]] = said["scores"]
    benchmarks = sorted({b for rates in scores.values() for b in rates}, key=lambda b: b == said["decides"])
    back = {r["name"] for r in said["rounds"] if r["kept"] != r["name"]}

    def rung(rate: Rate | None) -> Any:
        return None if rate is None or rate["value"] is None else Rung(rate["value"], rate["low"], rate["high"])

    styles = ("new", "ref", "alt", "base")
    tracks = [
        Track(title(b), styles[i % 4], tuple(rung(r.get(b)) for r in scores.values()), said["limits"]["target"].get(b))
        for i, b in enumerate(benchmarks)
    ]
    rows = []
    for name, rates in scores.items():
        cells = [Estimate(**rates[b]) if b in rates else None for b in benchmarks]
        shown = (
            Cell("-") if e is None or e.value is None else Cell(percent(e.value), f"{interval(e)}, n={e.n}")
            for e in cells
        )
        rows.append((Cell(model_title(name)), *shown))
    table = Table("", ("Model", *map(title, benchmarks)), tuple(rows))
    names = tuple(model_title(n) for n in scores)
    return (
        Climb(
            "Share of prompts passed, with 95% intervals",
            names,
            tuple(n not in back for n in scores),
            tuple(tracks),
            table,
        ),
    )


def _decisions(said: Mapping[str, Any]) -> tuple[Any, ...]:
    from hafs.evals.words import model_title
    from hafs.report.blocks import ShownVerdict, Verdicts

    out = []
    for r in said["rounds"]:
        done = f"{model_title(r['kept'])} promoted" if r["kept"] else "rolled back"
        out.append(ShownVerdict(model_title(r["name"]), done, "good" if r["kept"] else "bad", r["reason"], ""))
    if said["stop"]:
        out.append(ShownVerdict("The loop", "stopped", "even", said["stop"]["reason"], ""))
    return (Verdicts(tuple(out)),) if out else ()


def _plan(bench: OpenWorkspace, said: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the next round asks, by the rule of the loop and the kept model's newest answers."""
    from hafs.evals import failures
    from hafs.evals.kept import newest_results
    from hafs.report.blocks import Text
    from hafs.workflows.loop.ask import plan

    decided = [r for r in newest_results(bench.store, said["kept"]) if r.benchmark == said["decides"]]
    if not decided:
        return (Text("The kept model has no evaluation on the decision prompts here.", small=True),)
    found = failures(decided[-1]).families
    failed = {f: (found[f].share, found[f].n) for f in said["families"] if f in found}
    limits = said["limits"]
    asks = plan(failed, said["families"], limits["round_prompts"], limits["candidates"], limits["more_candidates"])
    rows = [
        (
            a.family,
            f"{a.failed:.0%} of {a.n}" if a.n else "not measured",
            str(a.prompts),
            str(a.candidates),
            f"{a.prompts * a.candidates:,}",
        )
        for a in sorted(asks, key=lambda a: -a.prompts)
    ]
    header = ("Family", "Failed", "New prompts", "Answers to each", "Answers")
    return (grid("By the kept model's failures on the decision prompts", header, rows),)


def _path(said: Mapping[str, Any]) -> list[tuple[float, float, float | None]]:
    """(hours, gain of what is kept, dollars) after each round, together."""
    price = said["limits"]["price_per_hour"]
    names = [r["name"] for r in said["rounds"]]
    hours = sum(v for k, v in said["seconds"].items() if not any(_of(k, n) for n in names)) / 3600
    gain, out = 0.0, []
    for r in said["rounds"]:
        hours += sum(v for k, v in said["seconds"].items() if _of(k, r["name"])) / 3600
        promoted = r["winners"]["gain"] if r["winners"] and r["kept"] == r["winners"]["name"] else r["gain"]
        gain += (promoted["value"] or 0.0) if r["kept"] else 0.0
        out.append((hours, gain, hours * price if price else None))
    return out


def _of(stage: str, name: str) -> bool:
    return stage.startswith(f"{name}:") or stage == f"evaluate {name}"


def forecast(path: list[tuple[float, float, float | None]]) -> str:
    """What another round would bring if it went on as the last two went: a rule of thumb, and called one."""
    if not path:
        return "There is no round yet to forecast from."
    hours = [b[0] - a[0] for a, b in pairwise(path)] or [path[0][0]]
    gains = [path[0][1], *(b[1] - a[1] for a, b in pairwise(path))]
    last = gains[-1]
    ratio = (
        min(1.0, max(0.0, last / gains[-2])) if len(gains) > 1 and gains[-2] > 0 else 1.0 if len(gains) == 1 else 0.0
    )
    each = sum(hours) / len(hours)
    dollars = "" if path[-1][2] is None or not path[-1][0] else f" and ${each * path[-1][2] / path[-1][0]:.2f}"
    return (
        f"Another round would take about {each:.1f} hours{dollars}. If gains go on shrinking as between the last two"
        f" rounds (a rule of thumb, no interval), it would bring {100 * last * ratio:+.1f} points."
    )


def _gain(said: Mapping[str, Any], path: list[tuple[float, float, float | None]]) -> tuple[Any, ...]:
    from hafs.evals.tables import Cell, Table
    from hafs.report.blocks import Lines, Series

    if not path:
        return ()
    rows = tuple(
        (Cell(r["name"]), Cell(f"{h:.2f}"), Cell("-" if d is None else f"${d:.2f}"), Cell(f"{100 * g:+.1f}"))
        for r, (h, g, d) in zip(said["rounds"], path, strict=True)
    )
    table = Table("Gain so far", ("Round", "Hours", "Dollars", "Points"), rows)
    points = ((0.0, 0.0), *((h, 100 * g) for h, g, _ in path))
    caption = f"{100 * path[-1][1]:+.1f} points after {path[-1][0]:.1f} hours."
    return (
        Lines(
            "Gain of the kept model",
            "hours",
            "points on the decision prompts",
            (Series("kept", points, "new", True),),
            caption,
            table,
        ),
    )
