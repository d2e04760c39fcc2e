"""Preference groups: a prompt, its unique candidates, and the edges that a ranking of them makes.

A group's candidates are those that are in an edge, best first. Every edge says where it comes from: the
scorer ("asm@1"), the people or judge of a given ranking, or "reference" when the winner is the prompt's known
answer, which the model did not sample (`off_policy`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from hafs.errors import DataError, UsageError
from hafs.preferences.pairs import merged_mark
from hafs.preferences.ranking import answer, same_text, source_of, tiers_of
from hafs.preferences.schemes import SCHEMES, pair, spread
from hafs.types import (
    Candidate,
    CandidateLabel,
    Edge,
    GroupCandidate,
    PreferenceGroup,
    Prompt,
    Ranking,
    RatedAnswer,
    Score,
)

LEFT_OUT_BY_PERSON = "left out of training by a person's mark"
REFERENCES = ("never", "when-needed", "always")
Answered = tuple[Prompt, Sequence[tuple[Candidate, Score | None]]]
Asked = tuple[Prompt, Sequence[RatedAnswer], str]  # the last is the source of the edges


@dataclass(frozen=True)
class Pairing:
    """How rankings become edges.

    `scheme`: "all" edges of the ranking, "best-worst" (one), or the "guide"'s best against worst, second
    against second worst, and so on. `references`: add the prompt's first known answer as a winner over
    answers that are wrong "never", "when-needed" (no sample is right) or "always". `max_candidates`:
    candidates of a group, a reference included; of more, the best, the worst and an even spread between are
    kept. `min_gap`: least difference in value between winner and loser, in [0, 1]. `wrong_over_wrong`: let an
    answer that is known to be wrong win over one that is more wrong. `efficiency`: pair right answers with each
    other too, by what ranks them. `weight`: of every edge. `labels`: also candidates without a pair are kept for their
    label, good or bad by itself, and a prompt without a pair is a group all the same (for the loss `kto`).
    """

    scheme: str = "all"
    references: str = "never"
    max_candidates: int = 8
    min_gap: float = 0.0
    wrong_over_wrong: bool = False
    efficiency: bool = True
    weight: float = 1.0
    labels: bool = False

    def __post_init__(self) -> None:
        choices = (("scheme", SCHEMES), ("references", REFERENCES))
        for name, allowed in choices:
            if (value := getattr(self, name)) not in allowed:
                raise UsageError(f"{name} cannot be {value!r}", f"use one of: {', '.join(allowed)}")
        if self.max_candidates < 2:
            raise UsageError("a group needs at least 2 candidates", "raise max_candidates")
        if not self.weight > 0:
            raise UsageError(f"the weight of an edge is above 0, not {self.weight}", "raise weight")


@dataclass
class BuildReport:
    """What became of the prompts: each one seen is a group, or skipped for one of the reasons in `skipped`.

    `candidates` counts samples, `unscored` those without a value, `equal` those merged into one of the same
    text, `reference_groups` the groups with an edge from a reference, `wrong_over_wrong` the pairs of two wrong answers
    that were not made into edges, `left_out` the answers that a person's mark keeps out of training.
    """

    prompts: int = 0
    groups: int = 0
    edges: int = 0
    candidates: int = 0
    unscored: int = 0
    equal: int = 0
    reference_groups: int = 0
    wrong_over_wrong: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    left_out: int = 0

    @property
    def coverage(self) -> float | None:
        """Share of the samples that have a value; None without samples."""
        return 1 - self.unscored / self.candidates if self.candidates else None

    def __add__(self, other: BuildReport) -> BuildReport:
        """Both together."""
        return BuildReport(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_dict(self) -> dict[str, Any]:
        """The counts as plain data."""
        return {**asdict(self), "skipped": dict(self.skipped), "coverage": self.coverage}

    def __str__(self) -> str:
        lines = [f"{self.groups} groups with {self.edges} edges from {self.prompts} prompts"]
        if self.candidates:
            scored = self.candidates - self.unscored
            lines.append(f"{scored} of {self.candidates} candidates are scored ({self.coverage:.1%})")
        if self.reference_groups:
            lines.append(f"{self.reference_groups} groups have a reference as a winner")
        if self.wrong_over_wrong:
            lines.append(
                f"{self.wrong_over_wrong} pairs of two wrong answers were left out (wrong_over_wrong = true takes them)"
            )
        if self.left_out:
            lines.append(f"{self.left_out} answers are {LEFT_OUT_BY_PERSON}")
        lines += [f"{n} prompts skipped: {why}" for why, n in self.skipped.most_common()]
        return "\n".join(lines)


def build_groups(
    prompts: Iterable[Prompt],
    candidates: Iterable[Candidate],
    scores: Iterable[Score],
    scheme: str = "all",
    **options: Any,
) -> tuple[Iterator[PreferenceGroup], BuildReport]:
    """The groups of `prompts`, in their order; candidates of other prompts are ignored.

    `scheme` and `options` are those of `Pairing`. The report is filled while the groups are taken. Raises
    UsageError for a wrong option and, while they are taken, DataError when `scores` are of several scorers.
    """
    return groups_from_answers(_join(prompts, candidates, scores), scheme, **options)


def groups_from_answers(
    answers: Iterable[Answered], scheme: str = "all", **options: Any
) -> tuple[Iterator[PreferenceGroup], BuildReport]:
    """Like `build_groups`, but from prompts that come with their scored candidates (`Store.answers`)."""
    report = BuildReport()
    asked = ((prompt, [answer(c, s) for c, s in found], source_of(found)) for prompt, found in answers)
    return _groups(asked, Pairing(scheme, **options), report), report


def groups_of_scorer(
    answers: Iterable[tuple[Prompt, Sequence[RatedAnswer]]], source: str, scheme: str = "all", **options: Any
) -> tuple[Iterator[PreferenceGroup], BuildReport]:
    """Like `groups_from_answers`, but from what one scorer, named by `source`, says (`Store.ranked_answers`)."""
    report = BuildReport()
    asked = ((prompt, found, source) for prompt, found in answers)
    return _groups(asked, Pairing(scheme, **options), report), report


def group_from_ranking(
    prompt: Prompt, candidates: Iterable[Candidate], ranking: Ranking, scheme: str = "all", **options: Any
) -> PreferenceGroup | None:
    """The group of a ranking that was given (by people, by a judge); None when nothing in it makes a pair.

    Equal texts are one candidate, at the lowest of their places. `scheme` and `options` are those of
    `Pairing`; the ones that need scores change nothing. Raises DataError when it ranks a candidate
    twice, or one that is not among `candidates`.
    """
    members = {c.id: c for c in candidates}
    texts = {id: c.text for id, c in members.items()}
    ranked = [id for tier in ranking.tiers for id in tier]
    if len(set(ranked)) != len(ranked):
        raise DataError(f"the ranking {ranking.id} names a candidate twice", "rank each candidate once")
    unknown = [id for id in ranked if id not in texts]
    if unknown:
        raise DataError(f"the ranking {ranking.id} names an unknown candidate {unknown[0]}", "add that candidate")
    lowest = {same_text(texts[id]): id for id in ranked}
    kept = set(lowest.values())
    tiers = [
        [
            RatedAnswer(id, texts[id], finish=members[id].finish, thought=members[id].thought)
            for id in tier
            if id in kept
        ]
        for tier in ranking.tiers
    ]
    pairing = Pairing(scheme, **options)
    tiers = spread([tier for tier in tiers if tier], pairing.max_candidates)
    return _paired(prompt, tiers, pairing, ranking.source)


def group_from_edges(
    prompt: Prompt, candidates: Iterable[Candidate], edges: Iterable[tuple[str, str, Edge]], max_candidates: int = 8
) -> PreferenceGroup | None:
    """The group of edges that were given one by one, as (winner id, loser id, edge); None without any.

    The edges' own places are not read. Equal texts are one candidate; what several edges say of the same two texts
    becomes their mean, and nothing where that is even. Of more than `max_candidates`, those that win most, those that
    lose most and an even spread between are kept. Raises DataError for a candidate that is not among `candidates`.
    """
    known = {c.id: c for c in candidates}
    texts = {id: c.text for id, c in known.items()}
    first: dict[str, str] = {}
    about: dict[tuple[str, str], list[tuple[float, Edge]]] = defaultdict(list)
    for winner, loser, edge in edges:
        if unknown := [id for id in (winner, loser) if id not in texts]:
            raise DataError(f"an edge names an unknown candidate {unknown[0]}", "add that candidate")
        one, other = (first.setdefault(same_text(texts[id]), id) for id in (winner, loser))
        if one != other:
            low, high = sorted((one, other))
            about[low, high].append((edge.p if one == low else 1 - edge.p, edge))
    merged = {pair: said for pair, found in about.items() if (said := _merged(*pair, found)) is not None}
    wins: Counter[str] = Counter()
    for winner, loser, edge in merged.values():
        wins.update({winner: edge.p - 0.5, loser: 0.5 - edge.p})
    kept = [id for (id,) in spread([[id] for id in sorted(wins, key=lambda id: (-wins[id], id))], max_candidates)]
    made = [e for e in merged.values() if e[0] in kept and e[1] in kept]
    if not made:
        return None
    used = {id for winner, loser, _ in made for id in (winner, loser)}
    place = {id: i for i, id in enumerate(id for id in kept if id in used)}
    members = tuple(
        GroupCandidate(
            texts[id],
            id,
            known[id].source.startswith("edited:"),
            finish=_cut(known[id].finish),
            thought=known[id].thought,
        )
        for id in place
    )
    placed = tuple(replace(edge, winner=place[winner], loser=place[loser]) for winner, loser, edge in made)
    return group_of_prompt(prompt, members, placed)


def group_of_prompt(prompt: Prompt, candidates: Sequence[GroupCandidate], edges: Sequence[Edge]) -> PreferenceGroup:
    """The group of a prompt, with its conversation and tools."""
    about = (prompt.system, prompt.id, prompt.family, prompt.split, prompt.context, prompt.tools)
    return PreferenceGroup(prompt.text, tuple(candidates), tuple(edges), *about)


def _merged(low: str, high: str, said: Sequence[tuple[float, Edge]]) -> tuple[str, str, Edge] | None:
    """(winner, loser, edge) of what edges say of two texts: `said` are (probability of the first, edge)."""
    p = sum(share for share, _ in said) / len(said)
    if math.isclose(p, 0.5):
        return None
    edge = replace(
        said[0][1],
        p=max(p, 1 - p),
        weight=sum(e.weight for _, e in said) / len(said),
        source="+".join(sorted({e.source for _, e in said})),
        calibrated=merged_mark(e.calibrated for _, e in said),
    )
    return (low, high, edge) if p > 0.5 else (high, low, edge)


def _join(prompts: Iterable[Prompt], candidates: Iterable[Candidate], scores: Iterable[Score]) -> Iterator[Answered]:
    """Every prompt with its candidates and their scores, all in memory."""
    score_of: dict[str, Score] = {}
    for score in scores:
        known = score_of.setdefault(score.candidate_id, score)
        if known.id != score.id:
            names = f"{known.scorer}@{known.version} and {score.scorer}@{score.version}"
            raise DataError(f"the scores are of several scorers ({names})", "choose one of them")
        if known.value is None:
            score_of[score.candidate_id] = score
    answers: dict[str, list[tuple[Candidate, Score | None]]] = defaultdict(list)
    for candidate in candidates:
        answers[candidate.prompt_id].append((candidate, score_of.get(candidate.id)))
    for prompt in prompts:
        yield prompt, answers.get(prompt.id, [])


def _groups(asked: Iterable[Asked], pairing: Pairing, report: BuildReport) -> Iterator[PreferenceGroup]:
    for prompt, answers, source in asked:
        report.prompts += 1
        group = _group(prompt, answers, source, pairing, report)
        if isinstance(group, str):
            report.skipped[group] += 1
            continue
        report.groups += 1
        report.edges += len(group.edges)
        report.reference_groups += any(e.source == "reference" for e in group.edges)
        yield group


def _group(
    prompt: Prompt, answers: Sequence[RatedAnswer], source: str, pairing: Pairing, report: BuildReport
) -> PreferenceGroup | str:
    """The group of one prompt, or why there is none."""
    if not answers:
        return "no candidates"
    tiers, scored = tiers_of(answers)
    report.candidates += len(answers)
    report.unscored += len(answers) - scored
    report.equal += scored - sum(map(len, tiers))
    if not tiers:
        return "no candidate is scored"
    tiers = _with_reference(prompt, tiers, pairing)
    if pairing.labels:
        return _by_label(prompt, tiers, pairing, source) or "no candidate passed or failed"
    if sum(map(len, tiers)) == 1:
        return "only one candidate"
    if len(tiers) == 1:
        return "all candidates tie"
    if not pairing.wrong_over_wrong:
        report.wrong_over_wrong += sum(_both_wrong(*p) for p in pair(tiers, pairing.scheme))
        if all(member.passed is False for tier in tiers for member in tier):
            return "no candidate is right"
    return _paired(prompt, tiers, pairing, source) or "no pair is left by the options"


def _by_label(
    prompt: Prompt, tiers: Sequence[Sequence[RatedAnswer]], pairing: Pairing, source: str
) -> PreferenceGroup | None:
    """The group of the pairs of `tiers`, if any, with every candidate that passed or failed labelled."""
    members = [m for tier in tiers for m in tier]
    labels = {
        m.id: CandidateLabel(m.passed, pairing.weight, "reference" if m.off_policy else source)
        for m in members
        if m.passed is not None
    }
    candidates = [GroupCandidate(m.text, m.id, m.off_policy, finish=_cut(m.finish)) for m in members]
    return labelled(prompt, _paired(prompt, [list(t) for t in tiers], pairing, source), candidates, labels)


def labelled(
    prompt: Prompt,
    group: PreferenceGroup | None,
    candidates: Sequence[GroupCandidate],
    labels: Mapping[str, CandidateLabel],
) -> PreferenceGroup | None:
    """`group` (or a new one, for a prompt without a pair) with `labels` by candidate id; those of `candidates` that
    have one and are not in it join it. None where there is neither pair nor label."""
    have = list(group.candidates) if group else []
    texts = {c.text for c in have}
    for one in candidates:
        if one.id in labels and one.text not in texts:
            have.append(one)
            texts.add(one.text)
    found = tuple(replace(c, label=labels.get(c.id)) for c in have)
    if group is not None:
        return replace(group, candidates=found)
    if not found:
        return None
    return group_of_prompt(prompt, found, ())


def _with_reference(prompt: Prompt, tiers: list[list[RatedAnswer]], pairing: Pairing) -> list[list[RatedAnswer]]:
    """At most `max_candidates` of `tiers`, with the prompt's reference on top where `pairing` asks for it.

    A reference is right, so it beats what is wrong; `_allowed` keeps it from beating what is right too.
    """
    members = [member for tier in tiers for member in tier]
    needed = not any(m.passed for m in members)
    wanted = pairing.references == "always" or (pairing.references == "when-needed" and needed)
    if not (wanted and prompt.references and any(m.passed is False for m in members)):
        return spread(tiers, pairing.max_candidates)
    first = prompt.references[0]
    if same_text(first.text) in {same_text(m.text) for m in members}:
        return spread(tiers, pairing.max_candidates)
    reference = RatedAnswer(f"reference:{first.name}", first.text, value=1.0, passed=True, off_policy=True)
    return [[reference], *spread(tiers, pairing.max_candidates - 1)]


def _paired(prompt: Prompt, tiers: list[list[RatedAnswer]], pairing: Pairing, source: str) -> PreferenceGroup | None:
    """The group of the pairs that the scheme makes of `tiers` and the options allow; None without any."""
    pairs = [p for p in pair(tiers, pairing.scheme) if _allowed(*p, pairing)]
    if not pairs:
        return None
    used = {member.id for edge in pairs for member in edge}
    members = [member for tier in tiers for member in tier if member.id in used]
    place = {member.id: i for i, member in enumerate(members)}
    edges = tuple(
        _edge(
            place[winner.id],
            place[loser.id],
            pairing.weight,
            "reference" if winner.off_policy else source,
            None if winner.value is None or loser.value is None else round(float(winner.value - loser.value), 9),
        )
        for winner, loser in pairs
    )
    candidates = tuple(
        GroupCandidate(
            m.text, m.id, m.off_policy, _label(m, pairing.weight, source), finish=_cut(m.finish), thought=m.thought
        )
        for m in members
    )
    return group_of_prompt(prompt, candidates, edges)


def _cut(finish: str) -> str:
    """How a candidate of a group ended, where that matters: at the token limit."""
    return finish if finish == "length" else ""


@lru_cache(1 << 16)
def _edge(winner: int, loser: int, weight: float, source: str, margin: float | None) -> Edge:
    """The one edge that says so: a million candidates have few different ones, and each is encoded once."""
    return Edge(winner, loser, weight, source=source, margin=margin)


def _label(member: RatedAnswer, weight: float, source: str) -> CandidateLabel | None:
    """What the scorer says of an answer by itself; None where it does not say right or wrong."""
    if member.passed is None:
        return None
    return _labelled(bool(member.passed), weight, "reference" if member.off_policy else source)


@lru_cache(1 << 10)
def _labelled(good: bool, weight: float, source: str) -> CandidateLabel:
    return CandidateLabel(good, weight, source)


def _allowed(winner: RatedAnswer, loser: RatedAnswer, pairing: Pairing) -> bool:
    """Whether the options of `pairing` let this pair be an edge."""
    contrast = winner.passed is True and loser.passed is False
    if winner.off_policy or loser.off_policy:
        allowed = winner.off_policy and contrast
    elif winner.passed and loser.passed:
        allowed = pairing.efficiency
    else:
        allowed = pairing.wrong_over_wrong or not _both_wrong(winner, loser)
    if winner.value is None or loser.value is None or pairing.min_gap <= 0:
        return allowed
    return allowed and winner.value - loser.value >= pairing.min_gap


def _both_wrong(winner: RatedAnswer, loser: RatedAnswer) -> bool:
    """Whether this pair would say which of two wrong answers is better."""
    return winner.passed is False and loser.passed is False
