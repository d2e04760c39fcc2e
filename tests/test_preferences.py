"""Rankings from scores, groups from rankings, and preference pairs in and out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hafs.errors import DataError, UsageError
from hafs.files.jsonl import write_jsonl
from hafs.preferences import (
    SCHEMES,
    build_groups,
    from_pairs,
    group_from_ranking,
    groups_from_answers,
    pair,
    rank,
    read_preferences,
    same_text,
    spread,
    to_pairs,
)
from hafs.store import open_store
from hafs.training.data import winner_examples
from hafs.types import (
    Candidate,
    CandidateLabel,
    Edge,
    GroupCandidate,
    PreferenceGroup,
    Prompt,
    Ranking,
    Reference,
    Score,
)

PROMPT = Prompt("Load the player's state", family="load", references=(Reference("short", "LDA\nRTS"),))
Answer = tuple[Candidate, Score | None]


def answer(text: str, *key: float, passed: bool | None = None, tolerance: float = 0.0, p: Prompt = PROMPT) -> Answer:
    """A candidate with this text and a score with this key; the key's first part is the value."""
    c = Candidate(p.id, text)
    return c, Score(c.id, "asm", "1", value=key[0], key=key, passed=passed, tolerance=tolerance)


def unscored(text: str, p: Prompt = PROMPT) -> Answer:
    c = Candidate(p.id, text)
    return c, Score(c.id, "asm", "1", reason="no assembler")


def tiers_of(answers: Sequence[Answer]) -> list[set[str]]:
    """The texts of each tier, best first."""
    text = {c.id: c.text for c, _ in answers}
    return [{text[id] for id in tier} for tier in rank(answers).tiers]


def groups_of(answers: Sequence[Answer], scheme: str = "all", **options: object) -> list[PreferenceGroup]:
    groups, _ = groups_from_answers([(PROMPT, answers)], scheme, **options)
    return list(groups)


def texts_of(groups: Sequence[PreferenceGroup]) -> set[tuple[str, str]]:
    return {(chosen, rejected) for group in groups for chosen, rejected, _ in group.pairs()}


# ---- rankings


def test_keys_compare_part_by_part() -> None:
    answers = [answer("c", 1, 0, 9), answer("a", 1, 1, -5), answer("d", 0, 9, 9), answer("b", 1, 1, -7)]
    assert tiers_of(answers) == [{"a"}, {"b"}, {"c"}, {"d"}]
    ranking = rank(answers)
    assert (ranking.prompt_id, ranking.source) == (PROMPT.id, "asm@1")


def test_an_empty_key_stands_for_the_value() -> None:
    made = [Candidate(PROMPT.id, text) for text in "abc"]
    values = zip(made, (0.2, 0.9, 0.2), strict=True)
    answers = [(c, Score(c.id, "length", "1", value=v)) for c, v in values]
    assert tiers_of(answers) == [{"b"}, {"a", "c"}]


def test_a_tolerance_is_counted_from_the_best_of_the_tier() -> None:
    clocks = [answer(str(n), 1, -n, tolerance=40) for n in (72, 100, 112, 113, 140, 153, 154)]
    assert tiers_of(clocks) == [{"72", "100", "112"}, {"113", "140", "153"}, {"154"}]
    assert tiers_of([answer("a", 1, 0, tolerance=9), answer("b", 0, 0, tolerance=9)]) == [{"a"}, {"b"}]
    assert tiers_of([answer("a", 1, tolerance=9), answer("b", 1, 0, tolerance=9)]) == [{"b"}, {"a"}]


def test_unscored_candidates_are_left_out_and_counted() -> None:
    nothing = Candidate(PROMPT.id, "z"), None
    no_number = answer("w", 1.0, float("nan"))
    ranking = rank([answer("a", 1), unscored("x"), answer("b", 0), nothing, no_number])
    assert sum(map(len, ranking.tiers)) == 2
    assert ranking.details == {"unscored": 3, "equal": 0}
    assert rank([unscored("x")]).tiers == ()


def test_equal_texts_are_one_candidate_with_its_lowest_key() -> None:
    assert same_text("LDA \r\n  RTS\t\n\n") == "LDA\n  RTS" != same_text("LDA\nRTS")
    answers = [answer("LDA\nRTS", 2), answer("LDA  \nRTS\n\n", 0), answer("NOP", 1)]
    assert [len(tier) for tier in rank(answers).tiers] == [1, 1]
    assert tiers_of(answers)[0] == {"NOP"}
    assert rank(answers).details == {"unscored": 0, "equal": 1}


