"""The workspace store on SQLite and, where HAFS_TEST_POSTGRES names a server, on PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.dialects import sqlite

from hafs.errors import DataError, HafsError, MissingTool, UsageError
from hafs.store import Run, Store, find_workspace, init_workspace, open_store, open_workspace, schema
from hafs.store import engine as engine_module
from hafs.store import store as store_module
from hafs.store.rows import KINDS
from hafs.types import (
    Annotation,
    Candidate,
    CandidateLabel,
    Edge,
    GroupCandidate,
    PreferenceGroup,
    Prompt,
    Ranking,
    Reference,
    Score,
    Verdict,
    content_id,
)

SERVER = os.environ.get("HAFS_TEST_POSTGRES", "")


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty schema of its own on the test server, dropped afterwards."""
    if not SERVER:
        pytest.skip("HAFS_TEST_POSTGRES names no server")
    name = f"hafs_{uuid.uuid4().hex[:12]}"
    admin = create_engine(engine_module.database_url(SERVER))
    with admin.begin() as conn:
        conn.execute(text(f"CREATE SCHEMA {name}"))
    yield f"{SERVER}{'&' if '?' in SERVER else '?'}options=-csearch_path%3D{name}"
    with admin.begin() as conn:
        conn.execute(text(f"DROP SCHEMA {name} CASCADE"))
    admin.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "hafs.db") if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


def prompt(n: int, **fields: object) -> Prompt:
    return Prompt(f"prompt {n}", **fields)


def candidates_of(p: Prompt, n: int, model: str = "m", **fields: object) -> list[Candidate]:
    return [Candidate(p.id, f"answer {i}", model, index=i, **fields) for i in range(n)]


def score(c: Candidate, value: float | None = 1.0, version: str = "1", **fields: object) -> Score:
    reason = "" if value is not None else "no assembler"
    return Score(c.id, "asm", version, value=value, reason=reason, **fields)


# ---- every row comes back as it went in

anything = st.text(max_size=8) | st.text(st.sampled_from("a\x00\x1a\n\ud800\U0001f600"), max_size=6)
floats = st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=6,
)
data = st.dictionaries(anything, json_values, max_size=3)
names = st.lists(anything, max_size=3).map(tuple)
references = st.lists(st.builds(Reference, anything, anything), max_size=2).map(tuple)
prompts = st.builds(
    Prompt, anything, anything, anything, anything, anything, anything, anything, data, references, names
)
int64 = st.integers(-(2**63), 2**63 - 1)
labels = st.none() | st.builds(
    CandidateLabel, st.booleans(), st.floats(0.1, 9), anything, st.sampled_from([None, True, False])
)


def candidates_for(p: Prompt) -> st.SearchStrategy[Candidate]:
    return st.builds(
        Candidate,
        st.just(p.id),
        anything,
        anything,
        anything,
        int64,
        int64,
        data,
        st.none() | floats,
        st.none() | int64,
        anything,
        anything,
    )


