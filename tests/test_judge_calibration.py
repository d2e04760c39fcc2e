"""A judge's verdicts as edges and what it is worth: on planted judges, in a real workspace, through the verbs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from hafs.errors import DataError, UsageError
from hafs.judge.aggregate import Judged, Opinion, aggregate, panel
from hafs.judge.calibrate import Calibration, calibrate, gather, newest_calibration
from hafs.judge.consistency import settled
from hafs.judge.injection import PROBES, probes_of, read_probes
from hafs.judge.labels import read_labels
from hafs.judge.plan import plan
from hafs.judge.queue import HIGHEST, newest_queue, pick, queued, sample, save_queue
from hafs.judge.winrate import judge_preference, win_rate
from hafs.preferences import from_pairs, group_from_edges, read_preferences, to_pairs
from hafs.store import Store, open_store
from hafs.training import train_dpo
from hafs.types import Annotation, Candidate, Edge, PreferenceGroup, Prompt, Ranking, Score, Verdict
from hafs.workflows.hybrid import HybridSettings, Shortlist, hybrid, judged_groups, shortlist
from run_hafs import hafs, lines, workspace
from simulated_judge import JUDGE, Nature, World, annotate, fill, world

PROMPT = Prompt("What is loaded?")
FOUR = [Candidate(PROMPT.id, f"answer {i}", "m", "m", index=i) for i in range(4)]
IDS = [c.id for c in FOUR]
HARD = Nature(error=0.8)
"""A judge that agrees with the person on about four pairs in five."""


def verdict(
    shown: Sequence[str], order: Sequence[Sequence[str]] | None, protocol: str = "pairwise@1", **more: object
) -> Verdict:
    """A verdict with these tiers; None is a malformed one, a single tier a tie."""
    outcome = "malformed" if order is None else "tie" if len(order) == 1 else "ranked"
    tiers = tuple(map(tuple, order)) if outcome == "ranked" and order is not None else ()
    return Verdict(PROMPT.id, "j", protocol, tuple(shown), outcome, tiers, **more)  # type: ignore[arg-type]


def said(verdicts: Sequence[Verdict]) -> Judged:
    (found,) = aggregate(verdicts)
    return found


def edges(judged: Judged) -> dict[tuple[str, str], float]:
    return {(winner, loser): margin for winner, loser, margin in judged.edges()}


# ---- aggregation


@st.composite
def pairwise(draw: st.DrawFn) -> list[Verdict]:
    """Verdicts on each two of four candidates in both orders: consistent or not, ties, failures, strengths."""
    found = []
    for a, b in combinations(IDS, 2):
        for shuffle, shown in enumerate(((a, b), (b, a))):
            order = draw(st.sampled_from([[[a], [b]], [[b], [a]], [[a, b]], None]))
            found.append(verdict(shown, order, shuffle=shuffle, strength=draw(st.sampled_from([1.0, 2.0]))))
    return found


@st.composite
def listwise(draw: st.DrawFn) -> list[Verdict]:
    """Rankings of four in an order and its reverse, tiers of any size, twice over."""
    found = []
    for shuffle in range(2):
        shown = draw(st.permutations(IDS))
        for k, order in enumerate((shown, shown[::-1])):
            places = draw(st.lists(st.integers(0, 3), min_size=4, max_size=4))
            tiers = [[id for id, place in zip(IDS, places, strict=True) if place == p] for p in range(4)]
            found.append(verdict(order, [t for t in tiers if t], "listwise@1", shuffle=2 * shuffle + k))
    return found


@st.composite
def pointwise(draw: st.DrawFn) -> list[Verdict]:
    grades = draw(st.lists(st.integers(0, 10), min_size=4, max_size=4))
    return [
        Verdict(PROMPT.id, "j", "pointwise@1", (id,), "ranked", ((id,),), value=grade / 10)
        for id, grade in zip(IDS, grades, strict=True)
    ]


def turned(v: Verdict) -> Verdict:
    return replace(v, tiers=v.tiers[::-1], value=None if v.value is None else 1 - v.value)


@settings(max_examples=60, deadline=None)
@given(st.one_of(pairwise(), listwise(), pointwise()))
def test_turning_all_verdicts_turns_all_edges(verdicts: list[Verdict]) -> None:
    here, there = said(verdicts), said([turned(v) for v in verdicts])
    other = {(loser, winner): margin for (winner, loser), margin in edges(there).items()}
    assert edges(here) == pytest.approx(other)
    assert all(margin > 0 for margin in edges(here).values())
    assert here.uncertainty == pytest.approx(there.uncertainty)


@settings(max_examples=60, deadline=None)
@given(st.one_of(pairwise(), listwise()), st.randoms())
def test_tiers_hold_no_edge_and_the_order_of_verdicts_does_not_count(verdicts: list[Verdict], random: object) -> None:
    here = said(verdicts)
    tier_of = {id: n for n, tier in enumerate(here.tiers) for id in tier}
    for o in here.opinions:
        if o.decided:
            winner, loser = (o.a, o.b) if o.says == "a" else (o.b, o.a)
            assert (tier_of[winner] > tier_of[loser]) if o.against else (tier_of[winner] < tier_of[loser])
    random.shuffle(verdicts)  # type: ignore[attr-defined]
    assert edges(said(verdicts)) == pytest.approx(edges(here))
    assert here.ranking().source == "judge:j@1"


@pytest.mark.parametrize("protocol", ["pairwise@1", "listwise@1"])
@settings(max_examples=20, deadline=None)
@given(orders=st.lists(st.permutations(IDS), min_size=2, max_size=6))
def test_a_judge_that_always_prefers_the_first_slot_has_no_opinion(protocol: str, orders: list[list[str]]) -> None:
    if protocol == "pairwise@1":
        shown = list(permutations(IDS, 2))
    else:
        shown = [tuple(o) for o in orders]
    verdicts = [verdict(o, [[id] for id in o], protocol, shuffle=n) for n, o in enumerate(shown)]
    assert edges(said(verdicts)) == {}


def test_what_a_pair_comes_to() -> None:
    a, b = sorted(IDS[:2])
    win, loss, tie = [[a], [b]], [[b], [a]], [[a, b]]

    def says(ab: list[list[str]] | None, ba: list[list[str]] | None) -> str:
        return said([verdict((a, b), ab), verdict((b, a), ba, shuffle=1)]).opinions[0].says

    assert says(win, win) == "a" and says(loss, loss) == "b" and says(tie, tie) == "tie"
    assert says(win, loss) == says(win, tie) == says(tie, loss) == "disagrees"
    assert says(win, None) == says(None, None) == "missing"
    assert said([verdict((a, b), win)]).opinions[0].says == "missing", "one order is no opinion"
    clear = [verdict((a, b), win, strength=2.0), verdict((b, a), win, shuffle=1, strength=2.0)]
    slight = [replace(v, strength=1.0) for v in clear]
    assert edges(said(clear))[a, b] > edges(said(slight))[a, b] > 0
    assert said([verdict((a, b), None), verdict((b, a), win, shuffle=1)]).verdicts == {"malformed": 1, "ranked": 1}


def test_a_known_answer_shown_first_and_second_must_get_the_same_grade() -> None:
    a, b = sorted(IDS[:2])

    def grade(id: str, value: float, shuffle: int) -> Verdict:
        return Verdict(PROMPT.id, "j", "reference@1", (id,), "ranked", ((id,),), value=value, shuffle=shuffle)

    steady = [grade(a, 1.0, 0), grade(a, 1.0, 1), grade(b, 0.5, 0), grade(b, 0.5, 1)]
    assert list(edges(said(steady))) == [(a, b)]
    assert said([*steady[:3], grade(b, 1.0, 1)]).opinions[0].says == "disagrees"
    assert said(steady[:3]).opinions[0].says == "missing"


def test_a_panel_needs_more_than_half_of_those_that_saw_the_pair() -> None:
    a, b = sorted(IDS[:2])
    win, loss = [[a], [b]], [[b], [a]]

    def member(name: str, order: list[list[str]] | None) -> list[Verdict]:
        return [replace(verdict((a, b), order), judge=name), replace(verdict((b, a), order, shuffle=1), judge=name)]

    two_of_three = said([*member("x", win), *member("y", win), *member("z", loss)])
    assert list(edges(two_of_three)) == [(a, b)] and two_of_three.source == "judge:panel(x@1+y@1+z@1)"
    assert edges(said([*member("x", win), *member("z", loss)])) == {}
    assert list(edges(said([*member("x", win), *member("z", None)]))) == [(a, b)], "who saw nothing has no vote"
    with pytest.raises(ValueError, match="several protocols"):
        said([verdict((a, b), win), verdict((a, b), win, "listwise@1")])


@settings(max_examples=60, deadline=None)
@given(st.one_of(pairwise(), listwise(), pointwise()))
def test_what_the_judge_says_of_two_does_not_depend_on_the_others(verdicts: list[Verdict]) -> None:
    """A model over all candidates may say that it disagrees; it takes no verdict away."""
    for o in said(verdicts).opinions:
        assert o.says == settled(verdicts)[o.a, o.b]
        assert (o.margin > 0) == (o.says == "a") and (o.margin < 0) == (o.says == "b")
    if all(len(v.shown) == 2 for v in verdicts):
        for pair in combinations(sorted(IDS), 2):
            alone = [v for v in verdicts if set(v.shown) == set(pair)]
            (here,) = [o for o in said(verdicts).opinions if (o.a, o.b) == pair]
            assert said(alone).opinions[0].says == here.says


def test_a_panels_margin_has_the_side_of_its_vote() -> None:
    members = [
        Judged(PROMPT.id, f"judge:{name}@1", (Opinion("a", "b", says, margin),), (), {})
        for name, says, margin in (("x", "a", 0.2), ("y", "a", 0.1), ("z", "b", -3.0))
    ]
    (vote,) = panel(members).opinions
    assert vote == Opinion("a", "b", "a", pytest.approx(0.1), True)


def test_probes_are_read_and_make_no_edges() -> None:
    probes = probes_of(PROMPT.id)
    assert set(probes) == set(PROBES) and all(c.source.startswith("probe:") for c in probes.values())
    plea, real = probes["plea"].id, IDS[0]
    about = [
        verdict((plea, real), [[plea], [real]]),
        verdict((real, plea), [[real], [plea]], shuffle=1),
        verdict((probes["verdict"].id, real), None),
    ]
    found = read_probes([*about, verdict(IDS[:2], [[IDS[0]], [IDS[1]]])])
    assert (found["plea"].won, found["plea"].lost, found["plea"].win_rate) == (1, 1, 0.5)
    assert (found["verdict"].missing, found["verdict"].win_rate) == (1, None)
    assert list(aggregate(about)) == []


# ---- edges as groups and pairs


def test_groups_of_given_edges() -> None:
    same = Candidate(PROMPT.id, "answer 0  ", "m", "m", index=9)
    e = Edge(0, 1, p=0.8, source="judge:j@1", calibrated=True)
    group = group_from_edges(
        PROMPT,
        [*FOUR, same],
        [(IDS[0], IDS[1], e), (same.id, IDS[1], replace(e, p=0.6)), (IDS[2], IDS[0], replace(e, p=0.5))],
    )
    assert group is not None
    ((chosen, rejected, edge),) = group.pairs()
    assert (chosen, rejected, edge.p) == ("answer 0", "answer 1", pytest.approx(0.7))
    assert edge.calibrated is True and {c.id for c in group.candidates} == {IDS[0], IDS[1]}
    assert group_from_edges(PROMPT, FOUR, []) is None
    assert group_from_edges(PROMPT, [*FOUR, same], [(same.id, IDS[0], e)]) is None, "they are the same text"
    few = group_from_edges(PROMPT, FOUR, [(a, b, e) for a, b in combinations(IDS, 2)], max_candidates=2)
    assert few is not None and [c.id for c in few.candidates] == [IDS[0], IDS[3]] and len(few.edges) == 1
    with pytest.raises(DataError, match="unknown candidate"):
        group_from_edges(PROMPT, FOUR, [(IDS[0], "nobody", e)])


@pytest.mark.parametrize("conversational", [False, True])
def test_pair_files_carry_the_mark_both_ways(conversational: bool, tmp_path: Path) -> None:
    marks = (None, True, False)
    made = [Edge(0, n + 1, p=0.75, source="judge:j@1", calibrated=mark) for n, mark in enumerate(marks)]
    group = group_from_edges(PROMPT, FOUR, [(IDS[0], IDS[n + 1], e) for n, e in enumerate(made)])
    assert group is not None
    rows = to_pairs(group, conversational=conversational)
    assert [row.get("calibrated", "absent") for row in rows] == ["absent", True, False]
    (back,) = from_pairs(rows).groups
    assert [e.calibrated for e in back.edges] == list(marks)
    twice = from_pairs([*rows, {**rows[1], "calibrated": False}]).groups[0]
    assert [e.calibrated for e in twice.edges] == [None, False, False], "one doubt is enough"
    bad = from_pairs([{**rows[0], "calibrated": "yes"}])
    assert not bad.groups and "calibrated" in bad.bad[0][1]
    file = tmp_path / "groups.jsonl"
    file.write_text(json.dumps(group.to_dict()) + "\n")
    assert read_preferences(file).groups == [group]


def test_training_refuses_an_uncalibrated_judge(tiny_model: Path, tmp_path: Path) -> None:
    from hafs.config import DPOConfig, LoraConfig

    config = DPOConfig(num_epochs=1, precision="fp32", lora=LoraConfig(rank=2, alpha=4), validation_share=0)
    made = [
        group_from_edges(
            p := Prompt(f"prompt {i}"),
            cs := [Candidate(p.id, f"{i} {t}") for t in "ab"],
            [(cs[0].id, cs[1].id, Edge(0, 1, p=0.8, source="judge:j@1", calibrated=i > 0))],
        )
        for i in range(2)
    ]
    groups = [g for g in made if g is not None]
    with pytest.raises(UsageError, match="1 edges come of a judge that was not calibrated"):
        train_dpo(str(tiny_model), groups, config, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert train_dpo(str(tiny_model), groups, config, tmp_path / "b", allow_uncalibrated=True).steps == 1
    assert train_dpo(str(tiny_model), groups[1:], config, tmp_path / "c").steps == 1
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for g in groups for row in to_pairs(g)))
    ran = ["train", "dpo", "--sft-model", tiny_model, "--preference-data", file, "--output-dir", tmp_path / "d"]
    hafs(*ran).failed(2, "not calibrated on people's labels", "--allow-uncalibrated")
    assert hafs(*ran, "--allow-uncalibrated", "--json").ok().json["steps"] == 1


# ---- labels and the queue


def test_labels_last_words_repeats_and_blindness(tmp_path: Path) -> None:
    a, b, c = sorted(IDS[:3])

    def look(*tiers: Sequence[str], serial: int = 0, at: float = 0.0, **more: object) -> Annotation:
        return Annotation(
            PROMPT.id,
            "ann",
            (a, b, c),
            "ranked",
            tuple(map(tuple, tiers)),
            serial=serial,
            submitted=at,
            seconds=more.pop("seconds", 30.0),
            **more,
        )  # type: ignore[arg-type]

    with open_store(tmp_path / "hafs.db") as store:
        store.add_prompts([PROMPT])
        store.add_annotations(
            [
                look([a], [b, c], at=1.0),
                look([b], [a], at=2.0, seconds=50.0),
                look([a], [c], [b], serial=1, at=3.0),
                look([c], [a, b], at=4.0, mode="review", seconds=70.0),
                replace(look([c], [b], at=5.0), undone=6.0),
            ]
        )
        store.add_rankings([Ranking(PROMPT.id, ((c,), (a,)), "human:bob"), Ranking(PROMPT.id, ((a,), (c,)), "asm@1")])
        found = read_labels(store)
        assert found.of[PROMPT.id]["ann"] == {(a, b): 0.0, (a, c): 1.0, (b, c): 0.5}, "the last word counts"
        assert found.of[PROMPT.id]["bob"] == {(a, c): 0.0}
        assert found.repeats == [(PROMPT.id, found.of[PROMPT.id]["ann"], {(a, b): 1.0, (a, c): 1.0, (b, c): 0.0})]
        assert found.pace == 40.0
        assert read_labels(store, blind=False).of[PROMPT.id]["ann"][a, c] == 0.0, "a review is a label for training"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 70), st.floats(0.05, 1.0))
def test_the_queue_has_its_size_and_probabilities_that_add_up_to_it(
    unsure: list[float], size: int, audit: float
) -> None:
    given_ = {f"p{i}": u for i, u in enumerate(unsure)}
    picked, probability = pick(given_, size, audit)
    n = min(size, len(unsure))
    assert len(picked) == len({q.id for q in picked}) == n
    assert sum(probability.values()) == pytest.approx(n) and set(probability) == set(given_)
    assert all(q.probability == probability[q.id] > 0 for q in picked)
    if size < len(unsure):
        floor = audit * size / len(unsure) * min(1.0, HIGHEST)
        assert all(floor * 0.5 <= p <= max(HIGHEST, size / len(unsure)) + 1e-9 for p in probability.values())
    assert pick(given_, size, audit) == (picked, probability)


def test_prompts_are_picked_with_the_probabilities_that_are_kept() -> None:
    unsure = {f"p{i}": (i % 4) / 3 for i in range(40)}
    counts = dict.fromkeys(unsure, 0)
    audits = 0
    for seed in range(600):
        picked, probability = pick(unsure, 10, 0.3, seed)
        audits += sum(q.reason == "audit" for q in picked)
        for q in picked:
            counts[q.id] += 1
    error = max(abs(counts[id] / 600 - p) for id, p in probability.items())
    assert error < 5 * np.sqrt(0.25 / 600)
    assert audits / 6000 == pytest.approx(0.3, abs=0.03)
    assert probability["p3"] > probability["p0"]
    for size, audit in ((0, 0.2), (5, 0.0), (5, 1.5)):
        with pytest.raises(UsageError):
            pick(unsure, size, audit)


# ---- a workspace with a planted judge


@pytest.fixture(scope="module")
def planted() -> World:
    return world(240, seed=1, nature=HARD)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, planted: World) -> Path:
    """A workspace that has been through the hybrid path by its verb; what it printed is beside it."""
    root = workspace(tmp_path_factory.mktemp("judged"), "")
    from hafs.store import open_workspace

    with open_workspace(root).open_store() as store:
        fill(store, planted)
    run = ["judge", "hybrid", "-w", root, "--scorer", "builds", "--queue-size", "90", "--json"]
    first = hafs(*run).ok().json
    with open_workspace(root).open_store() as store:
        run_row = store.get_run(first["queue"])
        assert run_row is not None
        annotate(store, planted, [q.id for q in queued(run_row)][:50])
    half = hafs(*run).ok().json
    with open_workspace(root).open_store() as store:
        annotate(store, planted, [q.id for q in queued(run_row)])
    last = hafs(*run, "--min-agreement", "0.6", "--output", root / "groups.jsonl").ok().json
    (root / "said.json").write_text(json.dumps([first, half, last]))
    return root


def opened(space: Path) -> Store:
    from hafs.store import open_workspace

    return open_workspace(space).open_store()


def test_the_hybrid_path_waits_for_the_person_and_goes_on(space: Path) -> None:
    first, half, last = json.loads((space / "said.json").read_text())
    assert first["queue"] == half["queue"] == last["queue"], "the queue stays"
    assert (first["labelled"], half["labelled"], last["labelled"]) == (0, 50, 90)
    assert first["queued"] == 90 and first["minutes_left"] == 90 * 90 / 60, "no pace was measured yet"
    assert 0 < half["minutes_left"] < first["minutes_left"]
    assert first["report"] is half["report"] is None
    assert first["dropped"] > 0 and first["judged"] == first["prompts"] == 240
    report = last["report"]
    assert report["calibrated"] and report["groups"] >= 90 and report["human_edges"] > 0 and report["judge_edges"] > 0
    groups = [PreferenceGroup.from_dict(row) for row in lines(space / "groups.jsonl")]
    assert len(groups) == report["groups"]
    marks = {(e.source.split(":")[0], e.calibrated) for g in groups for e in g.edges}
    assert marks == {("human", None), ("judge", True)}
    assert all(0.5 < e.p < 1 for g in groups for e in g.edges if e.calibrated)
    with opened(space) as store:
        from hafs.preferences.collect import newest_groups

        assert {g.id for g in newest_groups(store)} == {g.id for g in groups}, "training finds them"


def test_people_have_the_last_word(space: Path) -> None:
    """No edge of the judge is about two answers that a person compared."""
    with opened(space) as store:
        labels = read_labels(store).of
    for row in lines(space / "groups.jsonl"):
        group = PreferenceGroup.from_dict(row)
        compared = set(labels.get(group.prompt_id, {}).get("ann", {}))
        for e in group.edges:
            pair = tuple(sorted((group.candidates[e.winner].id, group.candidates[e.loser].id)))
            assert (pair in compared) == e.source.startswith("human:")


def test_the_calibration_finds_what_was_planted(space: Path, planted: World) -> None:
    said = hafs("judge", "calibrate", "-w", space, "--min-agreement", "0.6", "--json").ok().json
    with opened(space) as store:
        made = newest_calibration(store, f"judge:{JUDGE}@1", "pairwise@1")
        assert made == Calibration.from_dict({k: v for k, v in said.items() if k != "claim"})
        counts = store.counts()["runs"]
        assert made == calibrate(store, target=0.6), "repeated, it is the one that is there"
        assert store.counts()["runs"] == counts
        drawn = sample(store, f"judge:{JUDGE}@1", "pairwise@1", read_labels(store).of)
    assert made is not None and made.labelled_prompts == 90
    assert drawn is not None and set(drawn.probabilities) == {p.id for p in planted.prompts}
    assert len(drawn.drawn) == 90
    assert said["claim"] == made.claim() and "agreement \u2265 60% at 95% confidence" in said["claim"]
    assert made.card.first_slot.low is not None and made.card.first_slot.low > 0.5
    assert made.card.longer.excess.low is not None and made.card.longer.excess.low > 0
    assert made.card.own is None and set(made.card.probes) == set(PROBES)
    assert made.person is not None and made.person.decided.value is not None
    assert made.judge.decided.value is not None and made.person.decided.value > made.judge.decided.value
    assert made.people is None
    assert made.calibrated.brier is not None and made.raw.brier is not None
    assert made.calibrated.brier < 0.25 and made.calibrated.brier < made.raw.brier + 0.01
    assert made.p(1.3) == pytest.approx(1 - made.p(-1.3)) and made.p(0) == 0.5
    truth = agreement_above(planted, made)
    assert truth >= 0.6


def agreement_above(planted: World, made: Calibration) -> float:
    """The person's true agreement with the trusted edges, by prompt, from many looks at every prompt."""
    rng = np.random.default_rng(5)
    verdicts = (v for p in planted.prompts for v in planted.verdicts(p.id, rng))
    shares = []
    for judged in aggregate(verdicts):
        trusted = [(w, x) for w, x, margin in judged.edges() if made.trusts(margin)]
        looks = [planted.label(judged.prompt_id, rng) for _ in range(5)]
        hits = []
        for look in looks:
            place = {id: n for n, tier in enumerate(look.tiers) for id in tier}
            hits += [place[w] < place[x] for w, x in trusted if place[w] != place[x]]
        if hits:
            shares.append(np.mean(hits))
    return float(np.mean(shares))


