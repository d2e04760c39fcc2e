"""`automatic` is each row's own checker, everywhere; a row without one is named with the line that gives it one."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hafs.config import Config, PreferencesConfig
from hafs.errors import UsageError
from hafs.preferences.collect import preference_groups
from hafs.scorers.run import (
    NO_CHECKER,
    AutomaticScorer,
    checkers_with_filters,
    identity,
    score_candidates,
    scorer_for,
    stored_answers,
)
from hafs.store import Store, open_store
from hafs.types import Candidate, Prompt, Reference
from hafs.workflows.hybrid import hybrid
from hafs.workflows.stages import check_scorer
from run_hafs import hafs, workspace

CODE = Prompt(
    "Write add(a, b).",
    checker="text",
    check={"min_words": 3},
    family="text",
    references=(Reference("r", "one two three four"),),
)
EXACT = Prompt("What is 2 + 2?", family="sums", references=(Reference("r", "4"),))
BARE = Prompt("Say something.", family="bare")
ALL = [CODE, EXACT, BARE]
ANSWERS = {CODE.id: ["one two three four", "no"], EXACT.id: ["4", "5"], BARE.id: ["something", "anything else"]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "hafs.db") as found:
        found.add_prompts(ALL)
        for id, texts in ANSWERS.items():
            found.add_candidates([Candidate(id, t, "m", "m", index=i) for i, t in enumerate(texts)])
        yield found


def items() -> list[tuple[Prompt, Candidate]]:
    return [(p, Candidate(p.id, t)) for i in range(2) for p in ALL for t in [ANSWERS[p.id][i]]]


def test_each_row_is_checked_by_its_own_checker_in_any_order() -> None:
    with closing(scorer_for(Config())) as scorer:
        assert isinstance(scorer, AutomaticScorer)
        asked = items()
        for order in (asked, asked[::-1]):
            scores = list(scorer.score(order))
            assert [s.candidate_id for s in scores] == [c.id for _, c in order]
            found = {(s.candidate_id, s.scorer, s.passed) for s in scores}
            assert {(scorer, passed) for _, scorer, passed in found} == {
                ("text", True),
                ("text", False),
                ("exact", True),
                ("exact", False),
                ("automatic", None),
            }
        assert {s.reason for s in scores if s.value is None} == {NO_CHECKER} and '"checker": ' in NO_CHECKER


def test_the_workspaces_scorer_checks_rows_without_a_checker() -> None:
    config = Config.model_validate({"score": {"scorer": "text:min_words=2"}})
    with closing(scorer_for(config)) as scorer:
        assert [s.scorer for s in scorer.score(items()[:3])] == ["text", "exact", "text"]
        names = [(s["scorer"], s["arguments"].get("min_words")) for s in identity(scorer, ALL)]
        assert sorted(names, key=str) == [("exact", None), ("text", 2), ("text", None)]
    with closing(scorer_for(Config.model_validate({"score": {"scorer": "judge:x"}}))) as scorer:
        assert [s.scorer for s in scorer.score(items()[:2])] == ["text", "exact"]
        with pytest.raises(UsageError, match="is a judge"):
            list(scorer.score(items()[2:3]))


def test_what_is_stored_is_scored_grouped_and_read_by_each_rows_checker(store: Store) -> None:
    with closing(scorer_for(Config())) as scorer:
        done = score_candidates(store, scorer)
        assert done.scored == 4 and dict(done.unscored) == {NO_CHECKER: 2}
        assert {(s.scorer, s.value is not None) for s in store.scores()} == {("text", True), ("exact", True)}
        assert score_candidates(store, scorer).scored == 0
        groups, report = preference_groups(store, scorer, PreferencesConfig())
        assert {g.prompt for g in groups} == {CODE.text, EXACT.text} and report.groups == 2
        sources = {e.source.partition("@")[0] for g in groups for e in g.edges}
        assert sources == {"text", "exact"}
        only, _ = preference_groups(store, scorer, PreferencesConfig(), prompt_ids=[EXACT.id])
        assert {g.prompt for g in only} == {EXACT.text}
        read = {p.id: [s.passed for _, s in rows if s] for p, rows in stored_answers(store, scorer, ALL)}
        assert {id: sorted(map(bool, found)) for id, found in read.items()} == {
            CODE.id: [False, True],
            EXACT.id: [False, True],
        }
        check_scorer(scorer, ALL)
        with pytest.raises(UsageError, match="nothing checks these 1 prompts"):
            check_scorer(scorer, [BARE])
    with pytest.raises(UsageError, match="no verdicts"):
        hybrid(store, ALL, "automatic")


def test_prompts_are_gone_through_and_not_held() -> None:
    """A store may have millions: what is kept of each is its id, and nothing where all have one checker."""
    most = 0

    def many(*checkers: str) -> Iterator[Prompt]:
        nonlocal most
        made: list[weakref.ref[Prompt]] = []
        for i in range(200):
            prompt = Prompt(f"prompt {i}", checker=checkers[i % len(checkers)])
            made.append(weakref.ref(prompt))
            yield prompt
            most = max(most, sum(ref() is not None for ref in made))

    with closing(AutomaticScorer(Config())) as scorer:
        scorer.prepare(many("text", "exact"))
        [(one, filters)] = checkers_with_filters(scorer, lambda: many("text"), {"split": "train"})
        assert one.name == "text" and filters == {"split": "train"}
        exact, text = checkers_with_filters(scorer, lambda: many("text", "exact", ""), {"split": "train"})
        assert (exact[0].name, text[0].name) == ("exact", "text")
        assert text[1]["split"] == "train" and len(text[1]["prompt_ids"]) == 67 and len(exact[1]["prompt_ids"]) == 67
    assert most <= 3


def test_the_verb_counts_every_checker_and_says_what_has_none(tmp_path: Path) -> None:
    space = workspace(tmp_path / "w")
    with open_store(space / "hafs.db") as store:
        store.add_prompts(ALL)
        for id, texts in ANSWERS.items():
            store.add_candidates([Candidate(id, t, "m", "m", index=i) for i, t in enumerate(texts)])
    ran = hafs("score", "-w", space, "--output", tmp_path / "scores.jsonl").ok()
    assert "text@" in ran.out and "exact@" in ran.out and "2 right" not in ran.out
    assert "2 candidates, the prompt has no checker" in ran.err and "[score] scorer" in ran.err
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 4