def scores_for(c: Candidate) -> st.SearchStrategy[Score]:
    value = st.none() | st.floats(allow_nan=False, allow_infinity=False)
    keys = st.lists(floats | st.integers(), max_size=3).map(tuple)
    return st.builds(
        Score,
        st.just(c.id),
        anything,
        anything,
        data,
        value,
        anything.map(lambda t: t + "."),
        keys,
        floats,
        st.none() | st.booleans(),
        anything,
        data,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_row_comes_back_as_it_went_in_and_is_stored_once(store: Store, drawn: st.DataObject) -> None:
    p = drawn.draw(prompts)
    p = replace(p, text=f"{p.text} {uuid.uuid4()}")  # examples share the store
    c = drawn.draw(candidates_for(p))
    s = drawn.draw(scores_for(c))
    r = Ranking(p.id, ((c.id, "x"), ("y",)), drawn.draw(anything), drawn.draw(data))
    members = (GroupCandidate(drawn.draw(anything) + "1", c.id), GroupCandidate("2", "", True, drawn.draw(labels)))
    edge = Edge(0, 1, 0.25, drawn.draw(st.floats(0, 1)), drawn.draw(anything))
    g = PreferenceGroup(p.text, members, (edge,), p.system, p.id, p.family, p.split)
    v = Verdict(p.id, drawn.draw(anything), "pairwise@1", (c.id, "x"), "ranked", ((c.id,), ("x",)), reason=r.source)
    a = Annotation(p.id, drawn.draw(anything), (c.id, "x"), "ranked", (("x",), (c.id,)), note=r.source, submitted=1.5)
    run = Run(drawn.draw(anything), drawn.draw(data), {"prompt": p.id}, started=1.5)
    for item, add, get in (
        (p, store.add_prompts, store.get_prompt),
        (c, store.add_candidates, store.get_candidate),
        (s, store.add_scores, store.get_score),
        (r, store.add_rankings, store.get_ranking),
        (g, store.add_groups, store.get_group),
        (v, store.add_verdicts, lambda id: next(store.verdicts(ids=id), None)),
        (a, store.add_annotations, lambda id: next(store.annotations(ids=id), None)),
        (run, store.add_runs, store.get_run),
    ):
        assert get(item.id) is None
        assert add([item, item]) == 1
        assert add([item]) == 0
        found = get(item.id)
        assert found == item and found is not None and found.id == item.id


@given(anything, anything, st.lists(anything, min_size=2, max_size=3, unique=True), st.lists(data, max_size=1))
def test_a_group_is_encoded_once_into_what_its_id_and_its_columns_always_were(prompt, system, texts, context) -> None:
    members = tuple(GroupCandidate(text, id=text[::-1]) for text in texts)
    group = PreferenceGroup(prompt, members, (Edge(0, 1, 0.1, 1 / 3, texts[0]),), system, context=tuple(context))
    candidates = [{"text": c.text, "id": c.id, "off_policy": c.off_policy} for c in members]
    edges = [asdict(e) for e in group.edges]
    more = [group.context, group.tools] if context else []
    assert group.id == content_id("group", system, prompt, candidates, edges, *more)
    for column, encoded, plain in zip(("candidates", "edges"), group.encoded()[1:], (candidates, edges), strict=True):
        kept = schema.groups.c[column].type.process_bind_param(encoded, sqlite.dialect())
        assert kept == json.dumps(plain, sort_keys=True, separators=(",", ":"))


def test_a_label_is_part_of_a_groups_identity_and_can_be_written_short() -> None:
    row = {"prompt": "p", "candidates": [{"text": "a", "label": True}, {"text": "b", "label": None}], "edges": []}
    group = PreferenceGroup.from_dict(row)
    assert [c.label for c in group.candidates] == [CandidateLabel(True), None]
    assert PreferenceGroup.from_dict(group.to_dict()) == group
    plain = PreferenceGroup("p", (GroupCandidate("a"), GroupCandidate("b")), ())
    assert group.id != plain.id == PreferenceGroup.from_dict(plain.to_dict()).id
    for wrong in ("yes", {"good": 1}, {"good": True, "weight": 0}):
        with pytest.raises(ValueError, match="label"):
            GroupCandidate.from_dict({"text": "a", "label": wrong})


def test_a_malformed_verdict_gives_way_to_one_that_could_be_read(store: Store) -> None:
    (p, *_), (a, b, *_) = filled(store)
    cut = Verdict(p.id, "j", "pairwise@1", (a.id, b.id), "malformed", reason="cut off")
    read = replace(cut, outcome="ranked", tiers=((b.id,), (a.id,)), reason="")
    assert (cut.id, store.add_verdicts([cut]), store.add_verdicts([read])) == (read.id, 1, 1)
    assert store.add_verdicts([cut]) == store.add_verdicts([replace(read, tiers=((a.id,), (b.id,)))]) == 0
    assert list(store.verdicts()) == [read]


def test_an_annotation_that_was_taken_back_counts_for_nothing_and_is_kept(store: Store) -> None:
    (p, *_), (a, b, *_) = filled(store)
    said = Annotation(p.id, "ann", (a.id, b.id), "ranked", ((b.id,), (a.id,)), submitted=3.0)
    store.add_annotations([said])
    ranking = said.ranking()
    assert ranking is not None and (ranking.source, ranking.tiers) == ("human:ann", ((b.id,), (a.id,)))
    assert store.undo_annotation(said.id) and not store.undo_annotation(said.id)
    assert list(store.annotations()) == []
    (kept,) = store.annotations(undone=True)
    assert kept.undone and kept.ranking() is None and kept.id == said.id


def test_a_prompt_keeps_the_data_it_was_first_added_with(store: Store) -> None:
    assert store.add_prompts([prompt(1, family="first")]) == 1
    assert store.add_prompts([prompt(1, family="second"), prompt(2)]) == 1
    assert {p.family for p in store.prompts()} == {"first", ""}


# ---- missing values


def test_an_unscored_candidate_may_be_scored_later_and_never_loses_its_score(store: Store) -> None:
    p = prompt(1)
    [c] = candidates_of(p, 1)
    store.add_prompts([p])
    store.add_candidates([c])
    unscored, scored = score(c, None), score(c, 0.5, key=(1.0, 2.0), passed=True)
    assert unscored.id == scored.id
    assert store.add_scores([unscored]) == 1
    assert store.add_scores([scored]) == 1
    assert store.get_score(scored.id) == scored
    assert store.add_scores([unscored, score(c, 0.75)]) == 0
    assert store.get_score(scored.id) == scored
    assert store.counts()["unscored"] == 0


def test_a_value_that_is_no_number_is_refused_and_such_a_logprob_is_missing(store: Store) -> None:
    p = prompt(1)
    [c] = candidates_of(p, 1, logprob=float("nan"))
    store.add_prompts([p])
    store.add_candidates([c])
    assert store.get_candidate(c.id) == replace(c, logprob=None)
    for value in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"asm gave candidate"):
            store.add_scores([score(c, value)])
    assert store.counts()["scores"] == 0