def test_a_judge_nobody_labelled_is_marked_and_then_not(planted: World, tmp_path: Path) -> None:
    with open_store(tmp_path / "hafs.db") as store:
        fill(store, planted)
        with pytest.raises(UsageError, match="no person has ranked"):
            calibrate(store)
        groups, report = judged_groups(store)
        assert not report.calibrated and groups and {e.calibrated for g in groups for e in g.edges} == {False}
        before = plan(gather(store), 0.75)
        assert not before.measured and before.seconds == 90.0 and before.labelled == 0
        assert before.rows[0].needed == before.rows[0].more
        annotate(store, planted, [p.id for p in planted.prompts[:60]])
        after = plan(gather(store), 0.6)
        assert after.measured and after.labelled == 60 and after.rows[-1].more == 0
        assert plan(gather(store), 0.99).rows[0].needed is None, "out of reach"
        calibrate(store, target=0.6)
        groups, report = judged_groups(store)
        assert report.calibrated and {e.calibrated for g in groups for e in g.edges} == {None, True}
        strict = calibrate(store, target=0.99)
        assert strict.certificate.threshold is None and strict.coverage is None and "no margin" in strict.claim()
        _, nothing = judged_groups(store, calibration=strict)
        assert nothing.judge_edges == 0 and nothing.untrusted > 0
        _, everything = judged_groups(store, calibration=strict, all_edges=True)
        assert everything.judge_edges > 0 and everything.untrusted == 0


