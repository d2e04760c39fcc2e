"""One reader of people's labels: however groups are built from them, the edges are the same."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from hafs.config import PreferencesConfig
from hafs.judge.labels import labels_of
from hafs.preferences import group_from_labels, same_text
from hafs.preferences.collect import groups_from_people
from hafs.store import Store, open_store
from hafs.types import Annotation, Candidate, PreferenceGroup, Prompt, Verdict
from hafs.workflows.hybrid import HybridSettings, hybrid, judged_groups

PROMPT = Prompt("p")
ANSWERS = [Candidate(PROMPT.id, text, "m", "m", index=i) for i, text in enumerate("ABCD")]
OTHER = Prompt("another")
OTHERS = [Candidate(OTHER.id, text, "m", "m", index=i) for i, text in enumerate("AB")]


def ranked(who: str, *tiers: str, **more: object) -> Annotation:
    ids = {c.text: c.id for c in ANSWERS}
    named = tuple(tuple(ids[x] for x in tier) for tier in tiers)
    return Annotation(PROMPT.id, who, tuple(ids.values()), "ranked", named, **more)  # type: ignore[arg-type]


def edges(groups: list[PreferenceGroup]) -> dict[tuple[str, str], tuple[float, float, str]]:
    """(weight, p, source) of the people's edges by their texts."""
    return {
        (winner, loser): (e.weight, round(e.p, 6), e.source)
        for g in groups
        if g.prompt_id == PROMPT.id
        for winner, loser, e in g.pairs()
        if e.source.startswith("human:")
    }


def both_ways(store: Store) -> list[dict[tuple[str, str], tuple[float, float, str]]]:
    """The people's edges by `preferences build --from human`, `judge build`, and the hybrid path."""
    told, _ = groups_from_people(store, PreferencesConfig())
    judged, _ = judged_groups(store)
    path = hybrid(store, [PROMPT, OTHER], settings=HybridSettings(queue=2, partial=True, all_edges=True))
    return [edges(list(told)), edges(judged), edges(path.groups or [])]


def fill(store: Store, *said: Annotation) -> None:
    store.add_prompts([PROMPT, OTHER])
    store.add_candidates([*ANSWERS, *OTHERS])
    for prompt, answers in ((PROMPT, ANSWERS), (OTHER, OTHERS)):
        for a, b in combinations([c.id for c in answers], 2):
            for shuffle, shown in enumerate(((a, b), (b, a))):
                store.add_verdicts(
                    [Verdict(prompt.id, "j", "pairwise@1", shown, "ranked", ((a,), (b,)), shuffle=shuffle)]
                )
    store.add_annotations(said)


def test_one_clear_and_one_slight_preference_make_the_same_edge_everywhere(tmp_path: Path) -> None:
    with open_store(tmp_path / "hafs.db") as store:
        fill(store, ranked("ann", "A", "B", confidence="clear"), ranked("bob", "B", "A", confidence="slight"))
        for found in both_ways(store):
            assert found == {("A", "B"): (1.0, round(2 / 3, 6), "human:ann+human:bob")}


def test_agreement_ties_ratings_and_edits_count_alike_everywhere(tmp_path: Path) -> None:
    with open_store(tmp_path / "hafs.db") as store:
        by_hand = Candidate(PROMPT.id, "better", source="edited:ann", sampling={"edited_from": ANSWERS[1].id})
        edited = {"edited": {"candidate": by_hand.id, "of": ANSWERS[1].id}}
        rated = [
            Annotation(PROMPT.id, "eve", (c.id,), "ranked", mode="rate", value=v, submitted=float(i))
            for i, (c, v) in enumerate(zip(ANSWERS[2:], (3.0, 1.0), strict=True))
        ]
        fill(store, ranked("ann", "B", "A", details=edited), ranked("bob", "B", "A"), ranked("cat", "AB"), *rated)
        store.add_candidates([by_hand])
        for found in both_ways(store):
            assert found == {
                ("B", "A"): (2.5, round(2.5 / 3, 6), "human:ann+human:bob+human:cat"),
                ("better", "B"): (1.0, 1.0, "human:ann:edited"),
                ("better", "A"): (1.0, 1.0, "human:ann:edited"),
                ("C", "D"): (1.0, 1.0, "human:eve"),
            }
        told, _ = groups_from_people(store, PreferencesConfig())
        assert [c.text for g in told for c in g.candidates if c.off_policy] == ["better"]


tiers = st.permutations("ABCD").flatmap(
    lambda order: st.lists(st.booleans(), min_size=3, max_size=3).map(
        lambda cuts: tuple("".join(order[i] for i in range(4) if sum(cuts[:i]) == t) for t in range(sum(cuts) + 1))
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ann", "bob", "cat"]), tiers, st.sampled_from(["", "slight"])), max_size=3))
def test_the_order_of_people_and_equal_texts_change_nothing(said: list[tuple[str, tuple[str, ...], str]]) -> None:
    unique = {who: ranked(who, *order, confidence=sure) for who, order, sure in said}
    one = group_from_labels(PROMPT, ANSWERS, labels_of(unique.values()))
    other = group_from_labels(PROMPT, ANSWERS[::-1], labels_of(list(unique.values())[::-1]))
    assert edges([one] if one else []) == edges([other] if other else [])
    twin = Candidate(PROMPT.id, "A ", "m2", "m2")
    assert same_text(twin.text) == "A"
    doubled = group_from_labels(PROMPT, [*ANSWERS, twin], labels_of(unique.values()))
    assert edges([doubled] if doubled else []) == edges([one] if one else [])