def test_rows_that_refer_to_nothing_are_refused(store: Store) -> None:
    c = candidates_of(prompt(1), 1)[0]
    group = PreferenceGroup("p", (GroupCandidate("a"), GroupCandidate("b")), (Edge(0, 1),))
    for add in (
        lambda: store.add_candidates([c]),
        lambda: store.add_scores([score(c)]),
        lambda: store.add_rankings([Ranking("nobody", ((c.id,),), "asm@1")]),
        lambda: store.add_groups([group], run="no run"),
    ):
        with pytest.raises(DataError, match="prompts, then candidates"):
            add()
    assert store.counts()["candidates"] == store.counts()["scores"] == store.counts()["rankings"] == 0


# ---- reading


def filled(store: Store) -> tuple[list[Prompt], list[Candidate]]:
    """Six prompts in two splits and three families, three candidates each; all but one scored."""
    prompts = [prompt(n, split="train" if n % 2 else "test", family=f"f{n % 3}", source="pack") for n in range(6)]
    made = [c for p in prompts for c in [*candidates_of(p, 2, "m1"), *candidates_of(p, 1, "m2", source="human")]]
    store.add_prompts(prompts)
    store.add_candidates(made)
    store.add_scores(score(c, None if i == 0 else i / len(made), passed=i % 2 == 0) for i, c in enumerate(made))
    return prompts, made


def test_filters_keep_what_they_name(store: Store) -> None:
    prompts, made = filled(store)
    family = {p.id: p.family for p in prompts}
    split = {p.id: p.split for p in prompts}
    assert [p.id for p in store.prompts()] == sorted(family)
    assert {p.id for p in store.prompts(split="train", family=["f0", "f1"])} == {
        id for id in family if split[id] == "train" and family[id] in ("f0", "f1")
    }
    assert list(store.prompts(source="elsewhere")) == []
    assert set(store.prompts(ids=[])) == set()
    got = [c.id for c in store.candidates(model="m1", split="test")]
    assert got == [
        c.id
        for c in sorted(made, key=lambda c: (c.prompt_id, c.seed, c.index, c.id))
        if c.model == "m1" and split[c.prompt_id] == "test"
    ]
    assert {c.id for c in store.candidates(source="human", family="f2")} == {
        c.id for c in made if c.source == "human" and family[c.prompt_id] == "f2"
    }
    one = prompts[3].id
    assert {c.id for c in store.candidates(prompt_ids=one)} == {c.id for c in made if c.prompt_id == one}
    wanted = {c.id for c in made if c.prompt_id == one}
    assert {s.candidate_id for s in store.scores(prompt_ids=[one], scorer="asm")} == wanted
    assert {s.candidate_id for s in store.scores(scored=False)} == {made[0].id}
    assert {s.candidate_id for s in store.scores(model="m2", scored=True)} == {c.id for c in made if c.model == "m2"}
    assert list(store.scores(scorer="other")) == list(store.scores(version="2")) == []
    assert [s.candidate_id for s in store.scores(candidate_ids=made[4].id)] == [made[4].id]


def test_any_number_of_ids_makes_one_filter(store: Store) -> None:
    prompts, _ = filled(store)
    many = [f"{i:020x}" for i in range(70_000)]
    assert [p.id for p in store.prompts(ids=[*many, prompts[0].id])] == [prompts[0].id]
    assert len(list(store.candidates(prompt_ids=[*many, *(p.id for p in prompts)]))) == 18