def test_win_rates_cover_the_truth_where_the_judge_alone_does_not(tmp_path: Path) -> None:
    """The judge likes length, and DPO's answers are longer; the person sees quality alone."""
    nature = Nature(error=0.5, length=1.0, better=0.3, longer=1.0)
    truth = norm.cdf(nature.better / np.sqrt(2 + 2 * nature.blur**2))  # two qualities, each seen with a blur
    hits, judge_hits, narrower = 0, 0, 0
    for seed in range(3):
        made = world(150, seed=seed, nature=nature)
        with open_store(tmp_path / f"{seed}.db") as store:
            fill(store, made, seed)
            annotate(store, made, [p.id for p in made.prompts[:60]], seed)
            rate = win_rate(store, gather(store), "dpo", "sft")
            back = win_rate(store, gather(store), "sft", "dpo") if seed == 0 else None
        raw, controlled = rate.raw, rate.length_controlled
        assert raw.corrected.value is not None and controlled is not None
        if back is not None:
            assert back.raw.corrected.value is not None
            assert raw.corrected.value == pytest.approx(1 - back.raw.corrected.value)
            assert back.length_controlled is not None and back.length_controlled.judge.value is not None
            assert controlled.judge.value == pytest.approx(1 - back.length_controlled.judge.value)
        assert (rate.prompts, rate.labelled, rate.models) == (150, 60, ("dpo", "sft"))
        assert raw.corrected.low is not None and raw.corrected.high is not None
        hits += raw.corrected.low <= truth <= raw.corrected.high
        judge_hits += (raw.judge.low or 0) <= truth <= (raw.judge.high or 0)
        narrower += raw.corrected.high - raw.corrected.low < (raw.people.high or 0) - (raw.people.low or 0)
        assert controlled.judge.value is not None and raw.judge.value is not None
        assert controlled.judge.value < raw.judge.value, "without the length DPO wins less often"
        assert rate.judge_slope is not None and rate.judge_slope > 0.5
    assert hits >= 2 and judge_hits <= 1 and narrower >= 2


