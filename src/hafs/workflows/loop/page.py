"""The page of a loop: scores by round, what was decided and why, and what each round was made of, from plain data.

page = loop_page(LoopReport("My loop", ...))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafs.evals.attribution import Attribution
from hafs.evals.compare import Comparison
from hafs.evals.failures import FailureReport, cluster_table
from hafs.evals.failures import lead as failures_lead
from hafs.evals.tables import Cell, Table, main_table, paired_table
from hafs.evals.words import interval, model_title, percent, points, seconds, title
from hafs.files.jsonl import atomic_write
from hafs.report.blocks import (
    Block,
    Climb,
    Figure,
    Grid,
    ReportPage,
    Rung,
    Section,
    ShownVerdict,
    Text,
    Track,
    Verdicts,
)
from hafs.report.charts import tidy
from hafs.report.curves import charts_of
from hafs.report.data import Example, Failures, PairSource, Rerun, Stage, Training
from hafs.report.html import page_to_html
from hafs.report.markdown import page_to_markdown
from hafs.report.view import change_forest, examples_section, failures_section, headline, rerun_section, time_section
from hafs.statistics import Estimate
from hafs.workflows.loop.decide import Ruling, Signs

__all__ = ["AskedFamilies", "LoopReport", "RoundReport", "RoundScore", "loop_page", "scores_table", "write_loop_report"]

_STYLES = ("new", "ref", "alt", "base")


@dataclass(frozen=True)
class RoundScore:
    """A model of the loop: its content hash, pass rates by benchmark, mean answer length (tokens).

    `kept` is False for a round that was rolled back.
    """

    name: str
    model: str
    rates: Mapping[str, Estimate]
    tokens: float | None = None
    kept: bool = True


@dataclass(frozen=True)
class AskedFamilies:
    """What a round asked of one family: its failed share of `n` decision prompts before, new prompts, answers to each.

    `right` is the share of those answers that were right (None when none was scored); `references` says whether the
    known answer was the winner, the model having none of its own.
    """

    family: str
    failed: float
    n: int
    prompts: int
    candidates: int
    right: float | None = None
    references: bool = False


@dataclass(frozen=True)
class Winners:
    """SFT on the right winners of a round, beside its DPO: its gain on the decision prompts, how much of DPO's gain is
    the data's, and whether it was kept in DPO's place."""

    name: str
    model: str
    gain: Estimate
    attribution: Attribution
    kept: bool


@dataclass(frozen=True)
class RoundReport:
    """One round: what it began with, asked, trained on and learnt, how far it moved, and what was decided.

    `gain` is the paired change of the pass rate on the decision prompts; `changed` are settings of this round alone.
    """

    name: str
    model: str
    reference: str
    reference_model: str
    ruling: Ruling
    gain: Estimate
    signs: Signs
    asked: tuple[AskedFamilies, ...] = ()
    sources: tuple[PairSource, ...] = ()
    off_policy: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    training: Training | None = None
    changed: Mapping[str, Any] = field(default_factory=dict)
    winners: Winners | None = None

    def to_dict(self) -> dict[str, Any]:
        """The round as JSON: what it began with, what was decided and why."""
        return {
            "name": self.name,
            "model": self.model,
            "reference": self.reference,
            "reference_model": self.reference_model,
            "action": self.ruling.action,
            "rules": list(self.ruling.rules),
            "reason": self.ruling.reason,
            "gain": vars(self.gain),
            "signs": vars(self.signs),
            "asked": [vars(a) for a in self.asked],
            "edges": {s.source: s.edges for s in self.sources},
            "changed": dict(self.changed),
            "kept": self.kept,
            "winners": {
                **vars(self.winners),
                "gain": vars(self.winners.gain),
                "attribution": self.winners.attribution.to_dict(),
            }
            if self.winners
            else None,
        }

    @property
    def kept(self) -> str:
        """The model that the round promoted: its own, that of SFT on its right winners, or "" for none."""
        if self.winners is not None and self.winners.kept:
            return self.winners.name
        return self.name if self.ruling.action == "promote" else ""

    @property
    def kept_gain(self) -> Estimate:
        """The change of what the round promoted on the decision prompts; of its DPO where it promoted nothing."""
        return self.winners.gain if self.winners is not None and self.winners.kept else self.gain


@dataclass(frozen=True)
class LoopReport:
    """A whole loop. `models` are in order, the start first; `kept` names the best; `decides` the decision benchmark.

    `comparison` sets the kept model beside the one that the rounds began with, on the benchmarks that decided nothing.
    `stop` is None while the loop runs. `judges` are calibrations of judges (title and figures), `agreement` lines on
    how far people agree. `cost` is in US dollars, None where no price is known.
    """

    title: str
    kept: str
    decides: str
    models: tuple[RoundScore, ...]
    rounds: tuple[RoundReport, ...] = ()
    stop: Ruling | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    comparison: Comparison | None = None
    why: FailureReport | None = None
    failures: Failures | None = None
    examples: tuple[Example, ...] = ()
    taught: Training | None = None
    judges: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    agreement: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    cost: float | None = None
    rerun: Rerun | None = None
    notes: tuple[str, ...] = ()


def write_loop_report(report: LoopReport, path: Path) -> Path:
    """Write the page and its Markdown twin beside it; returns the page's path."""
    page = loop_page(report)
    for target, text in ((path, page_to_html(page)), (path.with_suffix(".md"), page_to_markdown(page))):
        with atomic_write(target) as f:
            f.write(text.encode("utf-8", "replace").decode("utf-8"))  # a model can emit half a character
    return path