def test_answers_are_prompts_with_their_candidates_and_one_scorers_scores(store: Store) -> None:
    prompts, made = filled(store)
    store.add_prompts([prompt(99, split="train")])
    store.add_scores([Score(made[0].id, "length", "1", value=0.5)])
    got = list(store.answers("asm"))
    assert [p.id for p, _ in got] == sorted(p.id for p in [*prompts, prompt(99)])
    for p, rows in got:
        assert [c for c, _ in rows] == list(store.candidates(prompt_ids=p.id))
        assert all(s is not None and s.candidate_id == c.id and s.scorer == "asm" for c, s in rows)
    assert {p.text: rows for p, rows in got}["prompt 99"] == []
    some = {p.id: rows for p, rows in store.answers("asm", split="train", model="m2")}
    assert set(some) == {p.id for p in [*prompts, prompt(99)] if p.split == "train"}
    assert all(c.model == "m2" for rows in some.values() for c, _ in rows)
    lengths = [s for _, rows in store.answers("length") for _, s in rows]
    assert sum(s is not None for s in lengths) == 1 and len(lengths) == 18


def test_scores_of_different_versions_are_never_mixed(store: Store) -> None:
    _, made = filled(store)
    time.sleep(0.01)  # "last" is by the clock
    store.add_scores([score(made[3], 0.9, version="2")])
    latest = {s.candidate_id: s.version for _, rows in store.answers("asm") for _, s in rows if s}
    assert latest == {made[3].id: "2"}
    assert {s.version for _, rows in store.answers("asm", "1") for _, s in rows if s} == {"1"}
    assert [s for _, rows in store.answers("asm", "1", {"k": 1}) for _, s in rows if s] == []
    with pytest.raises(UsageError, match="hafs score --scorer asm"):
        list(store.answers("asm", "3"))


def test_what_is_left_to_score_is_what_has_no_value_by_that_scorer(store: Store) -> None:
    prompts, made = filled(store)
    by_id = {p.id: p for p in prompts}
    assert [(p, c) for p, c in store.to_score("asm", "1", {})] == [(by_id[made[0].prompt_id], made[0])]
    assert {c.id for _, c in store.to_score("asm", "2", {}, model="m2")} == {c.id for c in made if c.model == "m2"}
    store.add_scores([score(made[0])])
    assert list(store.to_score("asm", "1", {})) == []
    assert len(list(store.to_score("asm", "1", {"vectors": 4}))) == len(made)


def test_rows_can_be_added_while_rows_are_read(store: Store) -> None:
    _, made = filled(store)
    seen = 0
    for _, c in store.to_score("asm", "2", {}):
        store.add_scores([score(c, version="2")])
        seen += 1
    assert seen == len(made)
    assert list(store.to_score("asm", "2", {})) == []


def test_counts_and_scorers(store: Store) -> None:
    assert set(store.counts().values()) == {0}
    _, made = filled(store)
    store.add_scores([Score(made[0].id, "length", "3", value=0.5)])
    counts = store.counts()
    assert (counts["prompts"], counts["candidates"], counts["scores"], counts["unscored"]) == (6, 18, 19, 1)
    assert store.scorers() == [
        {"scorer": "asm", "version": "1", "scored": 17, "unscored": 1, "passed": 9},
        {"scorer": "length", "version": "3", "scored": 1, "unscored": 0, "passed": 0},
    ]


# ---- runs and the groups they make


def test_a_run_is_found_again_and_a_finished_one_stays_finished(store: Store) -> None:
    config = {"beta": 0.1, "lora": {"rank": 8}}
    id = store.start_run("dpo", config, {"groups": "abc"})
    assert store.start_run("dpo", {"lora": {"rank": 8}, "beta": 0.1}, {"groups": "abc"}) == id
    assert store.start_run("dpo", {**config, "beta": 0.2}, {"groups": "abc"}) != id
    store.finish_run(id, "failed", {"step": 3})
    assert store.start_run("dpo", config, {"groups": "abc"}) == id
    run = store.get_run(id)
    assert run is not None and (run.status, run.finished) == ("running", None)
    store.finish_run(id, metrics={"loss": 0.5}, outputs={"model": ["out", "hash"]}, model="hash")
    done = store.get_run(id)
    assert done is not None and done.finished is not None and done.finished >= done.started
    assert (done.status, done.metrics, done.model) == ("finished", {"loss": 0.5}, "hash")
    store.start_run("dpo", config, {"groups": "abc"})
    assert store.get_run(id) == done
    assert [r.kind for r in store.runs(kind="sft")] == [] and len(list(store.runs())) == 2
    with pytest.raises(UsageError, match="there is no run"):
        store.finish_run("nothing")
    with pytest.raises(UsageError, match="cannot be 'great'"):
        store.finish_run(id, "great")