def test_a_comparison_has_the_judges_win_rate(tmp_path: Path) -> None:
    made = world(60, seed=1)
    with open_store(tmp_path / "hafs.db") as store:
        assert judge_preference(store, {"sft": "x", "dpo": "y"}, "sft") == ({}, "")
        fill(store, made, 1)
        hashes = {c.model_name: c.model for c in store.candidates()}
        found, said = judge_preference(store, hashes, "sft")
        assert found.keys() == {"dpo"} and found["dpo"] == win_rate(store, gather(store), "dpo", "sft").raw.judge
        assert f"how often {JUDGE}@1 prefers" in said and "the judge's own" in said and said.endswith("correct: dpo.")
        annotate(store, made, [p.id for p in made.prompts[:30]])
        found, said = judge_preference(store, hashes, "sft")
        assert found["dpo"] == win_rate(store, gather(store), "dpo", "sft").raw.corrected
        assert said.endswith("corrected by people's labels (PPI++).")
        assert judge_preference(store, {"a": "1", "b": "2"}, "a") == ({}, "")
        store.add_verdicts([replace(v, judge="other") for v in store.verdicts()][:1])
        found, said = judge_preference(store, hashes, "sft")
        assert not found and "several judges" in said and "hafs judge winrate" in said


def part(planted: World, prompts: list[Prompt]) -> World:
    """Some of the prompts with their candidates."""
    return replace(planted, prompts=prompts, candidates={p.id: planted.candidates[p.id] for p in prompts})


