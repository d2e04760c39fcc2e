"""From a judge's verdicts and people's labels to preference groups, and the hybrid path around them.

The hybrid path is the guide's: N candidates -> the automatic scorer drops what is wrong -> the judge ranks the rest ->
the prompts that tell most go to the person -> the calibrated judge does the others. Each stage asks the workspace what
is there and does the rest, so the same call goes on where it was left, also after the person's work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import scipy

from hafs.errors import UsageError
from hafs.judge.aggregate import Judged, aggregate
from hafs.judge.calibrate import Calibration, calibrate, newest_calibration, read_verdicts
from hafs.judge.labels import Merged, Pair, read_labels
from hafs.judge.queue import check_queue, newest_queue, pick, queued, save_queue
from hafs.preferences import group_from_edges, people_edges, people_said, same_text
from hafs.scorers.run import checker_of
from hafs.store import Store
from hafs.types import Candidate, Edge, PreferenceGroup, Prompt, Score, Verdict, content_id

Shortlist = Mapping[str, Sequence[Candidate]]
"""The candidates of each prompt (by its id) that are worth a judge's time, best first where a scorer said so."""

AskJudge = Callable[[Store, Shortlist], int]
"""Asks a judge what is left to ask about the candidates given, and keeps its verdicts; returns how many came."""


@dataclass
class JudgedReport:
    """What became of the judged prompts: groups, and edges by who made them.

    `untrusted` counts edges of the judge below the certified threshold, `undecided` pairs without an edge by what the
    judge said of them ("tie", "disagrees" with itself, "missing"), `against` decided pairs of which its comparisons
    with the other candidates say the opposite, `calibrated` whether its edges are.
    """

    source: str
    prompts: int = 0
    groups: int = 0
    human_edges: int = 0
    judge_edges: int = 0
    untrusted: int = 0
    against: int = 0
    undecided: Counter[str] = field(default_factory=Counter)
    calibrated: bool = False
    claim: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "undecided": dict(self.undecided)}


def judged_groups(
    store: Store,
    judges: Sequence[str] = (),
    protocol: str = "",
    *,
    calibration: Calibration | None = None,
    all_edges: bool = False,
    max_candidates: int = 8,
    prompt_ids: Collection[str] | None = None,
    model: str | None = None,
    shortlist: Shortlist | None = None,
) -> tuple[list[PreferenceGroup], JudgedReport]:
    """Groups of what people said, and of a judge's verdicts on every pair that no person spoke of.

    With a calibration (by default the judge's newest) its edges have calibrated probabilities, and those below the
    certified threshold are left out unless `all_edges`. Without one they have the judge's own and are marked as not
    calibrated. A pair that the judge does not decide makes no edge, nor one that a person calls a tie. `prompt_ids` and
    a model's hash keep to some prompts and to its candidates, a shortlist to its prompts, and the judge to its answers.
    The groups are kept as those of a run of kind "preferences". Raises UsageError as `read_verdicts`.
    """
    if shortlist is not None:
        prompt_ids = shortlist.keys()
    chosen, verdicts = _verdicts(store, judges, protocol, prompt_ids, model)
    judged = {j.prompt_id: j for j in aggregate(verdicts)}
    source = next((j.source for j in judged.values()), "")
    calibration = calibration or newest_calibration(store, source, chosen)
    labels = read_labels(store, blind=False)
    report = JudgedReport(source, calibrated=calibration is not None)
    report.claim = "the judge is not calibrated" if calibration is None else calibration.claim()
    groups = []
    spoken = judged.keys() | {id for id in labels.of if prompt_ids is None or id in prompt_ids}
    candidates: dict[str, dict[str, Candidate]] = {}
    for c in store.candidates(prompt_ids=spoken, model=model):
        candidates.setdefault(c.prompt_id, {})[c.id] = c
    for prompt in store.prompts(ids=spoken):
        report.prompts += 1
        known = candidates.get(prompt.id, {})
        said = people_said(labels, prompt.id, known.values())
        edges = list(people_edges(said))
        report.human_edges += len(edges)
        if prompt.id in judged:
            machine = list(
                _judges(_about(judged[prompt.id], known, shortlist), calibration, all_edges, said, known, report)
            )
            report.judge_edges += len(machine)
            edges += machine
        group = group_from_edges(prompt, known.values(), edges, max_candidates)
        if group is not None:
            report.groups += 1
            groups.append(group)
    about = {"judge": source, "all_edges": all_edges, "max_candidates": max_candidates}
    about |= {"claim": report.claim, "model": model}
    made = store.once("preferences", about, {"groups": content_id([g.id for g in groups])})
    store.add_groups(groups, run=made.id)
    made.finish(report.to_dict())
    return groups, report


