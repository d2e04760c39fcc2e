"""A calibration, a plan and a win rate in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hafs.judge.bias import BiasCard, Preference
from hafs.judge.calibrate import Agreement, Calibration
from hafs.judge.plan import JudgePlan
from hafs.judge.winrate import Rates, WinRate
from hafs.statistics import Estimate


def percent(e: Estimate | float | None) -> str:
    """A share as a percentage, with its interval where it has one."""
    if e is None:
        return "-"
    if isinstance(e, float | int):
        return f"{100 * e:.1f}%"
    if e.value is None:
        return "-"
    return f"{100 * e.value:.1f}% ({100 * (e.low or 0):.1f}–{100 * (e.high or 0):.1f})"


def points(e: Estimate) -> str:
    """A difference of shares in signed points with its interval."""
    if e.value is None or e.low is None or e.high is None:
        return "-"
    return f"{100 * e.value:+.1f} ({100 * e.low:+.1f} to {100 * e.high:+.1f})".replace("-", "−")


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.2f}".replace("-", "−")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def calibration_text(c: Calibration) -> str:
    """The claim, the agreement, the probabilities and the bias card."""
    lines = [
        f"{c.source.removeprefix('judge:')}, {c.protocol}: {c.judged_prompts} prompts judged,"
        f" {c.labelled_prompts} of them labelled",
        c.claim(),
    ]
    if c.certificate.threshold is not None:
        lines.append(
            f"threshold: margin {c.certificate.threshold:.2f} or more, a probability of"
            f" {c.p(c.certificate.threshold):.2f}; agreement there {percent(c.certificate.agreement)}"
            f" on {c.certificate.prompts} prompts"
        )
    rows = [["agreement", "both decided", "ties counted", "kappa", "alpha", "pairs"]]
    rows.append(_agreement("judge, person", c.judge))
    rows.append(_agreement("person, again", c.person) if c.person else ["person, again", "no repeats", *["-"] * 4])
    if c.people:
        rows.append(_agreement("two people", c.people))
    lines += ["", *_table(rows), "", *_probability_lines(c), "", *card_lines(c.card)]
    total = sum(c.opinions.values())
    said = ", ".join(f"{n} {_SAYS[says]}" for says, n in _merged(c.opinions).items())
    lines += ["", f"{total} pairs: {said}", "verdicts: " + ", ".join(f"{n} {o}" for o, n in sorted(c.verdicts.items()))]
    return "\n".join(lines)


_SAYS = {"decided": "decided", "tie": "ties", "disagrees": "on which it contradicts itself", "missing": "missing"}


def _merged(opinions: Mapping[str, int]) -> dict[str, int]:
    counts = dict(opinions)
    decided = counts.pop("a", 0) + counts.pop("b", 0)
    return {"decided": decided, **{says: counts[says] for says in _SAYS if says in counts}}


def _agreement(name: str, a: Agreement) -> list[str]:
    return [name, percent(a.decided), percent(a.with_ties), _number(a.kappa), _number(a.alpha), str(a.pairs)]


def _probability_lines(c: Calibration) -> list[str]:
    return _table(
        [
            ["probabilities", "Brier", "calibration error"],
            ["the judge's own", _number(c.raw.brier), _number(c.raw.ece)],
            [f"calibrated (slope {c.slope:.2f}), cross-fitted", _number(c.calibrated.brier), _number(c.calibrated.ece)],
        ]
    )


def card_lines(card: BiasCard) -> list[str]:
    """The bias card."""
    rows = [
        ["bias card", "judge", "person", "difference (points)"],
        ["first slot wins (fair: 50%)", percent(card.first_slot), "", ""],
        ["contradicts itself between the orders", percent(card.flips), "", ""],
        _preference("the longer answer wins", card.longer),
    ]
    if card.own is not None:
        rows.append(_preference("its own model's answer wins", card.own))
    for name, probe in card.probes.items():
        asked = probe.won + probe.tied + probe.lost
        rows.append([f"probe {name!r} wins", f"{probe.won} of {asked}, {probe.tied} ties", "", ""])
    if not card.probes:
        rows.append(["probes", "not asked", "", ""])
    return _table(rows)


def _preference(name: str, p: Preference) -> list[str]:
    return [name, percent(p.judge), percent(p.person), points(p.excess)]


def plan_text(p: JudgePlan) -> str:
    """What certifying takes, by share of the edges."""
    pace = f"{p.seconds:.0f} s a prompt" + ("" if p.measured else ", assumed: no label was timed")
    lines = [
        f"{p.source.removeprefix('judge:')}: {p.labelled} of {p.judged} judged prompts are labelled ({pace})",
        f"to show agreement ≥ {p.target:.0%} at {p.level:.0%} confidence, four times in five:",
        "",
    ]
    rows = [["edges used", "agreement seen", "labels needed", "more", "minutes"]]
    for r in p.rows:
        seen = "-" if r.agreement is None else f"{r.agreement:.0%} of {r.prompts} prompts"
        if r.needed is None:
            rows.append([f"{r.share:.0%}", seen, "out of reach", "-", "-"])
        else:
            rows.append([f"{r.share:.0%}", seen, str(r.needed), str(r.more), f"{r.minutes:.0f}"])
    lines += _table(rows)
    if any(r.prompts < 10 for r in p.rows):
        lines.append(f"where fewer than 10 prompts were seen, agreement of {p.expected:.0%} is assumed")
    return "\n".join(lines)


def win_rate_text(w: WinRate) -> str:
    """The rates side by side."""
    lines = [
        f"{w.a} against {w.b}: {w.prompts} prompts judged by {w.source.removeprefix('judge:')},"
        f" {w.labelled} of them labelled by people"
    ]
    if w.missing:
        lines.append(f"{w.missing} more prompts have no usable verdict and count for nothing")
    rows = [["win rate", "raw", "length-controlled"]]
    for name, field in (("judge alone", "judge"), ("people alone", "people"), ("judge, corrected", "corrected")):
        controlled = "-" if w.length_controlled is None else percent(getattr(w.length_controlled, field))
        rows.append([name, percent(getattr(w.raw, field)), controlled])
    lines += ["", *_table(rows), ""]
    lines.append(_power(w.raw))
    if w.judge_slope is not None:
        people = "" if w.people_slope is None else f", of people {w.people_slope:+.2f}".replace("-", "−")
        lines.append(f"slope of length, shared by {len(w.models)} models: of the judge {w.judge_slope:+.2f}{people}")
    return "\n".join(lines)


def _power(rates: Rates) -> str:
    if rates.corrected.value is None:
        return "too few labels to correct the judge: 10 prompts at least"
    return f"the correction uses the judge with a power of {rates.power:.2f} (0: people alone)"