def test_work_is_done_once_and_the_newest_of_its_kind_is_found(store: Store) -> None:
    one, two = store.once("eval", {"name": "a"}), store.once("eval", {"name": "b"})
    assert one.done is two.done is None and store.newest("eval") is None
    one.finish({"passed": 1}, {"text": "x"}, model="m", whole=False)
    assert store.once("eval", {"name": "a"}).done is None, "what is not whole is tried again"
    one.finish({"passed": 2}, {"text": "y"}, model="m")
    two.finish({"passed": 3})
    found = store.newest("eval")
    assert found is not None and found.config == {"name": "b"}
    again = store.once("eval", {"name": "a"})
    assert again.done is not None and again.renew().outputs == {"text": "y"}
    assert [r.config["name"] for r in store.ended("eval")] == ["b", "a"]
    renewed = store.newest("eval", name="a")
    assert renewed is not None and (renewed.metrics, renewed.model) == ({"passed": 2}, "m")
    assert store.newest("eval", name="c") is store.newest("sft") is None


def test_work_done_before_there_was_a_setting_had_its_default(store: Store) -> None:
    store.once("eval", {"name": "a", "decoding": {"seed": 0}}, {"model": "m"}).finish({"passed": 1})
    defaults = {"decoding": {"seed": 0, "cache": "growing"}}

    def known(cache: str, seed: int = 0, model: str = "m") -> bool:
        asked = {"name": "a", "decoding": {"seed": seed, "cache": cache}}
        return store.once("eval", asked, {"model": model}, defaults).done is not None

    assert known("growing") and known("growing")
    assert not known("fixed") and not known("growing", seed=1) and not known("growing", model="n")


def test_groups_are_found_by_the_run_that_made_them(store: Store) -> None:
    def group(n: int) -> PreferenceGroup:
        return PreferenceGroup(f"p{n}", (GroupCandidate("a"), GroupCandidate("b")), (Edge(0, 1),), family=f"f{n}")

    first, second = (store.start_run("preferences", {"scheme": s}) for s in ("all", "guide"))
    assert store.add_groups(map(group, range(3)), run=first) == 3
    assert store.add_groups([group(2), group(3)], run=second) == 1
    assert store.add_groups([group(2)], run=second) == 0
    assert {g.prompt for g in store.groups(run=first)} == {"p0", "p1", "p2"}
    assert {g.prompt for g in store.groups(run=second, family=["f3", "f0"])} == {"p3"}
    assert len(list(store.groups())) == 4


# ---- whole batches or nothing


def test_an_error_in_the_middle_keeps_the_batches_before_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BATCH", 4)

    def some() -> Iterator[Prompt]:
        yield from map(prompt, range(10))
        raise RuntimeError("the generator broke")

    with pytest.raises(RuntimeError):
        store.add_prompts(some())
    assert store.counts()["prompts"] == 8


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    code = """if 1:
        import sys
        from hafs.store import open_store
        from hafs.types import Prompt
        store = open_store(sys.argv[1])
        for n in range(10**6):
            store.add_prompts(Prompt(f"{n} {i}") for i in range(50))
            print(n, flush=True)
    """
    path = tmp_path / "hafs.db"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last = next(int(line) for line in writer.stdout if int(line) >= 20)
        writer.send_signal(signal.SIGKILL)
    with open_store(path) as store:
        n = store.counts()["prompts"]
        assert n % 50 == 0 and n >= 50 * (last + 1)
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


# ---- the schema


def test_the_migrated_tables_are_the_ones_that_queries_use(store: Store) -> None:
    tables = inspect(store._engine)
    for table in schema._metadata.sorted_tables:
        assert [c["name"] for c in tables.get_columns(table.name)] == [c.name for c in table.c]
        keys = {(tuple(k["constrained_columns"]), k["referred_table"]) for k in tables.get_foreign_keys(table.name)}
        assert keys == {((k.parent.name,), k.column.table.name) for k in table.foreign_keys}
    assert set(tables.get_table_names()) == {*schema._metadata.tables, "schema_version"}


def test_opening_again_changes_nothing_and_many_may_open_a_new_database_at_once(url: str) -> None:
    def fill(n: int) -> int:
        with open_store(url) as opened:
            return opened.add_prompts([prompt(n)])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fill, range(8))) == [1] * 8
    with open_store(url) as opened:
        assert opened.counts()["prompts"] == 8