def test_a_ranking_is_of_one_prompt_and_one_scorer() -> None:
    with pytest.raises(ValueError, match="not of 2"):
        rank([answer("a", 1), answer("b", 0, p=Prompt("other"))])
    with pytest.raises(ValueError, match="not of 0"):
        rank([])
    c, s = answer("b", 0)
    assert s is not None
    for other in (Score(c.id, "asm", "2", value=0.5), Score(c.id, "asm", "1", {"vectors": 4}, value=0.5)):
        with pytest.raises(DataError, match="several scorers"):
            rank([answer("a", 1), (c, other)])


keys = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=7)


def scored(values: Sequence[tuple[int, int]], tolerance: float = 0.0) -> list[Answer]:
    return [answer(f"text {i}", *key, tolerance=tolerance) for i, key in enumerate(values)]


@given(keys, st.floats(0, 3), st.randoms())
def test_a_ranking_does_not_depend_on_the_order_of_the_candidates(values, tolerance, random) -> None:
    answers = scored(values, tolerance)
    before = rank(answers)
    random.shuffle(answers)
    assert rank(answers) == before


@given(keys, st.integers(0, 3))
def test_tiers_are_ordered_and_no_wider_than_the_tolerance(values, tolerance) -> None:
    answers = scored(values, tolerance)
    key = {c.id: s.key for c, s in answers if s}
    tiers = rank(answers).tiers
    assert sorted(id for tier in tiers for id in tier) == sorted(key)
    for tier in tiers:
        assert max(key[id] for id in tier) == key[tier[0]]
        assert {key[id][0] for id in tier} == {key[tier[0]][0]}
        assert all(key[tier[0]][1] - key[id][1] <= tolerance for id in tier)
    for better, worse in pairwise(tiers):
        assert min(key[id] for id in better) > max(key[id] for id in worse)
        assert key[better[0]][0] > key[worse[0]][0] or key[better[0]][1] - key[worse[0]][1] > tolerance


# ---- schemes

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=5)


def tiers_like(sizes: Sequence[int]) -> list[list[tuple[int, int]]]:
    return [[(i, j) for j in range(size)] for i, size in enumerate(sizes)]


def test_a_ranking_of_four_gives_the_six_edges_of_the_guide() -> None:
    made = {text: Candidate(PROMPT.id, text) for text in "ABCD"}
    ranking = Ranking(PROMPT.id, tuple((made[text].id,) for text in "CABD"), "me")
    group = group_from_ranking(PROMPT, made.values(), ranking)
    assert group is not None
    assert [(chosen + rejected, e.source, e.p) for chosen, rejected, e in group.pairs()] == [
        (edge, "me", 1.0) for edge in ("CA", "CB", "CD", "AB", "AD", "BD")
    ]
    assert [c.text for c in group.candidates] == list("CABD")
    assert (group.prompt, group.prompt_id, group.family) == (PROMPT.text, PROMPT.id, "load")


@given(shapes)
def test_all_makes_the_product_of_every_two_tiers(sizes) -> None:
    edges = pair(tiers_like(sizes), "all")
    assert len(edges) == len(set(edges)) == sum(a * b for a, b in combinations(sizes, 2))
    assert all(winner[0] < loser[0] for winner, loser in edges)


@given(shapes)
def test_best_worst_makes_one_edge_between_the_outer_tiers(sizes) -> None:
    edges = pair(tiers_like(sizes), "best-worst")
    assert [(winner[0], loser[0]) for winner, loser in edges] == ([(0, len(sizes) - 1)] if len(sizes) > 1 else [])


