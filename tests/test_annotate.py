"""The annotation service against a real database: who gets what, what is kept, what comes back, and what it adds up to.

The invariants are driven by hypothesis: whatever people do in whatever order, no prompt is with two of them, an answer
is kept once, and taking it back gives the same item again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hafs.annotate.queue import Queue, read_queue
from hafs.annotate.ranking import pair_orders
from hafs.annotate.service import AnnotateSettings, AnnotationService, Item, implied_edges, parse_ranking
from hafs.annotate.stats import statistics_of
from hafs.annotate.visible import visible
from hafs.errors import HafsError, UsageError
from hafs.evals import EvalResult, PromptResult
from hafs.evals.human import human_preference
from hafs.preferences import group_from_people, read_preferences
from hafs.store import Run, Store, open_store
from hafs.types import Annotation, Candidate, Prompt, Queued, Ranking, Score, Verdict
from run_hafs import hafs, lines, workspace

quick = settings(max_examples=60, deadline=None)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        self.now += 0.25
        return self.now


def filled(path: Path, prompts: int = 6, answers: int = 4, models: tuple[str, ...] = ("m",)) -> Store:
    """A database with prompts and `answers` different answers of each model to each."""
    store = open_store(path)
    made = [Prompt(f"prompt {i}") for i in range(prompts)]
    store.add_prompts(made)
    store.add_candidates(
        Candidate(p.id, f"{m} says {j}", model=m, model_name=f"{m}-name", index=j)
        for p in made
        for m in models
        for j in range(answers)
    )
    return store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with filled(tmp_path / "w.db") as found:
        yield found


def plain(**changes: Any) -> AnnotateSettings:
    """Settings without repeats and overlap, so that every item is exactly one prompt."""
    return AnnotateSettings(**{"overlap": 0.0, "repeats": 0.0, **changes})


def some(item: Item | None) -> Item:
    assert item is not None
    return item


def answer(service: AnnotationService, name: str, text: str | Callable[[Item], str] = "A B") -> Annotation | None:
    """Answer the next item of `name`; None when nothing is left."""
    item = service.next_item(name)
    if item is None:
        return None
    typed = text if isinstance(text, str) else text(item)
    return service.submit(name, item.lease, answer="ranked", tiers=parse_ranking(typed, item.labels))


def by_text(item: Item) -> str:
    """The ranking of somebody who goes by the alphabet."""
    return " ".join(c.label for c in sorted(item.cards, key=lambda c: c.text))


# rankings

ABCD = ("A", "B", "C", "D")


def test_the_guides_ranking_gives_exactly_its_six_edges() -> None:
    tiers = parse_ranking("C A B D", ABCD)
    assert implied_edges(tiers) == [("C", "A"), ("C", "B"), ("C", "D"), ("A", "B"), ("A", "D"), ("B", "D")]


@pytest.mark.parametrize(
    ("text", "tiers"),
    [
        ("C A=B D", (("C",), ("A", "B"), ("D",))),
        ("C>A=B>D", (("C",), ("A", "B"), ("D",))),
        ("c > a = b > d", (("C",), ("A", "B"), ("D",))),
        ("cabd", (("C",), ("A",), ("B",), ("D",))),
        ("ca=bd", (("C",), ("A", "B"), ("D",))),
        ("C, A", (("C",), ("A",))),
        ("A=B=C=D", (("A", "B", "C", "D"),)),
    ],
)
def test_ways_to_write_a_ranking(text: str, tiers: tuple[tuple[str, ...], ...]) -> None:
    assert parse_ranking(text, ABCD) == tiers


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "nothing was ranked"),
        ("  > ", "nothing was ranked"),
        ("C", "at least two"),
        ("C A C", "C is named twice"),
        ("C=C", "C is named twice"),
        ("C E", "there is no E, only A, B, C, D"),
        ("C A=", "without a letter"),
        ("=A C", "without a letter"),
        ("A==B", "without a letter"),
        ("first A", "there is no FIRST"),
    ],
)
def test_what_is_no_ranking_says_why(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_ranking(text, ABCD)


@st.composite
def tiers_of(draw: st.DrawFn, least: int = 2, most: int = 8) -> list[list[str]]:
    """Some letters of the first eight in tiers."""
    letters = draw(st.lists(st.sampled_from("ABCDEFGH"[:most]), min_size=least, max_size=most, unique=True))
    cuts = draw(st.lists(st.booleans(), min_size=len(letters) - 1, max_size=len(letters) - 1))
    tiers = [[letters[0]]]
    for letter, new in zip(letters[1:], cuts, strict=True):
        tiers.append([letter]) if new else tiers[-1].append(letter)
    return tiers


@quick
@given(tiers_of(), st.sampled_from([" ", ">", " > ", ", ", "  "]), st.sampled_from(["=", " = "]), st.booleans())
def test_every_ranking_is_read_back_and_implies_exactly_its_pairs(
    tiers: list[list[str]], between: str, tie: str, lower: bool
) -> None:
    text = between.join(tie.join(tier) for tier in tiers)
    read = parse_ranking(text.lower() if lower else text, "ABCDEFGH")
    assert [list(tier) for tier in read] == tiers
    place = {label: i for i, tier in enumerate(tiers) for label in tier}
    wanted = {(a, b) for a, b in permutations(place, 2) if place[a] < place[b]}
    found = implied_edges(read)
    assert set(found) == wanted and len(found) == len(wanted)


@quick
@given(st.text(alphabet="ABCDEabcd=> ,x", max_size=12))
def test_whatever_is_typed_is_a_ranking_or_an_error(text: str) -> None:
    try:
        tiers = parse_ranking(text, ABCD)
    except UsageError as e:
        assert e.what and e.fix
    else:
        named = [label for tier in tiers for label in tier]
        assert len(named) == len(set(named)) >= 2 and set(named) <= set(ABCD)


# who gets what, in any order of events


class People(RuleBasedStateMachine):
    """Three people with four prompts (some for two of them), in any order of asking, answering, undoing and waiting."""

    names = st.sampled_from(["ann", "bob", "cy"])

    @initialize(overlap=st.sampled_from([0.0, 0.5]), repeats=st.sampled_from([0.0, 0.5]), seed=st.integers(0, 99))
    def begin(self, overlap: float, repeats: float, seed: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.store = filled(Path(self.folder.name) / "w.db", prompts=4, answers=3)
        self.settings = AnnotateSettings(overlap=overlap, repeats=repeats, seed=seed, lease_seconds=100)
        self.clock = Clock()
        self.restart()
        self.held: dict[str, Item] = {}
        self.last: dict[str, tuple[Item, Annotation]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    @rule()
    def restart(self) -> None:
        self.service = AnnotationService(self.store, self.settings, clock=self.clock)

    @rule(name=names)
    def ask(self, name: str) -> None:
        item = self.service.next_item(name)
        again = self.service.next_item(name)
        assert (item and (item.lease, item.cards)) == (again and (again.lease, again.cards))
        assert item is None or item.position <= item.total
        self.held.pop(name, None)
        if item is not None:
            self.held[name] = item

    @rule(name=names, kind=st.sampled_from(["ranked", "all_bad", "cannot_judge", "skipped", "flagged"]))
    def submit(self, name: str, kind: str) -> None:
        item = self.held.pop(name, None)
        if item is None:
            return
        given: dict[str, Any] = {"answer": kind, "tiers": [["B"], ["A"]] if kind == "ranked" else ()}
        try:
            made = self.service.submit(name, item.lease, **given)
        except UsageError as e:
            assert "somebody else" in e.what
            return
        assert self.service.submit(name, item.lease, **given) == made
        assert self.service.submit(name, item.lease, answer="skipped") == made
        self.last[name] = (item, made)

    @rule(name=names)
    def undo(self, name: str) -> None:
        before = {a.id for a in self.store.annotations()}
        try:
            item = self.service.undo(name)
        except UsageError as e:
            assert "skipped" in e.what
            assert {a.id for a in self.store.annotations()} == before
            return
        last = self.last.pop(name, None)
        if last is not None:
            assert item is not None and item.lease == last[0].lease and item.cards == last[0].cards
            assert last[1].id not in {a.id for a in self.store.annotations()}
        if item is not None:
            assert some(self.service.next_item(name)).lease == item.lease
            self.held[name] = item

    @rule(name=names, lease=names)
    def wrong_lease(self, name: str, lease: str) -> None:
        if name != lease and lease in self.held:
            with pytest.raises(UsageError, match="not given to you"):
                self.service.submit(name, self.held[lease].lease, answer="skipped")

    @rule()
    def wait(self) -> None:
        self.clock.now += 60

    @invariant()
    def nobody_has_what_is_taken(self) -> None:
        if not hasattr(self, "service"):
            return
        with self.store.desk() as desk:
            leases = desk.leases("rank")
        holders: dict[str, set[str]] = {}
        for lease in leases:
            live = lease.open and lease.expires > self.clock.now
            if live or (lease.annotation is not None and not lease.details.get("skipped")):
                holders.setdefault(lease.prompt_id, set()).add(lease.annotator)
        for prompt_id, names in holders.items():
            assert len(names) <= self.service._places(prompt_id)
        said = Counter((a.annotator, a.prompt_id, a.serial) for a in self.store.annotations())
        assert not said or max(said.values()) == 1
        kept = {lease.annotation for lease in leases if lease.annotation is not None}
        assert kept == {a.id for a in self.store.annotations()}


People.TestCase.settings = settings(
    max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_whatever_people_do = People.TestCase


def test_every_prompt_is_asked_once_by_one_person_and_progress_adds_up(store: Store) -> None:
    service = AnnotationService(store, plain(), clock=Clock())
    asked = []
    while (item := service.next_item("ann")) is not None:
        assert (item.position, item.total) == (len(asked) + 1, 6)
        asked.append(item.prompt.id)
        service.submit("ann", item.lease, answer="ranked", tiers=[["A"], ["B"]], seconds=20.0)
        progress = service.progress("ann")
        assert (progress.done, progress.left, progress.streak) == (len(asked), 6 - len(asked), len(asked))
        assert progress.median_seconds == 20.0 and progress.seconds_left == 20.0 * progress.left
    assert len(asked) == len(set(asked)) == 6
    assert service.next_item("bob") is None, "without overlap nothing is left for others"


def test_items_say_nothing_of_who_wrote_them_and_equal_texts_are_one_card(store: Store) -> None:
    (first, *_) = store.prompts()
    store.add_candidates([Candidate(first.id, "m says 0  \n", model="other", index=9)])
    service = AnnotationService(store, plain(candidates=8))
    for _ in range(6):
        item = some(service.next_item("ann"))
        assert len(item.cards) == 4 and len({c.text.strip() for c in item.cards}) == 4
        assert set(vars(item.cards[0])) == {"candidate_id", "label", "text", "edited", "thought"}
        service.submit("ann", item.lease, answer="all_bad")


def test_a_prompt_whose_answers_are_all_equal_is_not_asked_and_counted(tmp_path: Path) -> None:
    with open_store(tmp_path / "w.db") as store:
        p = Prompt("x")
        store.add_prompts([p])
        store.add_candidates([Candidate(p.id, "same" + " " * i, index=i) for i in range(3)])
        service = AnnotationService(store, plain())
        assert service.next_item("ann") is None
        assert service.stats()["equal"] == 1


def test_people_see_different_orders_and_each_their_own_again(store: Store) -> None:
    orders = {}
    for name in ("ann", "bob", "cy", "dee"):
        service = AnnotationService(store, plain(overlap=1.0, raters=9, seed=3))
        seen = {}
        while (item := service.next_item(name)) is not None:
            seen[item.prompt.id] = tuple(c.candidate_id for c in item.cards)
            service.submit(name, item.lease, answer="cannot_judge")
        orders[name] = seen
    assert all(len(seen) == 6 for seen in orders.values())
    assert len({tuple(seen.values()) for seen in orders.values()}) == 4
    kept = {(a.annotator, a.prompt_id): a.shown for a in store.annotations()}
    assert all(kept[name, id] == order for name, seen in orders.items() for id, order in seen.items())


def test_the_overlap_share_decides_how_many_prompts_two_people_answer(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", prompts=60, answers=2) as store:
        service = AnnotationService(store, plain(overlap=0.3))
        for name in ("ann", "bob", "cy"):
            while answer(service, name):
                pass
        counts = Counter(Counter(a.prompt_id for a in store.annotations()).values())
        assert set(counts) == {1, 2} and counts[1] + counts[2] == 60
        assert 8 <= counts[2] <= 28


def test_repeats_come_later_in_a_new_order_and_measure_consistency(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", prompts=30) as store:
        service = AnnotationService(store, plain(repeats=0.4))
        seen: list[tuple[str, int, tuple[str, ...]]] = []
        total = some(service.next_item("ann")).total
        while (item := service.next_item("ann")) is not None:
            assert item.total == total
            seen.append((item.prompt.id, item.serial, tuple(c.candidate_id for c in item.cards)))
            ranking = parse_ranking(by_text(item), item.labels)
            service.submit("ann", item.lease, answer="ranked", tiers=ranking)
        assert len(seen) == total
        again = [(i, id, shown) for i, (id, serial, shown) in enumerate(seen) if serial]
        assert 4 <= len(again) <= 20 and len({id for _, id, _ in again}) == len(again)
        for i, id, shown in again:
            first = next(j for j, (other, _, _) in enumerate(seen) if other == id)
            assert i - first > 8 or i > 30
            assert sorted(shown) == sorted(seen[first][2])
        assert any(shown != next(s for o, k, s in seen if o == id and not k) for _, id, shown in again)
        consistency = service.stats()["annotators"]["ann"]["self_consistency"]
        assert consistency["rate"] == 1.0 > consistency["low"] and consistency["n"] == len(again)
        assert consistency["pairs"] == 6 * len(again)


def test_gold_items_reach_everybody_and_are_counted(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", prompts=20) as store:
        gold = []
        for prompt in list(store.prompts())[:4]:
            ids = [c.id for c in sorted(store.candidates(prompt_ids=prompt.id), key=lambda c: c.text)]
            gold.append(Ranking(prompt.id, tuple((id,) for id in ids), "gold"))
        (tmp_path / "gold.jsonl").write_text("".join(json.dumps(vars(r)) + "\n" for r in gold))
        service = AnnotationService(store, plain(gold=str(tmp_path / "gold.jsonl")))
        answered: dict[str, list[str]] = {"ann": [], "bob": []}
        for i in range(40):
            name = "ann" if i % 2 else "bob"
            made = answer(
                service, name, by_text if name == "ann" else lambda item: " ".join(by_text(item)[::-1].split())
            )
            if made:
                answered[name].append(made.prompt_id)
        marked = {r.prompt_id for r in gold}
        assert all(marked <= set(ids) for ids in answered.values())
        assert not set(answered["ann"]) & set(answered["bob"]) - marked
        people = service.stats()["annotators"]
        assert (people["ann"]["gold"]["rate"], people["bob"]["gold"]["rate"]) == (1.0, 0.0)
        assert (people["ann"]["gold"]["n"], people["ann"]["gold"]["pairs"]) == (4, 24)
        assert service.stats()["agreement"]["raw"] == 0.0


def test_an_expired_lease_goes_to_somebody_else_and_counts_until_then(store: Store) -> None:
    clock = Clock()
    service = AnnotationService(store, plain(target=1, lease_seconds=60), clock=clock)
    mine = some(service.next_item("ann"))
    assert service.next_item("bob") is None
    clock.now += 100
    made = service.submit("ann", mine.lease, answer="skipped")
    service.undo("ann")
    clock.now += 50
    service.draft("ann", mine.lease, {"tiers": [["C"]]})
    clock.now += 50
    assert service.next_item("bob") is None, "a draft keeps the lease"
    assert some(service.next_item("ann")).draft == {"tiers": [["C"]]}
    clock.now += 100
    theirs = some(service.next_item("bob"))
    assert theirs.prompt == mine.prompt and theirs.draft == {}
    with pytest.raises(UsageError, match="given to somebody else"):
        service.submit("ann", mine.lease, answer="all_bad")
    service.submit("bob", theirs.lease, answer="all_bad")
    assert [a.annotator for a in store.annotations()] == ["bob"]
    assert [a.id for a in store.annotations(undone=True) if a.annotator == "ann"] == [made.id]


def test_undo_again_and_again_goes_back_in_time(store: Store) -> None:
    service = AnnotationService(store, plain())
    items = []
    for text in ("C A=B D", "D C", "B A C D"):
        items.append(some(service.next_item("ann")))
        tiers = parse_ranking(text, ABCD)
        service.submit("ann", items[-1].lease, answer="ranked", tiers=tiers, confidence="clear", note="n")
    for item, tiers in zip(
        reversed(items), ([["B"], ["A"], ["C"], ["D"]], [["D"], ["C"]], [["C"], ["A", "B"], ["D"]]), strict=True
    ):
        back = some(service.undo("ann"))
        assert (back.prompt, back.cards, back.position) == (item.prompt, item.cards, item.position)
        assert back.previous["tiers"] == tiers and back.previous["confidence"] == "clear"
    assert service.undo("ann") is None and service.undo("nobody") is None
    assert list(store.annotations()) == [] and len(list(store.annotations(undone=True))) == 3
    for item in items:
        now = some(service.next_item("ann"))
        assert now.lease == item.lease
        service.submit("ann", now.lease, answer="all_bad")


def test_an_edited_answer_becomes_a_candidate_that_beats_what_its_original_beats(store: Store) -> None:
    service = AnnotationService(store, plain())
    item = some(service.next_item("ann"))
    made = service.submit(
        "ann", item.lease, answer="ranked", tiers=[["C"], ["A"], ["B", "D"]], edited="better", edited_of="A"
    )
    text = {c.label: c.text for c in item.cards}
    (written,) = store.candidates(source="edited:ann")
    assert written.text == "better" and made.details["edited"] == {"candidate": written.id, "of": made.shown[0]}
    assert store.get_candidate(written.sampling["edited_from"]) is not None
    candidates = list(store.candidates(prompt_ids=item.prompt.id))
    group = group_from_people(item.prompt, candidates, [made])
    assert group is not None
    by_hand = {(a, b) for a, b, e in group.pairs() if e.source == "human:ann:edited"}
    assert by_hand == {("better", text["A"]), ("better", text["B"]), ("better", text["D"])}
    ranked = {(a, b) for a, b, e in group.pairs() if e.source == "human:ann"}
    assert ranked == {(text[a], text[b]) for a, b in ("CA", "CB", "CD", "AB", "AD")}
    assert [c.text for c in group.candidates if c.off_policy] == ["better"]
    other = some(AnnotationService(store, plain(overlap=1.0)).next_item("bob"))
    assert all(not card.edited for card in other.cards), "what people wrote is not shown to others"


def test_an_edit_that_changes_nothing_is_no_candidate(store: Store) -> None:
    service = AnnotationService(store, plain())
    item = some(service.next_item("ann"))
    made = service.submit("ann", item.lease, answer="all_bad", edited=item.cards[0].text + "  ", edited_of="A")
    assert "edited" not in made.details and list(store.candidates(source="edited:ann")) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"answer": "maybe"}, "cannot be 'maybe'"),
        ({"answer": "ranked"}, "at least two"),
        ({"answer": "ranked", "tiers": [["A"]]}, "at least two"),
        ({"answer": "ranked", "tiers": [["A"], ["A"]]}, "ranked twice"),
        ({"answer": "ranked", "tiers": [["A"], ["E"]]}, "no card 'E'"),
        ({"answer": "ranked", "tiers": [["A"], [], ["B"]]}, "at least two"),
        ({"answer": "skipped", "confidence": "sure"}, "confidence"),
        ({"answer": "all_bad", "edited": "x", "edited_of": "Z"}, "no card 'Z'"),
    ],
)
def test_a_wrong_answer_is_refused_and_the_item_stays(store: Store, given: dict[str, Any], why: str) -> None:
    service = AnnotationService(store, plain())
    item = some(service.next_item("ann"))
    with pytest.raises(UsageError, match=why):
        service.submit("ann", item.lease, **given)
    assert list(store.annotations(undone=True)) == []
    assert some(service.next_item("ann")).lease == item.lease
    with pytest.raises(UsageError, match="name"):
        service.next_item(" ")


def test_revealing_and_checking_are_off_until_wanted(store: Store) -> None:
    service = AnnotationService(store, plain())
    item = some(service.next_item("ann"))
    with pytest.raises(UsageError, match="switched off"):
        service.check("ann", item.lease, "A")
    assert service.reveal(service.submit("ann", item.lease, answer="all_bad")) == []
    service = AnnotationService(store, plain(reveal=True, checks=True), check=lambda p, text: {"said": p.text + text})
    item = some(service.next_item("ann"))
    store.add_scores([Score(item.cards[1].candidate_id, "asm", "1", value=0.5, passed=False, cause="stack")])
    ids = tuple(c.candidate_id for c in item.cards)
    store.add_verdicts([Verdict(item.prompt.id, "opus", "listwise@1", ids, "ranked", ((ids[1],), (ids[0],)))])
    assert service.check("ann", item.lease, "b") == {"said": item.prompt.text + item.cards[1].text}
    made = service.submit("ann", item.lease, answer="all_bad")
    assert made.details["checked"] == [item.cards[1].candidate_id]
    rows = service.reveal(made)
    assert [r["label"] for r in rows] == list(ABCD) and {r["model_name"] for r in rows} == {"m-name"}
    assert rows[1]["scores"][0]["cause"] == "stack" and rows[1]["verdicts"][0]["place"] == 1


# modes


def test_ab_shows_one_answer_of_each_and_fills_the_human_preference(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", prompts=8, models=("sft", "dpo", "other")) as store:
        same = next(store.prompts())
        store.add_candidates([Candidate(same.id, "equal", model=m, index=-1) for m in ("sft", "dpo")])
        for models in ([], ["sft"], ["sft", "sft"]):
            with pytest.raises(UsageError, match="two models that differ"):
                AnnotationService(store, plain(mode="ab", models=models))
        service = AnnotationService(store, plain(mode="ab", models=["sft", "dpo"]))
        lost = 0
        while (item := service.next_item("ann")) is not None:
            assert len(item.cards) == 2 and item.prompt != same
            best = "A" if item.cards[0].text.startswith("dpo") else "B"
            if lost < 2:
                lost, best = lost + 1, "A" if best == "B" else "B"
            tiers = [["A", "B"]] if lost == 2 and item.position == 7 else [[best], ["B" if best == "A" else "A"]]
            service.submit("ann", item.lease, answer="ranked", tiers=tiers)
        assert len(list(store.annotations(mode="ab"))) == 7
        assert human_preference(store, {"sft": "sft", "dpo": "dpo"})[0] == {"sft": (2, 6), "dpo": (4, 6)}
        assert human_preference(store, {"other": "other", "sft": "sft"})[0] == {}
        assert AnnotationService(store, plain(mode="ab", models=["sft", "other"])).next_item("ann") is not None


def test_rating_asks_for_each_answer_alone(store: Store) -> None:
    service = AnnotationService(store, plain(mode="rate", candidates=3))
    seen = Counter[str]()
    while (item := service.next_item("ann")) is not None:
        (card,) = item.cards
        with pytest.raises(UsageError, match="from 1 to 4"):
            service.submit("ann", item.lease, answer="ranked", value=5)
        value = 4 if card.text == "m says 0" else 2
        service.submit("ann", item.lease, answer="ranked", value=value)
        seen[item.prompt.id] += 1
    assert len(seen) == 6 and set(seen.values()) == {3}
    prompt = next(store.prompts())
    said = list(store.annotations(prompt_ids=prompt.id, mode="rate"))
    group = group_from_people(prompt, store.candidates(prompt_ids=prompt.id), said)
    assert group is not None
    assert {(a, b) for a, b, _ in group.pairs()} == {("m says 0", "m says 1"), ("m says 0", "m says 2")}
    with_labels = group_from_people(prompt, store.candidates(prompt_ids=prompt.id), said, labels=True)
    assert with_labels is not None and with_labels.edges == group.edges
    assert {c.text: c.label and (c.label.good, c.label.source) for c in with_labels.candidates} == {
        "m says 0": (True, "human:ann"),
        "m says 1": (False, "human:ann"),
        "m says 2": (False, "human:ann"),
    }


def test_review_asks_about_verdicts_that_people_or_scores_contradict(store: Store) -> None:
    prompts = list(store.prompts())
    ids = {p.id: [c.id for c in store.candidates(prompt_ids=p.id)] for p in prompts}
    for p, judged in zip(prompts, ("against", "with", "unknown"), strict=False):
        a, b, *_ = ids[p.id]
        if judged != "unknown":
            store.add_scores([Score(a, "asm", "1", value=1.0), Score(b, "asm", "1", value=0.0)])
        tiers = ((b,), (a,)) if judged == "against" else ((a,), (b,))
        store.add_verdicts([Verdict(p.id, "opus", "pairwise@1", (a, b), "ranked", tiers, shuffle=0)])
        store.add_verdicts([Verdict(p.id, "opus", "pairwise@1", (b, a), "ranked", tiers, shuffle=1)])
    service = AnnotationService(store, plain(mode="review"))
    item = some(service.next_item("ann"))
    assert item.prompt == prompts[0] and {c.candidate_id for c in item.cards} == set(ids[prompts[0].id][:2])
    right = "A" if item.cards[0].candidate_id == ids[prompts[0].id][0] else "B"
    made = service.submit("ann", item.lease, answer="ranked", tiers=[[right], ["B" if right == "A" else "A"]])
    assert made.value == 0.0 and made.details["verdict"], "the person sides with the score"
    assert service.next_item("ann") is None


# queues


def test_a_queue_chosen_by_a_run_is_asked_in_its_order_with_its_probabilities(store: Store) -> None:
    ids = [p.id for p in store.prompts()][::-1][:3]
    rows = [{"id": id, "probability": 0.5, "reason": "the judge abstained"} for id in ids]
    run = Run("annotation-queue", {"n": 3}, outputs={"prompts": rows}, status="finished")
    other = Run("eval", {})
    store.add_runs([run, other])
    queued = read_queue(store, run.id)
    assert queued[0] == Queued(ids[0], 0.5, "the judge abstained")
    for wrong in (other.id, "nope"):
        with pytest.raises(UsageError, match=f"no annotation queue {wrong}"):
            read_queue(store, wrong)
    service = AnnotationService(store, plain(), queued=queued)
    asked = []
    while (made := answer(service, "ann")) is not None:
        asked.append(made.prompt_id)
        assert made.details["inclusion_probability"] == 0.5 and made.details["reason"] == "the judge abstained"
    assert asked == ids


def test_gold_prompts_are_spread_among_the_others(tmp_path: Path) -> None:
    with filled(tmp_path / "w.db", prompts=30) as store:
        gold = [p.id for p in store.prompts()][:3]
        rows = [{"prompt_id": id, "tiers": [], "source": "gold"} for id in gold]
        (tmp_path / "g.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        plan = Queue(store, plain(gold=str(tmp_path / "g.jsonl"))).plan()
        places = sorted(plan.index(id) for id in gold)
        assert len(plan) == 30 and all(b - a == 10 for a, b in pairwise(places))


def test_candidates_are_made_for_the_prompts_that_need_them_next(tmp_path: Path) -> None:
    """The service asks for what is missing, waits only for the first, and has the rest made ahead."""
    with open_store(tmp_path / "w.db") as store:
        prompts = [Prompt(f"prompt {i}") for i in range(8)]
        store.add_prompts(prompts)
        calls: list[tuple[int, bool]] = []

        def make(wanted: list[Prompt], wait: bool) -> None:
            calls.append((len(wanted), wait))
            for p in wanted:
                store.add_candidates(Candidate(p.id, f"text {j}", index=j) for j in range(2))

        service = AnnotationService(store, plain(candidates=2), generate=make, queued=[Queued(p.id) for p in prompts])  # type: ignore[arg-type]
        asked = []
        while (item := service.next_item("ann")) is not None:
            assert item.total == 8
            asked.append(item.prompt)
            service.submit("ann", item.lease, answer="ranked", tiers=[["A"], ["B"]])
        assert asked == prompts
        assert calls[0][1] and sum(wait for _, wait in calls) == 1, "only the first is waited for"

        def fail(wanted: list[Prompt], wait: bool) -> None:
            if wait:
                raise HafsError("no memory")

        more = Prompt("one more")
        store.add_prompts([more])
        service = AnnotationService(store, plain(), generate=fail, queued=[Queued(more.id)])  # type: ignore[arg-type]
        with pytest.raises(HafsError, match="no memory"):
            service.next_item("ann")


# figures


def test_agreement_against_a_case_worked_by_hand() -> None:
    """Two raters on four pairs with one disagreement: raw 3/4, alpha 1 - 7 * 2 / (2 * 3 * 5) by hand."""

    def said(name: str, prompt: str, *tiers: str) -> Annotation:
        return Annotation(prompt, name, ("a", "b"), "ranked", tuple(tuple(t) for t in tiers), seconds=4.0)

    rows = [said(n, p, "a", "b") for n in ("ann", "bob") for p in ("1", "2")]
    rows += [said(n, "3", "b", "a") for n in ("ann", "bob")]
    rows += [said("ann", "4", "a", "b"), said("bob", "4", "b", "a")]
    found = statistics_of(rows)["agreement"]
    assert found["raw"] == 0.75 and found["pairs"] == found["prompts"] == 4
    assert found["alpha"] == pytest.approx(1 - 7 * 2 / (2 * 3 * 5))
    lonely = statistics_of([a for a in rows if a.annotator == "ann"])
    nothing = {"alpha": None, "raw": None, "raw_low": None, "raw_high": None, "pairs": 0, "prompts": 0}
    assert lonely["agreement"] == nothing
    assert statistics_of([])["annotators"] == {}


@quick
@given(tiers_of(), tiers_of())
def test_what_two_people_say_becomes_edges_by_weight(one: list[list[str]], two: list[list[str]]) -> None:
    prompt = Prompt("p")
    candidates = [Candidate(prompt.id, letter) for letter in "ABCDEFGH"]
    ids = {c.text: c.id for c in candidates}

    def said(name: str, tiers: list[list[str]], confidence: str) -> Annotation:
        named = tuple(tuple(ids[x] for x in tier) for tier in tiers)
        return Annotation(prompt.id, name, tuple(ids.values()), "ranked", named, confidence=confidence)

    group = group_from_people(prompt, candidates, [said("ann", one, "clear"), said("bob", two, "slight")])
    speaks: dict[tuple[str, str], float] = {}  # a tie gives half of its weight to each side
    for weight, tiers in ((1.0, one), (0.5, two)):
        place = {x: i for i, tier in enumerate(tiers) for x in tier}
        for a, b in permutations(place, 2):
            share = 0.5 if place[a] == place[b] else float(place[a] < place[b])
            speaks[a, b] = speaks.get((a, b), 0.0) + weight * share
    wanted = {(a, b): w for (a, b), w in speaks.items() if w > speaks[b, a]}
    found = {(a, b): e for a, b, e in group.pairs()} if group else {}
    assert {pair: e.weight for pair, e in found.items()} == wanted
    for (a, b), edge in found.items():
        assert edge.p == pytest.approx(speaks[a, b] / (speaks[a, b] + speaks[b, a]))
    assert {name for e in found.values() for name in e.source.split("+")} <= {"human:ann", "human:bob"}


@quick
@given(st.text(max_size=40))
def test_nothing_invisible_is_left_and_nothing_visible_is_lost(text: str) -> None:
    shown = visible(text + "\x1b[2J\u202e\0")
    assert not any(c in shown for c in "\x1b\u202e\0\u200b\ud800") and "⟦ESC⟧[2J⟦U+202E⟧⟦NUL⟧" in shown
    assert [c for c in text if c.isalnum()] == [c for c in visible(text) if c.isalnum()] or "⟦" in visible(text)


# several processes, and the end of one

WORKER = """
import sys, time
from hafs.annotate.service import AnnotateSettings, AnnotationService
from hafs.store import open_store
store = open_store(sys.argv[1])
service = AnnotationService(store, AnnotateSettings(overlap=0.0, repeats=0.0))
print("ready", flush=True)
sys.stdin.readline()
while (item := service.next_item(sys.argv[2])) is not None:
    print("has", item.lease, item.prompt.id, flush=True)
    made = service.submit(sys.argv[2], item.lease, answer="ranked", tiers=[["A"], ["B"]])
    if sys.argv[3] == "hang":
        time.sleep(60)
    print("said", made.id, flush=True)