def loop_page(r: LoopReport) -> ReportPage:
    """The page as blocks; a section without data is left out."""
    sections = [
        _scores(r),
        _decisions(r),
        _result(r.comparison) if r.comparison else None,
        _failures(r),
        examples_section(r.examples) if r.examples else None,
        _drift(r) if r.rounds else None,
        _asked(r),
        _sources(r),
        _people(r),
        _taught(r),
        _time(r) if r.stages else None,
        rerun_section(r.rerun) if r.rerun else None,
        Section("notes", "Notes", tuple(Text(line, small=True) for line in r.notes)),
    ]
    return ReportPage(
        title=r.title,
        lead=headline(r.comparison) if r.comparison else _standing(r),
        verdict=_verdict(r),
        reason=r.stop.reason if r.stop else "The loop is still running.",
        figures=_figures(r),
        sections=tuple(s for s in sections if s and s.blocks),
    )


def _standing(r: LoopReport) -> str:
    return f"No round has been better than {model_title(r.kept)}." if r.rounds else f"{model_title(r.kept)} is ready."


def _verdict(r: LoopReport) -> tuple[str, str]:
    kept = f"{model_title(r.kept)} kept"
    if r.stop is None:
        return f"running · {kept} so far", "even"
    better = r.comparison is not None and r.comparison.verdict == "better"
    return f"stopped: {', '.join(r.stop.rules)} · {kept}", "good" if better else "even"


def _figures(r: LoopReport) -> tuple[Figure, ...]:
    """The kept model on every reported benchmark, the rounds, and the time."""
    by_name = {m.name: m for m in r.models}
    out = []
    for i, (name, rate) in enumerate(_reported(r, by_name[r.kept])[:2]):
        sub = f"{interval(rate)}, n={rate.n}"
        out.append(Figure(title(name), percent(rate.value), sub, _STYLES[i]))
    back = sum(x.ruling.action == "roll back" for x in r.rounds)
    gone = f"{back} rolled back" if back else "none rolled back"
    out.append(Figure("Rounds", str(len(r.rounds)), gone if r.rounds else ""))
    if r.stages:
        cost = "" if r.cost is None else f"${r.cost:.2f}"
        out.append(Figure("Time", seconds(sum(s.seconds for s in r.stages)), cost))
    return tuple(out)


def _reported(r: LoopReport, m: RoundScore) -> list[tuple[str, Estimate]]:
    """The benchmarks that decide nothing first."""
    return sorted(m.rates.items(), key=lambda x: x[0] == r.decides)