Said = Mapping[Pair, Merged]


def _about(judged: Judged, candidates: Mapping[str, Candidate], shortlist: Shortlist | None) -> Judged:
    """What a judge thinks of the answers on a shortlist."""
    if shortlist is None:
        return judged
    texts = {same_text(c.text) for c in shortlist[judged.prompt_id]}
    kept = {id for id, c in candidates.items() if same_text(c.text) in texts}
    return replace(judged, opinions=tuple(o for o in judged.opinions if {o.a, o.b} <= kept))


def _verdicts(
    store: Store, judges: Sequence[str], protocol: str, prompt_ids: Collection[str] | None, model: str | None
) -> tuple[str, list[Verdict]]:
    """The protocol, and the judges' verdicts by it on some prompts (None: all) that show answers of one model alone."""
    chosen, verdicts = read_verdicts(store, judges, protocol)
    if prompt_ids is not None:
        verdicts = [v for v in verdicts if v.prompt_id in prompt_ids]
    if model is not None:
        mine = {c.id for c in store.candidates(prompt_ids={v.prompt_id for v in verdicts}, model=model)}
        verdicts = [v for v in verdicts if mine.issuperset(v.shown)]
    return chosen, verdicts


def _judges(
    judged: Judged,
    calibration: Calibration | None,
    all_edges: bool,
    said: Said,
    candidates: Mapping[str, Candidate],
    report: JudgedReport,
) -> Iterator[tuple[str, str, Edge]]:
    """The judge's edges on pairs of texts that no person spoke of."""
    spoken = {frozenset(same_text(candidates[id].text) for id in pair) for pair in said}
    report.undecided.update(o.says for o in judged.opinions if not o.decided)
    report.against += sum(o.against for o in judged.opinions)
    for winner, loser, margin in judged.edges():
        if winner not in candidates or loser not in candidates:
            continue
        if frozenset(same_text(candidates[id].text) for id in (winner, loser)) in spoken:
            continue
        if calibration is not None and not all_edges and not calibration.trusts(margin):
            report.untrusted += 1
            continue
        p = float(scipy.special.expit(margin)) if calibration is None else calibration.p(margin)
        if p > 0.5:
            yield winner, loser, Edge(0, 1, p=p, source=judged.source, calibrated=calibration is not None)


# ---- the hybrid path


@dataclass(frozen=True)
class HybridSettings:
    """`keep`: candidates of a prompt that the judge sees; `queue`: prompts for the person, of which the share `audit`
    is picked at random; `target` and `level`: the agreement to certify and at which confidence; `all_edges`: use the
    judge below the certified threshold too; `partial`: go on with the labels there are; `max_candidates` of a group."""

    keep: int = 4
    queue: int = 100
    audit: float = 0.2
    seed: int = 0
    target: float = 0.75
    level: float = 0.95
    count_ties: bool = False
    all_edges: bool = False
    partial: bool = False
    max_candidates: int = 8

    def __post_init__(self) -> None:
        if self.keep < 2:
            raise UsageError(f"a judge that sees {self.keep} candidates compares nothing", "--keep of 2 or more")
        check_queue(self.queue, self.audit)


@dataclass
class Hybrid:
    """How far the path got: what each stage found, the queue's run, what is left for the person, and the groups.

    `groups` and `calibration` are None while the person's labels are waited for.
    """

    prompts: int
    candidates: int
    dropped: int
    judged: int
    asked: int
    queue: str
    queued: int
    labelled: int
    minutes_left: float
    source: str
    calibration: Calibration | None = None
    report: JudgedReport | None = None
    groups: list[PreferenceGroup] | None = None

    def to_dict(self) -> dict[str, Any]:
        whole = {**vars(self), "groups": None, "report": self.report.to_dict() if self.report else None}
        return {**whole, "calibration": self.calibration.to_dict() if self.calibration else None}