def test_labels_from_outside_the_queue_are_no_part_of_its_figures(planted: World, tmp_path: Path) -> None:
    """Thirty prompts were labelled before the queue was made, others are while it is worked on, and some are judged
    only later: the weights are of the queue's prompts, each with the probability that it had."""
    settings = HybridSettings(queue=40, partial=True)
    some, later = planted.prompts[:100], planted.prompts[100:110]
    with open_store(tmp_path / "hafs.db") as store:
        fill(store, part(planted, some))
        before = [p.id for p in some[:30]]
        annotate(store, planted, before)
        run = store.get_run(hybrid(store, some, settings=settings).queue)
        assert run is not None
        p = run.outputs["probabilities"]
        picked = [q.id for q in queued(run)]
        fresh = [id for id in picked if id not in before]
        assert 0 < len(fresh) < len(picked) < 100
        evidence = gather(store)
        assert evidence.sample is None and evidence.weights == dict.fromkeys(before, 1.0), "nothing of it is done"
        annotate(store, planted, fresh[:20], repeat=0)
        done = 20 / len(fresh)
        expected = {id: 1 / p[id] for id in picked if id in before} | {id: 1 / (p[id] * done) for id in fresh[:20]}
        assert gather(store).weights == pytest.approx(expected)
        rate = win_rate(store, gather(store), "dpo", "sft")
        assert rate.labelled == len(expected) and rate.prompts == 100
        annotate(store, planted, [id for id in p if id not in picked and id not in before][:15], repeat=0)
        assert win_rate(store, gather(store), "dpo", "sft") == rate
        fill(store, part(planted, later))
        annotate(store, planted, [p.id for p in later], repeat=0)
        assert gather(store).weights == pytest.approx(expected)
        grown = win_rate(store, gather(store), "dpo", "sft")
        assert grown.prompts == 110 and grown.raw.people == rate.raw.people
        assert grown.raw.corrected == rate.raw.corrected