def _scores(r: LoopReport) -> Section:
    names = [name for name, _ in _reported(r, r.models[0])]
    tracks = [
        Track(title(b), _STYLES[i % len(_STYLES)], tuple(_rung(m.rates.get(b)) for m in r.models), r.targets.get(b))
        for i, b in enumerate(names)
    ]
    chart = Climb(
        "Share of prompts passed, with 95% intervals",
        tuple(model_title(m.name) for m in r.models),
        tuple(m.kept for m in r.models),
        tuple(tracks),
        scores_table(r),
    )
    said = (
        f"Each round starts from the best model so far, which is also its reference. The {_size(r)}decision prompts"
        " decide whether it is kept; the benchmarks are only reported."
    )
    return Section("scores", "Scores by round", (Text(said, small=True), chart))


def _size(r: LoopReport) -> str:
    rate = r.models[0].rates.get(r.decides)
    return f"{rate.n} " if rate else ""


def _rung(e: Estimate | None) -> Rung | None:
    if e is None or e.value is None or e.low is None or e.high is None:
        return None
    return Rung(e.value, e.low, e.high)


def scores_table(r: LoopReport) -> Table:
    """A row for each model: pass rates, the change that decided, answer length, and the decision."""
    names = [name for name, _ in _reported(r, r.models[0])]
    rounds = {x.name: x for x in r.rounds}
    beside = {x.winners.name: x for x in r.rounds if x.winners}
    rows = []
    for m in r.models:
        x = rounds.get(m.name)
        w = beside.get(m.name)
        gain = x.gain if x else w.winners.gain if w and w.winners else None
        done = _done(x) if x else ("promoted" if w.kept == m.name else "beside DPO") if w else "start"
        rows.append(
            (
                Cell(model_title(m.name), m.model[:8]),
                *(_rate(m.rates.get(b)) for b in names),
                Cell(points(gain.value), interval(gain, change=True)) if gain else Cell("-"),
                Cell("-" if m.tokens is None else f"{m.tokens:.1f}"),
                Cell(done if m.name != "baseline" else "-"),
            )
        )
    return Table("", ("Model", *(title(b) for b in names), "Change (points)", "Tokens", "Decision"), tuple(rows))


def _rate(e: Estimate | None) -> Cell:
    if e is None or e.value is None:
        return Cell("-")
    return Cell(percent(e.value), f"{interval(e)}, n={e.n}")


def _done(x: RoundReport) -> str:
    if x.winners is not None and x.winners.kept:
        return f"{model_title(x.winners.name)} promoted in its place"
    return "promoted" if x.ruling.action == "promote" else "rolled back"


def _decisions(r: LoopReport) -> Section:
    out = []
    for x in r.rounds:
        reference = f"Reference: {model_title(x.reference)} ({x.reference_model})."
        changed = f" This round alone: {', '.join(_flat(x.changed))}." if x.changed else ""
        style = {"promote": "good", "roll back": "bad"}[x.ruling.action]
        out.append(ShownVerdict(model_title(x.name), _done(x), style, x.ruling.reason, reference + changed))
    if r.stop:
        out.append(ShownVerdict("The loop", "stopped", "even", r.stop.reason, f"Kept: {model_title(r.kept)}."))
    return Section("decisions", "What was decided, and why", (Verdicts(tuple(out)),) if out else ())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    out = []
    for key, value in settings.items():
        out += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key} = {value}"]
    return out


def _result(c: Comparison) -> Section:
    blocks: list[Block] = [Grid(main_table(c)), Text(c.decisions[c.candidate].sentence)]
    forest = change_forest(c)
    if forest:
        blocks.append(forest)
    blocks.append(Grid(paired_table(c)))
    return Section("result", f"{model_title(c.candidate)} against {model_title(c.reference)}", tuple(blocks))


def _failures(r: LoopReport) -> Section | None:
    blocks: list[Block] = []
    if r.failures and r.failures.causes:
        blocks += failures_section(r.failures).blocks
    if r.why and r.why.clusters:
        blocks += [Text(failures_lead(r.why)), Grid(cluster_table(r.why))]
    return Section("failures", "Failures before and after", tuple(blocks))


