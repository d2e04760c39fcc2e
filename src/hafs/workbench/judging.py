"""Judges: what they cost and how they failed, the bias card, the calibration curve, and which prompts to label next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hafs.errors import HafsError
from hafs.workbench.view import OpenWorkspace, Query, View, grid

NEXT = 20
"""Prompts that are named as the next to label."""
BINS = 8


def judge(bench: OpenWorkspace, query: Query) -> View:
    """The page of the judges."""
    from hafs.judge.run.ledger import Ledger
    from hafs.report.blocks import Section

    book = Ledger(bench.store)
    spending, failures = book.spending(), book.failures()
    named = sorted({v.judge for v in bench.store.verdicts()})
    chosen = query.get("judge", "") or (named[0] if named else "")
    ledger = [
        (
            r["day"],
            r["judge"],
            f"{r['answered']:,} of {r['attempts']:,}",
            f"{r['input_tokens']:,} + {r['output_tokens']:,}",
            f"${r['cost']:.4f}",
            f"{r['seconds']:.2f}",
        )
        for r in spending
    ]
    went_wrong = [(r["judge"], r["status"], str(r["times"]), r["reason"]) for r in failures]
    header = ("Day (UTC)", "Judge", "Answered", "Tokens in + out", "Cost", "Seconds each")
    sections = (
        Section("card", "Bias card", tuple(_cards(bench))),
        Section("curve", "Calibration curve", tuple(_curve(bench, chosen))),
        Section("next", "The next most useful prompts to label", tuple(_next(bench, chosen))),
        Section("ledger", "Ledger", (grid("By day and judge", header, ledger),) if ledger else ()),
        Section(
            "trouble",
            "What went wrong",
            (grid("By kind", ("Judge", "What", "Times", "Newest reason"), went_wrong, plain=True),)
            if went_wrong
            else (),
        ),
    )
    cost = sum(r["cost"] for r in spending)
    figures = (
        ("Judges", str(len(named)), ", ".join(named)),
        ("Spent", f"${cost:.2f}", "of answers with a known price"),
    )
    lead = "" if named or spending else "No judge was asked yet: `hafs judge run --judge NAME`."
    return View("judge", "Judges", lead, figures if named or spending else (), sections, live=True)


def _cards(bench: OpenWorkspace) -> list[Any]:
    """The bias card of each calibrated judge."""
    from hafs.report.blocks import Text

    out: list[Any] = []
    seen = set()
    for run in bench.store.runs(kind="calibration"):
        name = str(run.config.get("judge", ""))
        if run.status != "finished" or name in seen:
            continue
        seen.add(name)
        card = run.outputs["card"]
        longer = card["longer"]
        rows = [
            ("wins of the answer shown first", _share(card["first_slot"]), "50% is fair"),
            ("pairs on which it contradicts itself", _share(card["flips"]), "0% is best"),
            ("wins of the longer answer, by the judge", _share(longer["judge"]), "all of its edges"),
            ("… where a person decided too", _share(longer["judge_here"]), f"the person: {_share(longer['person'])}"),
        ]
        agreed = run.outputs["judge"]["decided"]
        rows.append(("agreement with people", _share(agreed), f"{agreed['n']} prompts"))
        out.append(grid(name, ("What", "Share", ""), rows))
    return out or [
        Text("No judge is calibrated here: `hafs judge calibrate` measures one on people's labels.", small=True)
    ]


def _share(e: Mapping[str, Any]) -> str:
    if e["value"] is None:
        return "-"
    return f"{e['value']:.0%}" + (f" ({e['low']:.0%}\u2013{e['high']:.0%})" if e["low"] is not None else "")


def _curve(bench: OpenWorkspace, chosen: str) -> list[Any]:
    """How often people agree with the judge, by how sure it is."""
    if not chosen:
        return []
    import numpy as np
    import scipy.special

    from hafs.evals.tables import Cell, Table
    from hafs.judge.calibrate import gather, labelled, newest_calibration
    from hafs.report.blocks import Lines, Series, Text

    try:
        evidence = gather(bench.store, [chosen])
        found = labelled(evidence)
    except HafsError as e:
        return [Text(f"{e.what}. {e.fix}", small=True)]
    if not len(found.margins):
        return [Text("No pair was decided by the judge and by a person.", small=True)]
    known = newest_calibration(bench.store, evidence.source, evidence.protocol)
    slope = known.slope if known else 1.0
    p = scipy.special.expit(slope * found.margins)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, max(0, len(edges) - 2))
    rows = [
        (float(p[place == i].mean()), float(found.agrees[place == i].mean()), int((place == i).sum()))
        for i in np.unique(place)
    ]
    table = Table(
        "Pairs by the judge's probability",
        ("Says", "Agreed", "Pairs"),
        tuple((Cell(f"{x:.0%}"), Cell(f"{y:.0%}"), Cell(str(n))) for x, y, n in rows),
    )
    low = min(0.5, *(x for x, _, _ in rows))
    series = (
        Series("perfect", ((low, low), (1.0, 1.0)), "base"),
        Series("people", tuple((x, y) for x, y, _ in rows), "new", True),
    )
    said = "calibrated" if known else "not calibrated: the judge's own"
    caption = f"{len(found.margins)} pairs that a person decided too; probabilities {said}."
    return [
        Lines(
            "How often people agree",
            "the judge's probability",
            "share of pairs that people decide the same way",
            series,
            caption,
            table,
            share=True,
        )
    ]


def _next(bench: OpenWorkspace, chosen: str) -> list[Any]:
    """The prompts where the judge is least sure and no person has spoken."""
    from hafs.judge.aggregate import aggregate
    from hafs.report.blocks import Text

    asked = {a.prompt_id for a in bench.store.annotations()}
    judged = aggregate(list(bench.store.verdicts(judge=chosen))) if chosen else []
    sure = {
        j.prompt_id: max((abs(o.margin) for o in j.opinions), default=0.0) for j in judged if j.prompt_id not in asked
    }
    first = sorted(sure, key=lambda id: (sure[id], id))[:NEXT]
    if not first:
        return [Text("No judged prompt waits for a person.", small=True)]
    text = {p.id: p.text for p in bench.store.prompts(ids=first)}
    rows = [(text[id][:100], f"{sure[id]:.2f}", id) for id in first]
    return [
        Text(
            "Least sure first. `hafs judge queue` draws a queue with known probabilities of these; a prompt's page"
            " sends it to people.",
            small=True,
        ),
        grid(f"By the largest margin of {chosen} (log-odds)", ("Prompt", "Margin", "Id"), rows, plain=True),
    ]