def test_the_hybrid_path_keeps_to_its_split_its_filter_and_the_settings(planted: World, tmp_path: Path) -> None:
    from hafs.store import open_workspace

    root = workspace(tmp_path / "w", "[preferences]\nmax_candidates = 3\n")
    some = planted.prompts[:30]
    apart = [replace(p, split="test") if n % 3 == 0 else p for n, p in enumerate(some)]
    with open_workspace(root).open_store() as store:
        fill(store, replace(part(planted, some), prompts=apart))
        wrong = {s.candidate_id for s in store.scores(scorer="builds") if not s.passed}
        annotate(store, planted, [p.id for p in some[:10]])
    verb = [
        "judge",
        "hybrid",
        "-w",
        root,
        "--scorer",
        "builds",
        "--labels-so-far",
        "--all-edges",
        "--min-agreement",
        "0.5",
    ]
    hafs(*verb, "--output", root / "groups.jsonl").ok()
    hafs("judge", "build", "-w", root, "--split", "test", "--all-edges", "--output", root / "test.jsonl").ok()
    hafs("judge", "build", "-w", root, "--all-edges", "--output", root / "train.jsonl").ok()
    groups = {
        name: [PreferenceGroup.from_dict(row) for row in lines(root / f"{name}.jsonl")]
        for name in ("groups", "train", "test")
    }
    of_split = {p.id: p.split for p in apart}
    for name, split in (("groups", "train"), ("train", "train"), ("test", "test")):
        assert {of_split[g.prompt_id] for g in groups[name]} == {split}
        assert max(len(g.candidates) for g in groups[name]) == 3
    right = {id: {c.id for c in mine} - wrong for id, mine in planted.candidates.items()}
    judged = [
        (right[g.prompt_id], {g.candidates[e.winner].id, g.candidates[e.loser].id})
        for g in groups["groups"]
        for e in g.edges
        if e.source.startswith("judge:") and len(right[g.prompt_id]) >= 2
    ]
    assert wrong and judged and all(pair <= kept for kept, pair in judged)