def _drift(r: LoopReport) -> Section:
    """How far each round moved: the curves of all rounds on one axis, and the figures they ended with."""
    trained = [x.training for x in r.rounds if x.training is not None]
    rows = tuple(
        (
            Cell(model_title(x.name), f"step {x.signs.kept} of {x.signs.steps} kept"),
            *map(_figure, (x.signs.margin, x.signs.chosen, x.signs.rejected, x.signs.kl)),
        )
        for x in r.rounds
    )
    header = ("Round", "Reward margin (nats)", "Chosen (nats)", "Rejected (nats)", "KL (nats a token)")
    table = Table("Over the last quarter of the steps up to the one that was kept", header, rows)
    blocks: list[Block] = [Grid(table), *charts_of(*trained)]
    blocks += [Text(f"{model_title(t.name)}: {t.note}") for t in trained if t.note]
    return Section("drift", "Margins, log-probabilities, length, KL", tuple(blocks))


def _figure(value: float | None) -> Cell:
    return Cell("-" if value is None else tidy(value))


def _asked(r: LoopReport) -> Section:
    """What each round asked, a row for each family."""
    if not r.rounds:
        return Section("asked", "", ())
    text = Text(
        "New prompts × answers to each; below, the family's failed share of the decision prompts before, and the share"
        " of the sampled answers that were right. The more a family fails, the more it is asked; one that is neither"
        " hopeless nor solved gets more answers. \u2018Known answer\u2019: none of its samples was right, so the known"
        " answer was the winner (off-policy).",
        small=True,
    )
    most = {a.family: a.prompts for x in reversed(r.rounds) for a in x.asked}
    by_round = [{a.family: a for a in x.asked} for x in r.rounds]
    rows = tuple(
        (Cell(family or "(no family)"), *(_ask(found.get(family)) for found in by_round))
        for family in sorted(most, key=lambda f: (-most[f], f))
    )
    table = Table("", ("Family", *(model_title(x.name) for x in r.rounds)), rows)
    return Section("asked", "What each round asked", (text, Grid(table)))


def _ask(a: AskedFamilies | None) -> Cell:
    if a is None or not a.prompts:
        return Cell("-")
    said = [f"{percent(a.failed)} failed" if a.n else "not measured"]
    said += [f"{percent(a.right)} right"] if a.right is not None else []
    said += ["known answer"] if a.references else []
    return Cell(f"{a.prompts} × {a.candidates}", ", ".join(said))


def _sources(r: LoopReport) -> Section:
    rows = []
    for x in r.rounds:
        total = sum(s.edges for s in x.sources)
        rows += [
            (
                Cell(model_title(x.name)),
                Cell(s.source),
                Cell(f"{s.groups:,}"),
                Cell(f"{s.edges:,}"),
                Cell(percent(s.edges / total)),
            )
            for s in x.sources
        ]
    if not rows:
        return Section("pairs", "", ())
    header = ("Round", "Source", "Groups", "Edges", "Share of edges")
    blocks: list[Block] = [Grid(Table("Preference edges by round and source", header, tuple(rows)))]
    for x in r.rounds:
        left = "; ".join(f"{n} prompts made no group: {why}" for why, n in x.skipped.items())
        off = f"{x.off_policy} candidates were not the model's own (off-policy). " if x.off_policy else ""
        if left or off:
            blocks.append(Text(f"{model_title(x.name)}: {off}{left}{'.' if left else ''}", small=True))
    return Section("pairs", "Where the pairs came from", tuple(blocks))


def _people(r: LoopReport) -> Section:
    """Calibrated judges and how far people agree."""
    blocks: list[Block] = [Text(line) for line in r.agreement]
    for name, figures in r.judges:
        rows = tuple((Cell(x.partition(" = ")[0]), Cell(x.partition(" = ")[2])) for x in _flat(figures))
        blocks.append(Grid(Table(name, ("What", "Value"), rows, plain=True)))
    return Section("people", "Judges and people", tuple(blocks))


def _taught(r: LoopReport) -> Section | None:
    if r.taught is None:
        return None
    charts = charts_of(r.taught)
    note = (Text(r.taught.note),) if r.taught.note else ()
    return Section("sft", "Training: SFT", (*charts, *note) if charts else ())


def _time(r: LoopReport) -> Section:
    section = time_section(r.stages)
    if r.cost is None:
        return section
    return Section("time", "Time and cost", (*section.blocks, Text(f"Cost: ${r.cost:.2f}.")))