"""


def worker(path: Path, name: str, how: str = "go") -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", WORKER, str(path), name, how]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_two_processes_racing_never_get_the_same_prompt(tmp_path: Path) -> None:
    filled(tmp_path / "w.db", prompts=16, answers=2).close()
    racers = [worker(tmp_path / "w.db", name) for name in ("ann", "bob")]
    for process in racers:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in racers:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    heard = [process.communicate(timeout=120)[0] for process in racers]
    got = [line.split()[2] for out in heard for line in out.splitlines() if line.startswith("has")]
    assert len(got) == len(set(got)) == 16 and all("said" in out for out in heard)
    with open_store(tmp_path / "w.db") as store:
        assert len(list(store.annotations())) == 16


def test_killed_between_submit_and_answer_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    filled(tmp_path / "w.db", prompts=3, answers=2).close()
    process = worker(tmp_path / "w.db", "ann", "hang")
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "ready\n"
    _, lease, prompt_id = process.stdout.readline().split()
    with open_store(tmp_path / "w.db") as store:
        while not (kept := list(store.annotations())):
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        service = AnnotationService(store, plain())
        again = service.submit("ann", lease, answer="ranked", tiers=[["A"], ["B"]])
        assert [again] == kept == list(store.annotations()) and again.prompt_id == prompt_id
        while answer(service, "ann"):
            pass
        assert len({a.prompt_id for a in store.annotations()}) == len(list(store.annotations())) == 3


def test_killed_with_an_item_in_hand_the_same_item_comes_back(tmp_path: Path) -> None:
    program = WORKER.replace("    made =", "    time.sleep(60)\n    made =")
    filled(tmp_path / "w.db", prompts=3, answers=3).close()
    argv = [sys.executable, "-c", program, str(tmp_path / "w.db"), "ann", "go"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    process.stdout.readline()
    _, lease, _ = process.stdout.readline().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open_store(tmp_path / "w.db") as store:
        service = AnnotationService(store, plain())
        assert some(service.next_item("ann")).lease == lease
        assert list(store.annotations()) == []


# the verbs


@pytest.fixture
def ranked(tmp_path: Path) -> Path:
    """A workspace with three ranked prompts by two people, one of them edited."""
    root = workspace(tmp_path / "w")
    (root / "hafs.db").unlink()
    with filled(root / "hafs.db", prompts=3) as store:
        service = AnnotationService(store, plain(overlap=1.0))
        for name in ("ann", "bob"):
            while (item := service.next_item(name)) is not None:
                edit = {"edited": "by hand", "edited_of": "A"} if item.position == 1 and name == "ann" else {}
                tiers = parse_ranking("C A=B D" if name == "bob" else by_text(item), item.labels)
                service.submit(name, item.lease, answer="ranked", tiers=tiers, seconds=5.0, confidence="clear", **edit)
    return root


def test_export_and_import_give_the_same_answers(ranked: Path, tmp_path: Path) -> None:
    said = hafs("annotate", "export", tmp_path / "all.jsonl", "-w", ranked, "--json").ok().json
    assert said == {"written": 6, "file": str(tmp_path / "all.jsonl")}
    rows = lines(tmp_path / "all.jsonl")
    assert all(len(row["shown"]) == 4 and row["submitted"] > 0 and row["seconds"] == 5.0 for row in rows)
    other = workspace(tmp_path / "other")
    for kind in ("prompts", "candidates"):
        hafs("data", "export", kind, tmp_path / kind, "-w", ranked).ok()
        hafs("data", "import", kind, tmp_path / kind, "-w", other).ok()
    hafs("data", "import", "annotations", tmp_path / "all.jsonl", "-w", other).ok()
    hafs("annotate", "export", tmp_path / "again.jsonl", "-w", other).ok()
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "all.jsonl").read_text()
    figures = [hafs("annotate", "stats", "-w", w, "--json").ok().json for w in (ranked, other)]
    assert figures[0] == figures[1] and figures[0]["agreement"]["prompts"] == 3


def test_exported_pairs_are_what_trainers_read(ranked: Path, tmp_path: Path) -> None:
    hafs("annotate", "export", tmp_path / "p.jsonl", "--pairs", "--annotator", "bob", "-w", ranked).ok()
    rows = lines(tmp_path / "p.jsonl")
    assert len(rows) == 15 and {row["annotator"] for row in rows} == {"bob"}
    assert all(row["chosen_id"] in row["shown"] and row["seconds"] == 5.0 for row in rows)
    assert read_preferences(tmp_path / "p.jsonl").pairs == 15
    hafs("annotate", "export", tmp_path / "a.jsonl", "--pairs", "--annotator", "ann", "-w", ranked).ok()
    edited = [row for row in lines(tmp_path / "a.jsonl") if row["edited"]]
    assert [row["chosen"] for row in edited] == ["by hand"] and edited[0]["source"] == "human:ann:edited"


def test_preferences_from_people(ranked: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.jsonl"
    said = (
        hafs("preferences", "build", "--from", "human", "--annotator", "bob", "--output", out, "-w", ranked, "--json")
        .ok()
        .json
    )
    assert said["groups"] == 3 and said["edges"] == 15
    (root_groups,) = (lines(out),)
    assert {e["source"] for g in root_groups for e in g["edges"]} == {"human:bob"}
    assert all({c["id"] for c in g["candidates"]} for g in root_groups)
    hafs("preferences", "build", "--from", "people", "-w", ranked).failed(2, "--from human")
    hafs("preferences", "build", "--from", "human", "--annotator", "zoe", "-w", ranked).failed(1, "no preference group")


def test_ab_answers_fill_the_human_preference_row(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w")
    (root / "hafs.db").unlink()
    with filled(root / "hafs.db", prompts=5, models=("hash-sft", "hash-dpo")) as store:
        service = AnnotationService(store, plain(mode="ab", models=["hash-sft", "hash-dpo"]))
        while (item := service.next_item("ann")) is not None:
            better = "A" if item.cards[0].text.startswith("hash-dpo") == (item.position > 1) else "B"
            service.submit("ann", item.lease, answer="ranked", tiers=[[better], ["B" if better == "A" else "A"]])
        results = tuple(PromptResult(p.id, passed=True) for p in store.prompts())
    files = []
    for name in ("sft", "dpo"):
        files.append(f"{name}={tmp_path / name}.json")
        rows = [EvalResult(name, "b", results, model=f"hash-{name}").to_dict()]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    said = hafs("compare", *files, "-w", root, "--json").ok().json
    assert set(said["human"]) == {"sft", "dpo"}
    assert (said["human"]["dpo"]["value"], said["human"]["dpo"]["n"]) == (0.8, 5)
    assert "Human Preference" in hafs("compare", *files, "-w", root).ok().out


def test_nothing_to_ask_says_what_to_do(tmp_path: Path) -> None:
    root = workspace(tmp_path)
    hafs("annotate", "start", "--terminal", "-w", root).failed(2, "two different answers", "hafs generate")
    hafs("annotate", "start", "--terminal", "--mode", "review", "-w", root).failed(2, "verdict")
    hafs("annotate", "start", "--terminal", "--mode", "guess", "-w", root).failed(2, "mode", "guess")
    hafs("annotate", "start", "--terminal", "--candidates", "9", "-w", root).failed(2, "candidates", "9")
    hafs("annotate", "start", "--terminal", "--queue", "nope", "-w", root).failed(2, "no annotation queue nope")
    assert "nobody has answered" in hafs("annotate", "stats", "-w", root).ok().out


def test_accounts_keep_only_a_hash_and_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    import io

    root = workspace(tmp_path)
    hafs("annotate", "start", "--host", "0.0.0.0", "-w", root, "--no-browser").failed(2, "hafs annotate account")
    monkeypatch.setattr(sys, "stdin", io.StringIO("short\n"))
    hafs("annotate", "account", "ann", "-w", root).failed(2, "8 characters")
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse\n"))
    assert hafs("annotate", "account", "ann", "-w", root, "--json").ok().json == {"name": "ann", "accounts": ["ann"]}
    kept = root / "annotators.json"
    assert "horse" not in kept.read_text() and "argon2id" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    hafs("annotate", "account", "bob", "--remove", "-w", root).failed(2, "no account 'bob'")
    hafs("annotate", "account", "ann", "--remove", "-w", root).ok()
    assert json.loads(kept.read_text()) == {}


def test_the_verb_serves_the_page_and_goes_on_after_being_stopped(tmp_path: Path) -> None:
    """A real server: its link works, another host name is refused, Ctrl-C ends it with a summary, the link stays."""
    for needed in ("fastapi", "uvicorn", "nh3", "pygments"):
        pytest.importorskip(needed)
    root = workspace(tmp_path / "w")
    with open_store(root / "hafs.db") as store:
        p = Prompt("which one?")
        store.add_prompts([p])
        store.add_candidates(Candidate(p.id, f"answer <b>{i}</b>", index=i) for i in range(2))
    argv = [
        sys.executable,
        "-m",
        "hafs",
        "annotate",
        "start",
        "--no-browser",
        "--port",
        "0",
        "--name",
        "ann",
        "-w",
        root,
    ]
    tokens = []
    for stop in (signal.SIGKILL, signal.SIGINT):
        server = subprocess.Popen([*map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.stdout is not None
        link = server.stdout.readline().removeprefix("Open ").strip()
        tokens.append(link.partition("token=")[2])
        asking = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        asking.open(link, timeout=60).read()
        page = asking.open(link.partition("?")[0], timeout=60).read().decode()
        assert "which one?" in page and "<b>0</b>" not in page
        foreign = urllib.request.Request(link, headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            asking.open(foreign, timeout=60)
        assert refused.value.code in (400, 403, 421)
        server.send_signal(stop)
        out, err = server.communicate(timeout=60)
        assert "Traceback" not in err
    assert server.returncode == 0 and "0 answers about 1 prompts" in out
    assert tokens[0] == tokens[1] != ""


def test_pairs_of_a_ranking_do_not_depend_on_the_order_of_ids() -> None:
    orders = pair_orders([["z"], ["b", "y"], ["a"]])
    assert orders == {("a", "b"): -1, ("a", "y"): -1, ("a", "z"): -1, ("b", "y"): 0, ("b", "z"): -1, ("y", "z"): -1}