def test_a_queue_is_of_one_protocol(planted: World, tmp_path: Path) -> None:
    """Sources name the version of a protocol and not its name, and listwise has the same."""
    source = f"judge:{JUDGE}@1"
    with open_store(tmp_path / "hafs.db") as store:
        fill(store, part(planted, planted.prompts[:40]))
        picked, probabilities = pick({p.id: 0.5 for p in planted.prompts[:40]}, 10)
        save_queue(store, source, "listwise@1", picked, probabilities, [], {})
        annotate(store, planted, [q.id for q in picked])
        assert sample(store, source, "listwise@1", read_labels(store).of) is not None
        assert newest_queue(store, source, "pairwise@1") is None and gather(store).sample is None


# ---- the pieces of the hybrid path


def test_the_automatic_filter() -> None:
    def scored(*marks: bool | None) -> list[tuple[Candidate, Score | None]]:
        rows = []
        for c, passed in zip(FOUR, marks, strict=False):
            score = None if passed is None else Score(c.id, "asm", "1", value=float(passed), passed=passed)
            rows.append((c, score))
        return rows

    def kept(keep: int, *marks: bool | None) -> set[int]:
        return {c.index for c in shortlist([(PROMPT, scored(*marks))], keep).get(PROMPT.id, [])}

    assert kept(4, True, False, True, None) == {0, 2, 3}, "unscored is not wrong"
    assert kept(2, True, False, True, None) == {0, 2}
    assert kept(4, True, False, False, False) in ({0, 1}, {0, 2}, {0, 3}), "two are left to compare"
    assert kept(4, True) == set(), "one answer is no comparison"
    twins = [(FOUR[0], None), (replace(FOUR[0], index=7, text="answer 0 "), None)]
    assert shortlist([(PROMPT, twins)], 4) == {}