def shortlist(answers: Iterable[tuple[Prompt, Sequence[tuple[Candidate, Score | None]]]], keep: int) -> Shortlist:
    """What the automatic scorer leaves of each prompt's candidates: at most `keep`.

    Equal texts are one. What it found wrong is dropped as long as two others are left, then the lowest values; what it
    could not score is neither right nor wrong, and comes after what it did score. Prompts with fewer than two are out.
    """
    kept: dict[str, list[Candidate]] = {}
    for prompt, scored in answers:
        unique = {same_text(c.text): (c, s) for c, s in reversed(scored)}
        rows = sorted(unique.values(), key=lambda row: row[0].id)
        rows.sort(key=lambda row: (_wrong(row[1]), -_value(row[1])))
        right = sum(not _wrong(s) for _, s in rows)
        rows = rows[: min(keep, right if right >= 2 else 2)]
        if len(rows) > 1:
            kept[prompt.id] = [c for c, _ in rows]
    return kept


def _wrong(score: Score | None) -> bool:
    return score is not None and score.passed is False


def _value(score: Score | None) -> float:
    return -1.0 if score is None or score.value is None else score.value


def hybrid(
    store: Store,
    prompts: Sequence[Prompt],
    scorer: str = "",
    judges: Sequence[str] = (),
    protocol: str = "",
    settings: HybridSettings | None = None,
    *,
    ask: AskJudge | None = None,
) -> Hybrid:
    """Go as far along the hybrid path as the workspace allows.

    `scorer` filters by its scores ("automatic": each prompt's own checker by its; empty: no filter), `ask` is called
    with every prompt that is left and asks only what it has no verdict of; a killed call keeps the verdicts that came.
    Raises UsageError when no prompt has two different candidates, or none is judged and there is nobody to ask.
    """
    settings = settings or HybridSettings()
    by_id = {p.id: p for p in prompts}
    answers = list(_answers(store, scorer, by_id))
    kept = shortlist(answers, settings.keep)
    if not kept:
        raise UsageError("no prompt has two different candidates to compare", "hafs generate")
    asked = 0 if ask is None else ask(store, kept)
    chosen, verdicts = read_verdicts(store, judges, protocol)
    judged = {j.prompt_id: j for j in aggregate(v for v in verdicts if v.prompt_id in kept)}
    if not judged:
        raise UsageError("none of the prompts is judged", "hafs judge run")
    source = next(iter(judged.values())).source
    labels = read_labels(store)
    run = _queue(store, source, chosen, judged, labels.of, settings)
    picked = queued(run)
    seen = {a.prompt_id for a in store.annotations() if a.answer != "skipped"} | labels.of.keys()
    done = sum(q.id in seen for q in picked)
    total = sum(len(scored) for _, scored in answers)
    left = (len(picked) - done) * labels.pace / 60
    dropped = total - sum(map(len, kept.values()))
    result = Hybrid(len(kept), total, dropped, len(judged), asked, run.id, len(picked), done, left, source)
    if done < len(picked) and not (settings.partial and done):
        return result
    result.calibration = calibrate(
        store, judges, chosen, target=settings.target, level=settings.level, count_ties=settings.count_ties
    )
    result.groups, result.report = judged_groups(
        store,
        judges,
        chosen,
        calibration=result.calibration,
        all_edges=settings.all_edges,
        max_candidates=settings.max_candidates,
        shortlist=kept,
    )
    return result


def _answers(
    store: Store, scorer: str, prompts: Mapping[str, Prompt]
) -> Iterator[tuple[Prompt, Sequence[tuple[Candidate, Score | None]]]]:
    """The prompts with their candidates, and their scores where a scorer is to filter."""
    if scorer == "automatic":
        by_checker: dict[str, dict[str, Prompt]] = {}
        for p in prompts.values():
            by_checker.setdefault(checker_of(p).partition(":")[0], {})[p.id] = p
        for name, mine in sorted(by_checker.items()):
            yield from _answers(store, name, mine)
        return
    if scorer:
        yield from ((p, found) for p, found in store.answers(scorer, prompt_ids=prompts) if found)
        return
    found: dict[str, list[tuple[Candidate, Score | None]]] = {}
    for c in store.candidates(prompt_ids=prompts):
        found.setdefault(c.prompt_id, []).append((c, None))
    yield from ((prompts[id], rows) for id, rows in found.items())


def _queue(
    store: Store,
    source: str,
    protocol: str,
    judged: Mapping[str, Judged],
    labelled: Collection[str],
    settings: HybridSettings,
) -> Any:
    """The queue of these settings: the one that is there, or a new one."""
    about = {"size": settings.queue, "audit": settings.audit, "seed": settings.seed}
    run = newest_queue(store, source, protocol, about)
    if run is None:
        picked, probabilities = pick(
            {id: j.uncertainty for id, j in judged.items()}, settings.queue, settings.audit, settings.seed
        )
        run = store.get_run(save_queue(store, source, protocol, picked, probabilities, labelled, about))
    return run