NEXT = schema.MIGRATIONS[-1][0] + 1


def test_a_database_of_a_newer_hafs_is_refused_and_left_alone(url: str) -> None:
    with open_store(url) as opened, opened._engine.connect() as conn, conn.begin():
        conn.execute(text("UPDATE schema_version SET version = 99"))
    with pytest.raises(HafsError, match=r"schema version 99.*\n.*newer hafs"):
        open_store(url)


def test_an_older_database_is_brought_up_by_the_missing_migrations(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(url) as opened:
        opened.add_prompts([prompt(1)])
    later = (*schema.MIGRATIONS, (NEXT, ("CREATE TABLE extra (id TEXT PRIMARY KEY)",)))
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    with open_store(url) as opened:
        assert inspect(opened._engine).has_table("extra")
        assert opened.counts()["prompts"] == 1
        with opened._engine.connect() as conn:
            assert schema.schema_version(conn) == NEXT


def test_a_migration_that_fails_is_undone(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(url).close()
    statements = ("CREATE TABLE extra (id TEXT)", "CREATE TABLE prompts (id TEXT)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (NEXT, statements)))
    with pytest.raises(HafsError, match="already exists"):
        open_store(url)
    monkeypatch.undo()
    with open_store(url) as opened:
        assert not inspect(opened._engine).has_table("extra")


# ---- failures in words


def test_sqlite_is_opened_with_a_write_ahead_log(tmp_path: Path) -> None:
    with open_store(tmp_path / "hafs.db") as opened, opened._engine.connect() as conn:
        pragmas = {
            p: conn.execute(text(f"PRAGMA {p}")).scalar() for p in ("journal_mode", "synchronous", "foreign_keys")
        }
        assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
        assert conn.execute(text("PRAGMA busy_timeout")).scalar() == 30_000


def test_a_full_database_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    with open_store(tmp_path / "hafs.db") as opened:
        opened.add_prompts([prompt(1)])
        with opened._engine.connect() as conn:
            pages = conn.execute(text("PRAGMA page_count")).scalar_one()
            conn.execute(text(f"PRAGMA max_page_count = {pages}"))
            conn.commit()
        with pytest.raises(HafsError, match=r"disk is full.*\n.*free space.*again") as caught:
            opened.add_prompts(Prompt("x" * 2000 + str(i)) for i in range(500))
        assert str(tmp_path / "hafs.db") in caught.value.what
        assert opened.counts()["prompts"] == 1


WRITER = """if 1:
    import resource, sys
    from hafs.errors import HafsError
    from hafs.files.jsonl import write_jsonl
    from hafs.store import open_store
    from hafs.types import Prompt
    store = open_store(sys.argv[1])
    store.add_prompts([Prompt("first")])
    if sys.argv[2] == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    try:
        store.add_prompts(Prompt("x" * 5000 + str(i)) for i in range(2000))
    except HafsError as e:
        print(e)
    print([p.text for p in store.prompts()])
"""


def run_writer(where: Path, how: str, prefix: tuple[str, ...] = ()) -> str:
    argv = [*prefix, sys.executable, "-c", WRITER, str(where / "hafs.db"), how]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_a_file_size_limit_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    printed = run_writer(tmp_path, "limit")
    assert "could not write" in printed and "fix: free space" in printed
    assert printed.endswith("['first']\n")


def test_a_really_full_disk_says_so_and_keeps_what_was_there(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && exec "$@"'
    own_mounts = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*own_mounts, "true"], check=False).returncode:
        pytest.skip("this machine does not let a user mount a small disk")
    printed = run_writer(tmp_path, "tmpfs", own_mounts)
    assert "could not write" in printed and "fix: free space" in printed
    assert printed.endswith("['first']\n")


def test_a_directory_without_permission_says_so() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        root = os.geteuid() == 0
        with open_store(path / "hafs.db") as opened:
            opened.add_prompts([prompt(1)])
        for made in path.iterdir():
            made.chmod(0o444)
        path.chmod(0o555)
        try:
            if root:
                os.seteuid(65534)
            with pytest.raises(HafsError, match=r"read-only|permissions"):
                open_store(path / "hafs.db").add_prompts([prompt(2)])
            with pytest.raises(HafsError, match=r"permissions"):
                open_store(path / "new.db")
            with pytest.raises(HafsError, match=r"could not make a workspace"):
                init_workspace(path / "workspace")
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o755)


def test_a_locked_database_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.05)
    path = tmp_path / "hafs.db"
    with open_store(path) as opened:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HafsError, match=r"locked.*\n.*wait for it"):
            opened.add_prompts([prompt(1)])
        assert opened.counts()["prompts"] == 0
        other.execute("ROLLBACK")
        assert opened.add_prompts([prompt(1)]) == 1


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    with open_store(path) as opened:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        timer.start()
        assert opened.add_prompts([prompt(1)]) == 1
        timer.join()