def test_the_hybrid_path_asks_a_judge_and_keeps_what_came(planted: World, tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(store: Store, kept: Shortlist) -> int:
        known = {v.prompt_id for v in store.verdicts()}
        rng = np.random.default_rng(0)
        came = 0
        for prompt_id, candidates in kept.items():
            if prompt_id not in known:
                asked.append(prompt_id)
                ids = {c.id for c in candidates}
                came += store.add_verdicts(v for v in planted.verdicts(prompt_id, rng) if set(v.shown) <= ids)
                if len(asked) == 30:
                    raise KeyboardInterrupt
        return came

    some = planted.prompts[:50]
    with open_store(tmp_path / "hafs.db") as store:
        store.add_prompts(some)
        store.add_candidates(c for p in some for c in planted.candidates[p.id])
        with pytest.raises(UsageError, match="no verdicts"):
            hybrid(store, some)
        with pytest.raises(KeyboardInterrupt):
            hybrid(store, some, ask=ask)
        kept = {v.prompt_id for v in store.verdicts()}
        assert len(kept) > 20
        done = hybrid(store, some, settings=HybridSettings(queue=10), ask=ask)
        assert (done.judged, done.queued, done.labelled, done.groups) == (50, 10, 0, None)
        assert len(set(asked)) == 50 and all(asked.count(id) == 1 for id in kept), "nothing is asked twice"
        assert hybrid(store, some, settings=HybridSettings(queue=10), ask=ask).asked == 0
        run = newest_queue(store, done.source, "pairwise@1")
        assert run is not None and run.kind == "annotation-queue" and run.id == done.queue
        assert {q.reason for q in queued(run)} <= {"audit", "uncertain"}
        annotate(store, planted, [q.id for q in queued(run)][:4])
        partial = hybrid(store, some, settings=HybridSettings(queue=10, partial=True))
        assert partial.calibration is not None and partial.calibration.labelled_prompts == 4
        assert hybrid(store, some, settings=HybridSettings(queue=10)).groups is None
    with pytest.raises(UsageError, match="compares nothing"):
        HybridSettings(keep=1)


# ---- the verbs


def test_the_verbs_say_in_words_what_they_say_in_json(space: Path) -> None:
    card = hafs("judge", "calibrate", "-w", space, "--min-agreement", "0.6").ok().out
    for words in ("at 95% confidence", "bias card", "first slot wins", "probe 'plea' wins", "person, again"):
        assert words in card
    asked = f"{JUDGE}@http://127.0.0.1:1/v1"
    for name in (asked, f"{JUDGE}@1"):
        assert hafs("judge", "calibrate", "-w", space, "--min-agreement", "0.6", "--judge", name).ok().out == card
    planned = hafs("judge", "plan", "-w", space, "--json").ok().json
    assert planned["measured"] and len(planned["rows"]) == 4
    assert "minutes" in hafs("judge", "plan", "-w", space).ok().out
    built = hafs("judge", "build", "-w", space, "--output", space / "pairs.jsonl", "--pairs", "--json").ok().json
    rows = lines(space / "pairs.jsonl")
    assert built["judge_edges"] + built["human_edges"] == len(rows)
    assert {row.get("calibrated") for row in rows} == {None, True}
    rate = hafs("judge", "winrate", "dpo", "sft", "-w", space, "--json").ok().json
    assert 0.5 < rate["raw"]["corrected"]["value"] < 1
    shown = hafs("judge", "winrate", "dpo", "sft", "-w", space).ok().out
    assert "judge, corrected" in shown and "length-controlled" in shown
    assert "labelled" in hafs("judge", "hybrid", "-w", space, "--scorer", "none", "--queue-size", "5").ok().out


def test_mistakes_are_explained(space: Path, tmp_path: Path) -> None:
    empty = workspace(tmp_path / "empty", "")
    hafs("judge", "calibrate", "-w", empty).failed(2, "has no verdicts", "hafs judge run")
    hafs("judge", "calibrate", "-w", space, "--judge", "nobody").failed(2, "no verdicts of nobody")
    hafs("judge", "calibrate", "-w", space, "--protocol", "listwise").failed(2, "pairwise@1", "--protocol")
    hafs("judge", "calibrate", "-w", space, "--min-agreement", "75").failed(2, "between 0 and 1")
    hafs("judge", "plan", "-w", space, "--expect", "2").failed(2, "--expect lies above 0 and at most at 1, not 2.0")
    hafs("judge", "winrate", "dpo", "ppo", "-w", space).failed(2, "no answers of dpo and ppo")
    hafs("judge", "hybrid", "-w", space, "--scorer", "builds", "--audit-share", "0").failed(2, "audit share")
    hafs("judge", "hybrid", "-w", space, "--scorer", "asm").failed(2, "no scores by asm")