@given(st.lists(st.text(), unique=True, max_size=9))
def test_guide_is_the_loop_of_the_guide_when_nothing_ties(candidates) -> None:
    n = len(candidates)
    pairs = []
    for i in range(n // 2):
        pairs.append((candidates[i], candidates[-(i + 1)]))
    assert pair([[c] for c in candidates], "guide") == pairs


@given(shapes)
def test_guide_is_that_loop_without_the_ties(sizes) -> None:
    members = [member for tier in tiers_like(sizes) for member in tier]
    loop = [(members[i], members[-(i + 1)]) for i in range(len(members) // 2)]
    assert pair(tiers_like(sizes), "guide") == [(a, b) for a, b in loop if a[0] != b[0]]


@given(shapes, st.integers(2, 8))
def test_a_spread_keeps_the_best_the_worst_and_the_order(sizes, most) -> None:
    tiers = tiers_like(sizes)
    kept = [member for tier in spread(tiers, most) for member in tier]
    everyone = [member for tier in tiers for member in tier]
    assert len(kept) == len(set(kept)) == min(most, len(everyone))
    assert kept == sorted(kept) and kept[0] == everyone[0] and kept[-1] == everyone[-1]
    places = [everyone.index(member) for member in kept]
    gaps = {b - a for a, b in pairwise(places)}
    assert not gaps or max(gaps) - min(gaps) <= 1
    assert [m for tier in spread(tiers, 1) for m in tier] == everyone[-1:]


# ---- groups


@given(keys, st.sampled_from(SCHEMES))
def test_reversed_keys_reverse_the_edges(values, scheme) -> None:
    assume(scheme == "all" or len(set(values)) == len(values))  # which one of a tie is taken has no direction
    up = groups_of(scored(values), scheme)
    down = groups_of(scored([(-a, -b) for a, b in values]), scheme)
    assert texts_of(up) == {(rejected, chosen) for chosen, rejected in texts_of(down)}


@given(keys, st.sampled_from(SCHEMES), st.integers(2, 5), st.randoms())
def test_the_order_of_the_candidates_does_not_change_the_groups(values, scheme, most, random) -> None:
    answers = scored(values, tolerance=1)
    before = {group.id for group in groups_of(answers, scheme, max_candidates=most)}
    random.shuffle(answers)
    assert {group.id for group in groups_of(answers, scheme, max_candidates=most)} == before


similar = st.sampled_from(["a", "a ", "a\n", "b", " b", "b\t\n"])


@given(st.lists(st.tuples(similar, st.integers(0, 3)), min_size=1), st.sampled_from(SCHEMES))
def test_no_edge_joins_equal_texts_or_ties(rows, scheme) -> None:
    answers = []
    for i, (text, value) in enumerate(rows):
        c = Candidate(PROMPT.id, text, index=i)
        answers.append((c, Score(c.id, "asm", "1", value=value)))
    lowest = {t: min(v for text, v in rows if same_text(text) == t) for t in {same_text(text) for text, _ in rows}}
    for group in groups_of(answers, scheme):
        assert len({same_text(c.text) for c in group.candidates}) == len(group.candidates)
        for chosen, rejected, _ in group.pairs():
            assert lowest[same_text(chosen)] > lowest[same_text(rejected)]


@given(keys, st.sampled_from(SCHEMES), st.integers(2, 4))
def test_a_group_is_bounded_and_every_candidate_is_in_an_edge(values, scheme, most) -> None:
    for group in groups_of(scored(values), scheme, max_candidates=most):
        assert 2 <= len(group.candidates) <= most
        assert len(group.edges) <= most * (most - 1) // 2
        assert {i for e in group.edges for i in (e.winner, e.loser)} == set(range(len(group.candidates)))


def test_the_report_accounts_for_every_prompt() -> None:
    prompts = [Prompt(f"p{i}") for i in range(6)]
    rows = [
        [answer("a", 1, p=prompts[0]), answer("b", 0, p=prompts[0]), unscored("c", p=prompts[0])],
        [answer("a", 1, p=prompts[1]), answer("b", 1, p=prompts[1])],
        [unscored("a", p=prompts[2])],
        [answer("a", 1, p=prompts[3]), answer("a ", 1, p=prompts[3])],
        [],
        [answer("a", 1, passed=True, p=prompts[5]), answer("b", 0, passed=True, p=prompts[5])],
    ]
    groups, report = groups_from_answers(zip(prompts, rows, strict=True), efficiency=False)
    assert [g.prompt for g in groups] == ["p0"]
    assert report.to_dict() == {
        "prompts": 6,
        "groups": 1,
        "edges": 1,
        "candidates": 10,
        "unscored": 2,
        "equal": 1,
        "reference_groups": 0,
        "wrong_over_wrong": 0,
        "left_out": 0,
        "skipped": {
            "all candidates tie": 1,
            "no candidate is scored": 1,
            "only one candidate": 1,
            "no candidates": 1,
            "no pair is left by the options": 1,
        },
        "coverage": 0.8,
    }
    assert "8 of 10 candidates are scored (80.0%)" in str(report)
    empty = groups_from_answers([])[1]
    assert empty.coverage is None and "0 groups" in str(empty)


def test_rows_in_memory_give_the_groups_of_rows_from_the_store(tmp_path: Path) -> None:
    prompts = [Prompt(f"p{i}", split="train") for i in range(5)]
    rows = [answer(f"{i} {j}", (i * j) % 3, j, p=p) for i, p in enumerate(prompts) for j in range(4)]
    scores = [s for _, s in rows if s is not None]
    with open_store(tmp_path / "hafs.db") as store:
        store.add_prompts(prompts)
        store.add_candidates(c for c, _ in rows)
        store.add_scores(scores[:-1])
        streamed = list(groups_from_answers(store.answers("asm", split="train"), "guide")[0])
    built, report = build_groups(prompts, [c for c, _ in rows], scores[:-1], "guide")
    assert {g.id for g in built} == {g.id for g in streamed} and len(streamed) == 5
    assert report.unscored == 1


def test_scores_of_several_scorers_are_not_mixed() -> None:
    c, s = answer("a", 1)
    assert s is not None
    late = Score(c.id, "asm", "1", reason="no assembler")
    groups, _ = build_groups([PROMPT], [c], [late, s, late])
    assert list(groups) == []
    groups, _ = build_groups([PROMPT], [c], [s, Score(c.id, "length", "1", value=0.5)])
    with pytest.raises(DataError, match="asm@1 and length@1"):
        list(groups)


def test_wrong_options_are_named() -> None:
    for option, value in (("scheme", "best"), ("references", "maybe")):
        with pytest.raises(UsageError, match=f"{option} cannot be '{value}'"):
            groups_from_answers([], **{option: value})
    with pytest.raises(UsageError, match="at least 2"):
        groups_from_answers([], max_candidates=1)
    with pytest.raises(UsageError, match="above 0"):
        groups_from_answers([], weight=0)


# ---- options

RIGHT_FAST = answer("right fast", 1, -10, passed=True)
RIGHT_SLOW = answer("right slow", 1, -90, passed=True)
WRONG = answer("wrong", 0.5, 0, passed=False)
BROKEN = answer("broken", 0, 0, passed=False)
MIXED = [BROKEN, RIGHT_SLOW, WRONG, RIGHT_FAST]


def test_contrast_and_efficiency_choose_the_edges() -> None:
    right_wrong = {(r, w) for r in ("right fast", "right slow") for w in ("wrong", "broken")}
    fast_slow, wrong_broken = ("right fast", "right slow"), ("wrong", "broken")
    assert texts_of(groups_of(MIXED)) == right_wrong | {fast_slow}
    assert texts_of(groups_of(MIXED, efficiency=False)) == right_wrong
    assert texts_of(groups_of(MIXED, wrong_over_wrong=True)) == right_wrong | {fast_slow, wrong_broken}
    assert texts_of(groups_of(MIXED, wrong_over_wrong=True, efficiency=False)) == right_wrong | {wrong_broken}


def test_a_wrong_answer_wins_only_where_that_was_asked_for_and_what_is_left_out_is_counted() -> None:
    other = Prompt("another")
    answers = [(PROMPT, MIXED), (other, [answer("bad", 0.5, passed=False), answer("worse", 0, passed=False)])]
    made, report = groups_from_answers(answers)
    [group] = list(made)
    assert report.wrong_over_wrong == 2 and report.skipped == {"no candidate is right": 1}
    assert "2 pairs of two wrong answers were left out" in str(report)
    assert [c.label.good for c in group.candidates if c.label] == [True, True, False, False]
    made, report = groups_from_answers(answers, wrong_over_wrong=True)
    assert len(list(made)) == 2 and report.wrong_over_wrong == 0


def test_only_right_winners_that_nothing_beats_are_taught() -> None:
    [group] = groups_of(MIXED, wrong_over_wrong=True)
    assert [group.candidates[i].text for i in group.winners] == ["right fast"]
    [group] = groups_of(MIXED, wrong_over_wrong=True, efficiency=False)
    assert [group.candidates[i].text for i in group.winners] == ["right fast", "right slow"]
    [wrong] = groups_of([WRONG, BROKEN], wrong_over_wrong=True)
    assert wrong.winners == () and winner_examples([wrong]) == []
    unknown = group_from_ranking(PROMPT, *_ranked())
    assert unknown is not None and [unknown.candidates[i].text for i in unknown.winners] == ["a"]
    [taught] = winner_examples([group], answers=1)
    assert [c.text for c in taught.candidates] == ["right fast"] and taught.edges == ()
    tossed = replace(group, edges=(Edge(0, 1, p=0.5), Edge(2, 1, p=0.2)))
    assert tossed.winners == (1,)  # a coin toss says nothing, and what probably loses does not win


def _ranked() -> tuple[list[Candidate], Ranking]:
    made = [Candidate(PROMPT.id, text, index=i) for i, text in enumerate("abc")]
    return made, Ranking(PROMPT.id, tuple((c.id,) for c in made), "me")


def test_a_gap_and_a_weight() -> None:
    assert texts_of(groups_of(MIXED, min_gap=0.75)) == {("right fast", "broken"), ("right slow", "broken")}
    assert texts_of(groups_of([WRONG, BROKEN], min_gap=0.5, wrong_over_wrong=True)) == {("wrong", "broken")}
    [group] = groups_of(MIXED, weight=5.0)
    assert {e.weight for e in group.edges} == {5.0} and {e.source for e in group.edges} == {"asm@1"}


def test_a_reference_wins_where_no_sample_is_right() -> None:
    [group] = groups_of([WRONG, BROKEN], references="when-needed", wrong_over_wrong=True)
    label = CandidateLabel(True, source="reference")
    assert group.candidates[0] == GroupCandidate("LDA\nRTS", "reference:short", off_policy=True, label=label)
    assert [(c, r, e.source) for c, r, e in group.pairs()] == [
        ("LDA\nRTS", "wrong", "reference"),
        ("LDA\nRTS", "broken", "reference"),
        ("wrong", "broken", "asm@1"),
    ]
    assert not any(c.off_policy for g in groups_of(MIXED, references="when-needed") for c in g.candidates)
    assert not any(c.off_policy for g in groups_of([WRONG, BROKEN]) for c in g.candidates)
    [alone] = groups_of([BROKEN], "best-worst", references="when-needed")
    assert texts_of([alone]) == {("LDA\nRTS", "broken")}
    contrast = groups_of([WRONG, BROKEN], references="when-needed")
    assert texts_of(contrast) == {("LDA\nRTS", "wrong"), ("LDA\nRTS", "broken")}


def test_a_reference_is_not_ranked_against_right_answers() -> None:
    [group] = groups_of(MIXED, references="always")
    off_policy = {(c, r) for c, r, e in group.pairs() if e.source == "reference"}
    assert off_policy == {("LDA\nRTS", "wrong"), ("LDA\nRTS", "broken")}
    assert texts_of([group]) - off_policy == texts_of(groups_of(MIXED))
    assert groups_of([RIGHT_FAST], references="always") == []


def test_a_reference_needs_answers_known_to_be_wrong() -> None:
    unknown = [answer("a", 1), answer("b", 0)]
    assert texts_of(groups_of(unknown, references="always")) == {("a", "b")}
    same = [answer("LDA \nRTS\n", 0.5, passed=False), BROKEN]
    more = groups_of(same, references="when-needed", wrong_over_wrong=True)
    assert texts_of(more) == {("LDA \nRTS\n", "broken")}
    groups, report = groups_from_answers(
        [(PROMPT, [unscored("a")]), (Prompt("no reference"), [answer("b", 0, passed=False)])], references="when-needed"
    )
    assert list(groups) == [] and report.reference_groups == 0


def test_a_reference_counts_among_the_candidates_of_a_group() -> None:
    many = [answer(f"wrong {i}", i / 10, passed=False) for i in range(9)]
    for most in (2, 3, 5):
        groups, report = groups_from_answers([(PROMPT, many)], references="when-needed", max_candidates=most)
        [group] = groups
        assert len(group.candidates) == most and report.reference_groups == 1
        assert group.candidates[0].off_policy and group.candidates[-1].text == "wrong 0"


def test_a_given_ranking_with_ties_equal_texts_and_strangers() -> None:
    made = [Candidate(PROMPT.id, text, index=i) for i, text in enumerate(("a", "b", "a ", "c"))]
    ids = [c.id for c in made]
    group = group_from_ranking(PROMPT, made, Ranking(PROMPT.id, ((ids[0], ids[1]), (ids[2],), (ids[3],)), "me"))
    assert group is not None and texts_of([group]) == {("b", "a "), ("b", "c"), ("a ", "c")}
    assert group_from_ranking(PROMPT, made, Ranking(PROMPT.id, (tuple(ids),), "me")) is None
    with pytest.raises(DataError, match="unknown candidate"):
        group_from_ranking(PROMPT, made[:1], Ranking(PROMPT.id, ((ids[0],), (ids[1],)), "me"))
    with pytest.raises(DataError, match="twice"):
        group_from_ranking(PROMPT, made, Ranking(PROMPT.id, ((ids[0],), (ids[0],)), "me"))


# ---- pairs

texts = st.text(min_size=1, max_size=4).filter(lambda t: t.strip())
probabilities = st.just(1.0) | st.floats(0.5, 1).filter(lambda p: p > 0.501)


@st.composite
def groups(draw: st.DrawFn) -> PreferenceGroup:
    """A group as pairs can say it: every candidate in an edge, in the order of first mention."""
    members = draw(st.lists(texts, min_size=2, max_size=4, unique_by=same_text))
    possible = list(combinations(range(len(members)), 2))
    kept = draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    weights = st.floats(0.1, 10)
    edges = [Edge(a, b, draw(weights), draw(probabilities), draw(st.sampled_from(["", "me"]))) for a, b in kept]
    order = list(dict.fromkeys(i for e in edges for i in (e.winner, e.loser)))
    edges = [Edge(order.index(e.winner), order.index(e.loser), e.weight, e.p, e.source) for e in edges]
    p = Prompt(draw(texts), draw(st.just("") | texts))
    return PreferenceGroup(p.text, tuple(GroupCandidate(members[i]) for i in order), tuple(edges), p.system, p.id)


@given(st.lists(groups(), max_size=3, unique_by=lambda g: (g.system, g.prompt)), st.booleans())
def test_groups_become_pairs_and_pairs_groups(made, conversational) -> None:
    rows = [json.loads(json.dumps(row)) for g in made for row in to_pairs(g, conversational=conversational)]
    found = from_pairs(rows)
    assert found.groups == made
    assert (found.bad, found.pairs, found.repeated) == ([], len(rows), 0)


def test_a_pair_has_the_columns_of_trl() -> None:
    edges = (Edge(0, 1, 2.0, source="asm@1"), Edge(1, 2, p=0.75))
    group = PreferenceGroup("p", tuple(map(GroupCandidate, "abc")), edges)
    assert to_pairs(group) == [
        {"prompt": "p", "chosen": "a", "rejected": "b", "weight": 2.0, "source": "asm@1"},
        {"prompt": "p", "chosen": "b", "rejected": "c", "weight": 1.0, "source": "", "p": 0.75},
    ]
    told = PreferenceGroup("p", tuple(map(GroupCandidate, "ab")), edges[:1], system="be brief")
    assert to_pairs(told)[0]["system"] == "be brief"
    assert to_pairs(told, conversational=True) == [
        {
            "prompt": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "p"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
            "weight": 2.0,
            "source": "asm@1",
        }
    ]


def row(chosen: str, rejected: str, **more: object) -> dict[str, object]:
    return {"prompt": "p", "chosen": chosen, "rejected": rejected, **more}


def test_repeated_rows_weigh_more() -> None:
    found = from_pairs(
        [row("a", "b", source="human")] * 6 + [row("b", "c"), row("a ", "b\n", weight=0.5, source="asm")]
    )
    [group] = found.groups
    assert [(c, r, e.weight, e.p, e.source) for c, r, e in group.pairs()] == [
        ("a", "b", 6.5, 1.0, "asm+human"),
        ("b", "c", 1.0, 1.0, ""),
    ]
    assert (found.pairs, found.repeated, found.contradictions, found.draws) == (8, 6, 0, 0)


def test_contradicting_rows_become_one_soft_edge_and_draws_none() -> None:
    found = from_pairs([row("a", "b"), row("b", "a", weight=3), row("c", "d"), row("d", "c"), row("e", "f", p=0.25)])
    [group] = found.groups
    assert [(c, r, e.weight, e.p) for c, r, e in group.pairs()] == [("b", "a", 4.0, 0.75), ("f", "e", 1.0, 0.75)]
    assert [c.text for c in group.candidates] == ["a", "b", "e", "f"]
    assert (found.contradictions, found.draws, found.repeated) == (2, 1, 2)
    assert from_pairs([row("a", "b"), row("b", "a")]).groups == []


def test_a_file_of_groups_and_pairs_keeps_its_good_lines(tmp_path: Path) -> None:
    group = PreferenceGroup("g", (GroupCandidate("a"), GroupCandidate("b")), (Edge(0, 1),), prompt_id="x", family="f")
    said = [{"role": "user", "content": "q"}]
    rows: list[object] = [
        group.to_dict(),
        row("a", "b", margin=3, id=7),
        {"prompt": "p", "chosen": "a"},
        {
            "prompt": "q",
            "chosen": [*said, {"role": "assistant", "content": "x"}],
            "rejected": [{"role": "assistant", "content": "y"}],
        },
        row("same", "same \n"),
        row("a", "b", weight=-1),
        row("a", "b", weight="much"),
        row("a", "b", p=2),
        row("a", 5),
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": [*said, {"role": "assistant", "content": "r"}], "chosen": "a", "rejected": "b"},
        {"prompt": "q", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"},
        {"prompt": "other", "chosen": [*said, {"role": "assistant", "content": "x"}], "rejected": "b"},
        {"prompt": "q", "chosen": [{"role": "assistant"}], "rejected": "b"},
        {"prompt": "g", "candidates": [{"text": "a"}, {"text": "b"}]},
        {"candidates": [], "edges": []},
        {**group.to_dict(), "edges": []},
        {**group.to_dict(), "edges": [{"winner": 0, "loser": 9}]},
        {**group.to_dict(), "prompt": 5},
    ]
    file = tmp_path / "preferences.jsonl"
    write_jsonl(file, rows)
    with file.open("a") as f:
        f.write('{"prompt": "cut of')
    found = read_preferences(file)
    assert [g.prompt for g in found.groups] == ["g", "p", "q"]
    assert found.groups[0] == group
    assert texts_of(found.groups) == {("a", "b"), ("x", "y")}
    bad = dict(found.bad)
    assert sorted(bad) == [3, *range(5, len(rows) + 2)]
    assert bad[3].startswith("no column is known as the rejected: the columns are prompt, chosen")
    assert bad[5] == "chosen and rejected are the same text"
    assert "weight" in bad[6] and "'much'" in bad[7] and "p is 2" in bad[8] and "'rejected'" in bad[9]
    assert (
        "empty" in bad[10]
        and "end with one of the user" in bad[11]
        and "'user'" in bad[12]
        and "another conversation" in bad[13]
    )
    assert "'content'" in bad[14] and bad[15] == "the column 'edges' is missing"
    assert bad[16] == "the column 'prompt' is missing" and "no edge" in bad[17] and "outside the group" in bad[18]


def test_a_file_without_a_usable_line_says_what_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "preferences.jsonl"
    file.write_text('{"prompt": "p", "chosen": "a"}\n')
    with pytest.raises(DataError, match=r"no usable row.*line 1: no column is known as the rejected"):
        read_preferences(file)
    with pytest.raises(UsageError, match="there is no file"):
        read_preferences(tmp_path / "nowhere.jsonl")
    assert from_pairs([{"chosen": "a"}]).bad == [(1, "the column 'prompt' is missing")]


def test_answers_are_labelled_by_pass_or_fail_where_there_is_no_pair_too() -> None:
    [group] = groups_of(MIXED, labels=True)
    said = {c.text: c.label and c.label.good for c in group.candidates}
    assert said["right fast"] is said["right slow"] is True and said["wrong"] is said["broken"] is False
    assert texts_of([group]) == texts_of(groups_of(MIXED))
    assert groups_of([WRONG]) == []
    [alone] = groups_of([WRONG], labels=True)
    assert not alone.edges and [c.label for c in alone.candidates] == [CandidateLabel(False, source="asm@1")]