@pytest.mark.parametrize(
    "content", [b"this is a text file, not a database" * 200, b"SQLite format 3\x00" + b"\xff" * 8000]
)
def test_a_file_that_is_no_database_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hafs.db"
    path.write_bytes(content)
    with pytest.raises(HafsError, match=r"damaged or is no hafs database.*\n.*move the file away"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_damaged_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "hafs.db"
    with open_store(path) as opened:
        opened.add_prompts(Prompt("x" * 1000 + str(i)) for i in range(200))
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(HafsError, match="damaged"), open_store(path) as opened:
        list(opened.prompts())


def test_databases_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HafsError, match=r"directory is missing.*\n.*hafs init"):
        open_store(tmp_path / "nowhere" / "hafs.db")
    with pytest.raises(UsageError, match="'mysql'"):
        open_store("mysql://host/db")
    with pytest.raises(UsageError, match="in memory"):
        open_store("sqlite://")
    with pytest.raises(UsageError, match="cannot be read"):
        open_store("postgresql://host:port/db")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingTool, match=r"pip install 'hafs\[postgres\]'"):
        open_store("postgresql://host/db")


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(HafsError, match=r"\[store\] in hafs.toml") as caught:
        open_store("postgresql://me:secret@127.0.0.1:9/hafs")
    assert "secret" not in str(caught.value) and "127.0.0.1" in str(caught.value)


# ---- JSON lines


@pytest.mark.parametrize("kind", list(KINDS))
def test_each_kind_goes_out_and_comes_back(store: Store, tmp_path: Path, kind: str) -> None:
    prompts, made = filled(store)
    store.add_rankings([Ranking(prompts[0].id, ((made[0].id,), (made[1].id,)), "asm@1")])
    store.add_verdicts([Verdict(prompts[0].id, "j", "pairwise@1", (made[0].id, made[1].id), "tie")])
    store.add_annotations([Annotation(prompts[0].id, "ann", (made[0].id, made[1].id), "all_bad")])
    store.add_groups([PreferenceGroup("p", (GroupCandidate("a"), GroupCandidate("b")), (Edge(0, 1),))])
    store.finish_run(store.start_run("sft", {"x": [1, 2]}), metrics={"loss": 1.0})
    rows = list(getattr(store, kind)())
    file = tmp_path / f"{kind}.jsonl"
    assert store.export_jsonl(kind, file) == len(rows) > 0
    again = store.import_rows(kind, file)
    assert (again.read, again.added, again.bad) == (len(rows), 0, [])
    with open_store(tmp_path / "other.db") as other:
        if kind in ("candidates", "rankings", "scores", "verdicts", "annotations"):
            other.add_prompts(prompts)
        if kind == "scores":
            other.add_candidates(made)
        assert other.import_rows(kind, file).added == len(rows)
        assert list(getattr(other, kind)()) == rows


def test_export_takes_the_filters_of_reading(store: Store, tmp_path: Path) -> None:
    filled(store)
    assert store.export_jsonl("candidates", tmp_path / "some.jsonl", model="m2", split="train") == 3
    assert store.export_jsonl("prompts", tmp_path / "none.jsonl", family="none") == 0
    with pytest.raises(UsageError, match="no 'answers'"):
        store.export_jsonl("answers", tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match="prompts, candidates"):
        store.import_rows("tasks", tmp_path / "some.jsonl")


