"""Marks: what a person left out makes no edge, is counted, and comes back when the mark is taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from hafs.errors import UsageError
from hafs.preferences.collect import keep_groups
from hafs.preferences.parallel import Build, build
from hafs.store import Store, open_store, open_workspace
from hafs.store.browse import CandidateQuery, browse, browsing
from hafs.store.marks import Exclusions, add_mark, marked_queue, marks, undo_mark
from hafs.types import Candidate, Prompt, Score
from hafs.workflows.training import without_marked
from run_hafs import hafs, workspace


def filled(folder: Path, prompts: int = 6, answers: int = 4) -> Store:
    """Prompts of two families, each with answers of which every second one passes."""
    store = open_store(folder / "hafs.db")
    asked = [Prompt(f"Prompt {i}", family=f"f{i % 2}") for i in range(prompts)]
    made = [
        Candidate(p.id, f"answer {i} of {p.text}", model=f"m{i % 2}", model_name=f"model {i % 2}", index=i)
        for p in asked
        for i in range(answers)
    ]
    store.add_prompts(asked)
    store.add_candidates(made)
    right = {c.id: bool(c.index % 2) for c in made}
    store.add_scores(
        Score(c.id, "check", "1", value=float(right[c.id]), passed=right[c.id], cause="" if right[c.id] else "bad")
        for c in made
        if c.index < answers - 1
    )
    return store


def built(store: Store) -> list[tuple[str, ...]]:
    """The candidates' ids of each group that is built now."""
    made = build(store, Build(store.url, "check", "1", {}, {}, {}))
    return [tuple(c.id for c in g.candidates) for g in store.groups(ids=made.ids)]


def test_what_is_left_out_makes_no_edge_and_is_counted(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        before = built(store)
        prompt = next(store.prompts())
        other = next(c for c in store.candidates() if c.prompt_id != prompt.id)
        whole = add_mark(store, "left out", prompt.id, reason="asks for two things", who="ann")
        add_mark(store, "left out", other.prompt_id, other.id, "cut off")
        made = build(store, Build(store.url, "check", "1", {}, {}, {}))
        groups = list(store.groups(ids=made.ids))
        assert prompt.id not in {g.prompt_id for g in groups}
        assert other.id not in {c.id for g in groups for c in g.candidates}
        assert made.report.left_out == 1
        assert made.report.skipped["left out of training by a person's mark"] == 1
        assert undo_mark(store, whole.id) and not undo_mark(store, whole.id)
        assert len(built(store)) == len(before)


def test_groups_that_are_there_lose_what_was_left_out(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        made = build(store, Build(store.url, "check", "1", {}, {}, {}))
        groups = list(store.groups(ids=made.ids))
        gone = groups[0].candidates[0].id
        add_mark(store, "left out", groups[0].prompt_id, gone, "wrong")
        add_mark(store, "left out", groups[1].prompt_id, reason="unclear")
        excluded = Exclusions.of(store)
        kept = list(excluded.groups(groups))
        assert groups[1].prompt_id not in {g.prompt_id for g in kept}
        assert gone not in {c.id for g in kept for c in g.candidates}
        assert "left out of training" in str(excluded)
        assert all(e.winner < len(g.candidates) and e.loser < len(g.candidates) for g in kept for e in g.edges)


def test_prompts_to_sample_answers_to_and_exports_obey_marks(tmp_path: Path) -> None:
    """What PPO and online DPO ask, and what `preferences export` writes, is without what a person left out."""
    workspace(tmp_path)
    space = open_workspace(tmp_path)
    with filled(tmp_path) as store:
        made = build(store, Build(store.url, "check", "1", {}, {}, {}))
        keep_groups(store, list(store.groups(ids=made.ids)), {}, dict)
        prompts = list(store.prompts())
        add_mark(store, "left out", prompts[0].id, reason="unclear")
    said: list[str] = []
    assert without_marked(space, prompts, said.append) == prompts[1:]
    assert said == ["note: 1 prompts are left out of training by a person's mark"]
    ran = hafs("preferences", "export", tmp_path / "out.jsonl", "--format", "trl", "-w", tmp_path).ok()
    assert "1 prompts are left out of training by a person's mark" in ran.err
    assert prompts[0].text not in (tmp_path / "out.jsonl").read_text()
    with open_workspace(tmp_path).open_store() as store:
        for p in prompts[1:]:
            add_mark(store, "left out", p.id, reason="unclear")
    with pytest.raises(UsageError, match="all of the data are left out"):
        without_marked(space, prompts, said.append)


def test_a_text_that_is_too_long_to_be_looked_for_is_refused(tmp_path: Path) -> None:
    with filled(tmp_path) as store, pytest.raises(UsageError, match="at most 1,000"):
        browse(store, CandidateQuery(text="x" * 1_001))


def test_leaving_out_needs_a_reason_and_the_queue_holds_what_was_sent(tmp_path: Path) -> None:
    with filled(tmp_path) as store:
        first, second = list(store.prompts())[:2]
        with pytest.raises(UsageError, match="reason"):
            add_mark(store, "left out", first.id)
        with pytest.raises(UsageError, match="sent"):
            marked_queue(store, "ann")
        for p in (first, second, first):
            add_mark(store, "person", p.id)
        run = store.get_run(marked_queue(store, "ann"))
        assert run is not None and {row["id"] for row in run.outputs["prompts"]} == {first.id, second.id}
        assert len(marks(store, "person")) == 2


@pytest.mark.parametrize(
    "query",
    [
        CandidateQuery(),
        CandidateQuery(family="f1", outcome="failed"),
        CandidateQuery(model="m1", text="ANSWER 1"),
        CandidateQuery(text="_nswer 1"),
        CandidateQuery(text="answer %"),
        CandidateQuery(text="\\"),
        CandidateQuery(outcome="unscored"),
        CandidateQuery(cause="bad", shortest=3, longest=500),
    ],
)
def test_pages_hold_every_candidate_once_and_use_the_index(tmp_path: Path, query: CandidateQuery) -> None:
    with filled(tmp_path, prompts=9) as store:
        seen: list[str] = []
        page = browse(store, query, 4)
        seen += [r.id for r in page.rows]
        while page.after:
            page = browse(store, CandidateQuery(**{**vars(query), "after": page.after}), 4)
            seen += [r.id for r in page.rows]
        outcome = {s.candidate_id: "passed" if s.passed else "failed" for s in store.scores()}
        family = {p.id: p.family for p in store.prompts()}
        wanted = {
            c.id
            for c in store.candidates()
            if (not query.family or family[c.prompt_id] == query.family)
            and (not query.model or c.model == query.model)
            and (not query.outcome or outcome.get(c.id, "unscored") == query.outcome)
            and (not query.cause or outcome.get(c.id) == "failed")
            and query.text.lower() in c.text.lower()
        }
        assert len(seen) == len(set(seen)) and set(seen) == wanted
        with store.connection() as conn:
            sql = browsing(conn, query).compile(conn, compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[3] for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}"))
        few = bool(query.outcome == "failed" or query.cause or query.text)  # these are looked up and sorted
        assert f"INDEX {'sqlite_autoindex_candidates_1' if few else 'candidates_for_browsing'}" in plan
        assert ("TEMP B-TREE" in plan) == few