def test_bad_lines_are_named_by_number_and_the_rest_is_kept(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(
        '{"text": "good"}\n\n{"text": "broken\n[1]\n{"system": "no text"}\n{"text": 5}\n'
        '{"text": "x", "colour": "red"}\n'
        '{"text": "also good", "references": [{"name": "r", "text": "RTS"}], "tags": ["easy"]}\n'
    )
    got = store.import_rows("prompts", file)
    assert (got.read, got.added) == (3, 3)
    assert [number for number, _ in got.bad] == [3, 4, 5, 6]
    assert dict(got.bad)[5].startswith("no column is known as the prompt: the columns are system")
    assert "'text' is empty or no text" in dict(got.bad)[6] and "not used: colour" in got.notes[-1]
    assert {p.text for p in store.prompts()} == {"good", "x", "also good"}


def test_rows_without_their_parents_are_bad_lines(store: Store, tmp_path: Path) -> None:
    prompts, made = filled(store)
    file = tmp_path / "rows.jsonl"
    stranger = prompt(77)
    file.write_text(f'{{"prompt_id": "{stranger.id}", "text": "a"}}\n{{"prompt_id": "{prompts[0].id}", "text": "b"}}\n')
    got = store.import_rows("candidates", file)
    assert got.added == 1 and [n for n, _ in got.bad] == [1] and "import prompts first" in got.bad[0][1]
    lines = [
        f'{{"candidate_id": "{c}", "scorer": "s", "version": "1", "value": {v}}}'
        for c, v in ((made[1].id, 0.5), ("nobody", 0.5), (made[2].id, "NaN"))
    ]
    file.write_text("\n".join(lines))
    got = store.import_rows("scores", file)
    assert got.added == 1 and [n for n, _ in got.bad] == [2, 3] and "import candidates first" in got.bad[0][1]
    file.write_text("")
    with pytest.raises(DataError, match="it is empty"):
        store.import_rows("prompts", file)
    with pytest.raises(UsageError, match="there is no file"):
        store.import_rows("prompts", tmp_path / "missing.jsonl")


# ---- the workspace


def test_a_workspace_is_made_once_and_found_from_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    made = init_workspace(tmp_path / "w")
    assert sorted(p.name for p in made.root.iterdir()) == ["hafs.db", "hafs.toml"]
    with made.open_store() as opened:
        opened.add_prompts([prompt(1)])
    (made.root / "hafs.toml").write_text("[dpo]\nbeta = 0.3\n")
    again = init_workspace(tmp_path / "w")
    assert again.config.dpo.beta == 0.3
    with again.open_store() as opened:
        assert opened.counts()["prompts"] == 1
    inside = made.root / "runs" / "deep"
    inside.mkdir(parents=True)
    assert find_workspace(inside).root == made.root
    monkeypatch.chdir(inside)
    assert find_workspace().root == made.root


def test_the_environment_names_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = init_workspace(tmp_path / "named")
    other = init_workspace(tmp_path / "here")
    monkeypatch.chdir(other.root)
    monkeypatch.setenv("HAFS_WORKSPACE", str(made.root))
    assert find_workspace().root == made.root
    assert find_workspace(other.root).root == other.root
    monkeypatch.setenv("HAFS_WORKSPACE", str(tmp_path))
    with pytest.raises(UsageError, match="hafs init"):
        find_workspace()


def test_no_workspace_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    for look in (find_workspace, open_workspace):
        with pytest.raises(UsageError, match="hafs init"):
            look(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HafsError, match="could not make a workspace"):
        init_workspace(tmp_path / "file" / "w")


def test_the_settings_name_another_database(tmp_path: Path) -> None:
    init_workspace(tmp_path)
    (tmp_path / "hafs.toml").write_text('[store]\nurl = "data/other.db"\n')
    (tmp_path / "data").mkdir()
    with open_workspace(tmp_path).open_store() as opened:
        opened.add_prompts([prompt(1)])
    assert (tmp_path / "data" / "other.db").is_file()


@pytest.mark.postgres
def test_the_settings_name_a_postgres_server(tmp_path: Path, postgres_url: str) -> None:
    (tmp_path / "hafs.toml").write_text(f'[store]\nurl = "{postgres_url}"\n')
    with init_workspace(tmp_path).open_store() as opened:
        assert opened.add_prompts([prompt(1)]) == 1
    assert not (tmp_path / "hafs.db").exists()
    with find_workspace(tmp_path).open_store() as opened:
        assert opened.counts()["prompts"] == 1


def test_a_read_only_disk_is_called_that(tmp_path: Path) -> None:
    """SQLite only says that it is unable to open the file. (The disk is a real one where this user may mount.)"""
    mounted = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("this user may not mount")
    script = (
        f"mount -t tmpfs none {tmp_path} && {sys.executable} -m hafs init {tmp_path}/w >/dev/null"
        f" && mount -o remount,ro {tmp_path} && {sys.executable} -m hafs data export prompts /dev/null -w {tmp_path}/w"
    )
    ran = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "mount:" in ran.stderr:
        pytest.skip(ran.stderr)
    assert ran.returncode == 1 and "is on a read-only disk" in ran.stderr, ran.stderr
