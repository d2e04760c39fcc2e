"""Preference formats: what each says, round trips, files that hold them, and bad rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafs.data import Asked, set_aside
from hafs.errors import DataError, UsageError
from hafs.preferences import FORMATS, Mixing, mix, read_preferences, same_text, to_pairs, write_preferences
from hafs.preferences.collect import keep_groups, newest_groups
from hafs.preferences.formats import FEATURES, detect, lost
from hafs.preferences.pairs import group_of, messages
from hafs.store import open_store
from hafs.types import CandidateLabel, Edge, GroupCandidate, PreferenceGroup
from run_hafs import hafs, lines, workspace

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
EARLIER = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "yes"}]

EXAMPLES: dict[str, dict[str, Any]] = {
    "trl": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "trl-chat": {"prompt": [*EARLIER, USER], "chosen": [ASSISTANT], "rejected": [BAD], "tools": [TOOL]},
    "trl-implicit": {"chosen": [*EARLIER, USER, ASSISTANT], "rejected": [*EARLIER, USER, BAD]},
    "openai": {
        "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [ASSISTANT],
        "non_preferred_output": [BAD],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
        "system": "s",
    },
    "ranked": {
        "context": [USER],
        "completions": [{"rank": 1, "completion": [BAD]}, {"rank": 0, "completion": [ASSISTANT]}],
    },
    "ultrafeedback": {
        "prompt": "q",
        "prompt_id": "x",
        "chosen": [USER, ASSISTANT],
        "rejected": [USER, BAD],
        "messages": [USER, ASSISTANT],
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    },
    "hh-rlhf": {
        "chosen": "\n\nHuman: first\n\nAssistant: yes\n\nHuman: q\n\nAssistant: good",
        "rejected": "\n\nHuman: first\n\nAssistant: yes\n\nHuman: q\n\nAssistant: bad",
    },
    "argilla": {
        "id": "1",
        "status": "completed",
        "fields": {"prompt": "q", "a": "bad", "b": "good"},
        "responses": {"rank": [{"value": [{"value": "b", "rank": 1}, {"value": "a", "rank": 2}], "user_id": "ann"}]},
    },
    "label-studio": {
        "id": 1,
        "data": {"prompt": "q", "answer1": "bad", "answer2": "good"},
        "annotations": [
            {"completed_by": {"email": "ann@x"}, "result": [{"type": "pairwise", "value": {"selected": "right"}}]}
        ],
    },
    "groups": PreferenceGroup("q", (GroupCandidate("good"), GroupCandidate("bad")), (Edge(0, 1),)).to_dict(),
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_row_as_its_makers_write_it_is_known_and_read(tmp_path: Path, name: str) -> None:
    row = EXAMPLES[name]
    assert detect(row) == name
    found = read_preferences(write(tmp_path / "x.jsonl", row))
    assert not found.bad and found.formats == {name: 1}
    (group,) = found.groups
    ((chosen, rejected, edge),) = group.pairs()
    assert (group.prompt, chosen, rejected) == ("q", "good", "bad")
    assert group.system == ("s" if name == "sharegpt" else "")
    assert list(group.context) == (EARLIER if name in ("trl-chat", "trl-implicit", "hh-rlhf") else [])
    assert list(group.tools) == ([TOOL] if name == "trl-chat" else [])
    assert edge.source == {"argilla": "human:ann", "label-studio": "human:ann@x"}.get(name, "")
    assert edge.margin == (4.5 if name == "ultrafeedback" else None)


def test_the_prompt_inside_texts_is_found_as_trl_finds_it(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    row = {"chosen": "The sky is blue today.", "rejected": "The sky is blurred."}
    wanted = trl.extract_prompt(dict(row))
    (group,) = read_preferences(write(tmp_path / "x.jsonl", row)).groups
    assert (group.prompt, group.candidates[0].text, group.candidates[1].text) == (
        wanted["prompt"],
        wanted["chosen"],
        wanted["rejected"],
    )


def test_labels_pair_every_good_answer_with_every_bad_one(tmp_path: Path) -> None:
    def row(prompt: str, text: str, label: object) -> dict[str, object]:
        return {"prompt": prompt, "completion": text, "label": label}

    found = read_preferences(
        write(
            tmp_path / "x.jsonl",
            row("p", "a", True),
            row("p", "b", False),
            row("p", "c", False),
            row("q", "x", True),
            row("q", "y", True),
            row("p", "d", "yes"),
        )
    )
    assert {(a, b) for g in found.groups for a, b, _ in g.pairs()} == {("a", "b"), ("a", "c")}
    assert (found.unpaired, [n for n, _ in found.bad]) == (2, [6])


def test_a_choice_that_does_not_say_between_which_texts(tmp_path: Path) -> None:
    """Of more than two texts without a `to_name` none is guessed; with one, the two that it names are compared."""
    more = {"data": {"title": "about", "prompt": "q", "answer1": "bad", "answer2": "good"}}
    result = {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "right"}}
    named = EXAMPLES["label-studio"] | more | {"annotations": [{"result": [result]}]}
    found = read_preferences(write(tmp_path / "x.jsonl", named, EXAMPLES["label-studio"] | more))
    assert [(a, b) for g in found.groups for a, b, _ in g.pairs()] == [("good", "bad")]
    assert found.bad == [(2, "the result has no 'to_name' that says which two of 3 texts it compares")]


def test_a_flattened_record_of_argilla_is_named(tmp_path: Path) -> None:
    flat = {"prompt": "q", "a": "x", "b": "y", "rank.responses": [["a", "b"]], "rank.responses.users": ["ann"]}
    found = read_preferences(write(tmp_path / "x.jsonl", flat, EXAMPLES["argilla"]))
    assert found.formats == {"argilla": 1} and "to_json" in found.bad[0][1]


def test_what_our_rows_say_trl_reads(tmp_path: Path) -> None:
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    group = group_of(Asked("sys", json.dumps(EARLIER), "q"), map(GroupCandidate, ("a", "b")), (Edge(0, 1),))
    for name in ("trl", "trl-chat", "trl-implicit", "unpaired"):
        rows = FORMATS[name].write(group)
        data = datasets.Dataset.from_list(rows)
        assert trl.is_conversational(data[0])
    implicit = trl.extract_prompt(dict(FORMATS["trl-implicit"].write(group)[0]))
    assert implicit["prompt"] == messages(group) and implicit["chosen"] == [{"role": "assistant", "content": "a"}]


# ---- round trips

letters = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5)
words = letters.map(str.strip).filter(bool)


@st.composite
def groups(draw: st.DrawFn, keeps: frozenset[str], full: bool, two: bool) -> PreferenceGroup:
    """A group that says only what a format keeps; `full`: its edges are a whole ranking; `two`: of two answers."""
    texts = draw(st.lists(words, min_size=2, max_size=2 if two else 4, unique_by=same_text))
    possible = list(combinations(range(len(texts)), 2))
    chosen = possible if full else draw(st.lists(st.sampled_from(possible), min_size=1, unique=True))
    source = draw(st.sampled_from(["", "human:ann", "asm@1"])) if "sources" in keeps else "human:ann"
    edges = [
        Edge(
            a,
            b,
            draw(st.sampled_from([1.0, 2.5])) if "weights" in keeps else 1.0,
            draw(st.sampled_from([1.0, 0.75])) if "probabilities" in keeps else 1.0,
            source if keeps & {"annotators", "sources"} else "",
            margin=draw(st.sampled_from([0.5, 3.0])) if "margins" in keeps else None,
        )
        for a, b in chosen
    ]
    used = list(dict.fromkeys(i for e in edges for i in (e.winner, e.loser)))
    edges = [Edge(used.index(e.winner), used.index(e.loser), e.weight, e.p, e.source, margin=e.margin) for e in edges]
    context = [{"role": "user", "content": draw(words)}, {"role": "assistant", "content": draw(words)}]
    asked = Asked(
        draw(st.just("") | words) if "system texts" in keeps else "",
        json.dumps(context, sort_keys=True) if "earlier turns" in keeps and draw(st.booleans()) else "[]",
        draw(words),
        json.dumps([TOOL], sort_keys=True) if "tools" in keeps and draw(st.booleans()) else "[]",
    )
    return group_of(asked, (GroupCandidate(texts[i]) for i in used), edges)


def meaning(group: PreferenceGroup) -> tuple[object, ...]:
    """What a group says, whatever the order of its candidates and edges."""
    edges = {(same_text(a), same_text(b), e.weight, e.p, e.source, e.margin) for a, b, e in group.pairs()}
    return group.system, repr(group.context), group.prompt, repr(group.tools), sorted(map(repr, edges))


ENDS = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv", ".parquet", ".json.gz")


@pytest.mark.parametrize("name", FORMATS)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=10
)
@given(data=st.data())
def test_what_a_format_can_hold_comes_back(tmp_path: Path, name: str, data: st.DataObject) -> None:
    keeps = FORMATS[name].keeps
    one = groups(keeps, full=name == "ranked", two=name == "unpaired")
    made = data.draw(
        st.lists(one, min_size=1, max_size=3, unique_by=lambda g: repr((g.system, g.context, g.prompt, g.tools)))
    )
    flat = name == "trl" and not any(g.context or g.tools for g in made)
    end = data.draw(
        st.sampled_from(
            ENDS if flat else (".jsonl", ".jsonl.gz", ".json", ".parquet" if name != "groups" else ".jsonl")
        )
    )
    if end == ".parquet" and any(g.tools or g.context for g in made) and not all(g.context for g in made):
        end = ".jsonl"  # a column of Parquet is of one type
    assert lost(made, name) == {}
    file = tmp_path / f"rows{end}"
    written = write_preferences(file, made, name)
    assert (written.lost, written.left_out) == ({}, {})
    back = read_preferences(file)
    assert not back.bad and set(back.formats) <= {name, "trl-chat" if name == "trl" else name}
    assert sorted(map(meaning, back.groups), key=repr) == sorted(map(meaning, made), key=repr)


def test_what_is_lost_is_named_and_what_cannot_be_said_is_left_out(tmp_path: Path) -> None:
    edges = (Edge(0, 1, 2.0, 0.8, "human:ann", margin=3.0), Edge(1, 2, source="asm@1"))
    texts = (GroupCandidate("a", off_policy=True, label=CandidateLabel(True)), GroupCandidate("b"), GroupCandidate("c"))
    rich = PreferenceGroup("p", texts, edges, "sys", "id", "family", context=tuple(EARLIER), tools=(TOOL,))
    assert all(count(rich) for count in FEATURES.values())
    for name, f in FORMATS.items():
        named = set(lost([rich], name))
        assert not named & f.keeps and named | f.keeps | {"annotators"} >= set(FEATURES), name
    circle = PreferenceGroup("p", texts[:2], (Edge(0, 1), Edge(1, 0)))
    got = write_preferences(tmp_path / "x.jsonl", [rich, circle], "ranked")
    assert got.rows == 1 and list(got.left_out) == ["its edges run in a circle, which no ranking can say"]
    with pytest.raises(DataError, match="nothing could be written as hh-rlhf"):
        write_preferences(tmp_path / "y.jsonl", [PreferenceGroup("a\n\nHuman: b", texts, edges)], "hh-rlhf")
    with pytest.raises(UsageError, match="no format 'nonsense'"):
        write_preferences(tmp_path / "y.jsonl", [rich], "nonsense")


# ---- files


def test_a_directory_that_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list([EXAMPLES["trl-chat"] | {"tools": "[]"}, EXAMPLES["trl-chat"] | {"tools": "[]"}])
    one.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=one, test=one).save_to_disk(tmp_path / "many")
    assert read_preferences(tmp_path / "one").pairs == 2
    found = read_preferences(tmp_path / "many")
    assert found.pairs == 2 and "the split train is read; test left out" in found.notes[0]
    assert read_preferences(f"{tmp_path / 'many'}:test").pairs == 2
    (tmp_path / "files").mkdir()
    one.to_parquet(tmp_path / "files" / "part.parquet")
    write(tmp_path / "files" / "more.jsonl", EXAMPLES["trl"])
    assert read_preferences(tmp_path / "files").pairs == 3
    with pytest.raises(UsageError, match="holds no rows"):
        (tmp_path / "empty").mkdir()
        read_preferences(tmp_path / "empty")


BROKEN: Mapping[str, list[object]] = {
    "trl": [{"prompt": "q", "chosen": "a"}, {"prompt": "q", "chosen": "a", "rejected": "a"}],
    "trl-chat": [
        {"prompt": [ASSISTANT], "chosen": [ASSISTANT], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [{"role": "assistant", "tool_calls": [{}]}], "rejected": [BAD]},
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [BAD], "tools": "{broken"},
    ],
    "trl-implicit": [{"chosen": [USER, ASSISTANT], "rejected": [BAD, BAD]}, {"chosen": "abc", "rejected": "xyz"}],
    "openai": [
        {"input": {}, "preferred_output": [ASSISTANT], "non_preferred_output": [BAD]},
        {"input": 5, "preferred_output": [ASSISTANT], "non_preferred_output": [BAD]},
        {"input": {"messages": [USER]}, "preferred_output": [USER], "non_preferred_output": [BAD]},
    ],
    "sharegpt": [
        {"conversations": [{"from": "alien", "value": "x"}], "chosen": {}, "rejected": {}},
        {"conversations": 5, "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
    ],
    "ranked": [
        {"context": [USER], "completions": [{"completion": [BAD]}]},
        {"context": [USER], "completions": 5},
        {"context": [USER], "completions": [{"rank": 0, "completion": [BAD]}]},
    ],
    "ultrafeedback": [
        EXAMPLES["ultrafeedback"] | {"score_chosen": 4.0},
        EXAMPLES["ultrafeedback"] | {"score_rejected": "x"},
        EXAMPLES["ultrafeedback"] | {"rejected": None},
    ],
    "hh-rlhf": [
        {"chosen": "\n\nHuman: q", "rejected": "\n\nHuman: q"},
        EXAMPLES["hh-rlhf"] | {"rejected": "\n\nHuman: z\n\nAssistant: b"},
    ],
    "argilla": [
        {"fields": {"a": "x"}, "responses": {}},
        EXAMPLES["argilla"] | {"responses": {}},
        EXAMPLES["argilla"] | {"responses": {"rank": [{"value": ["a", "zz"]}]}},
    ],
    "label-studio": [
        {"data": {}, "annotations": []},
        EXAMPLES["label-studio"] | {"annotations": []},
        EXAMPLES["label-studio"] | {"annotations": [5]},
    ],
    "unpaired": [
        {"prompt": "q", "completion": "x", "label": 5},
        {"prompt": "q", "completion": 5, "label": True},
        {"prompt": "q", "completion": "x", "label": True, "weight": -1},
    ],
    "groups": [{"prompt": "g", "candidates": [{"text": "a"}]}, {"prompt": 5, "candidates": [], "edges": []}],
}


@pytest.mark.parametrize("name", BROKEN)
def test_bad_rows_are_named_counted_and_kept(tmp_path: Path, name: str) -> None:
    rows = BROKEN[name]
    assert all(detect(row) == name for row in rows if isinstance(row, dict))
    found = read_preferences(write(tmp_path / "x.jsonl", "{broken", *rows, "[1]", "", EXAMPLES["trl"]))
    assert [n for n, _ in found.bad] == [1, *range(2, len(rows) + 3)] and all(why for _, why in found.bad)
    assert found.formats == {"trl": 1} and found.pairs == 1
    beside = set_aside(tmp_path / "x.jsonl", found.bad_rows)
    assert beside == tmp_path / "x.jsonl.bad.jsonl"
    kept = lines(beside)
    assert [row["line"] for row in kept] == [n for n, _ in found.bad]
    assert [row["row"] for row in kept] == ["{broken", *rows, "[1]"]
    assert (
        set_aside(tmp_path / "x.jsonl", read_preferences(write(tmp_path / "x.jsonl", EXAMPLES["trl"])).bad_rows) is None
    )


HOSTILE: list[Any] = [
    None,
    True,
    7,
    -1,
    0.0,
    1e308,
    10**30,
    -(10**400),
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800\0",
    "[{",
    [],
    [5],
    ["x"],
    [[0]],
    {},
    {"a": 1},
    [{"role": 5, "content": "x"}],
    [{"role": "user"}],
    json.loads("[" * 300 + "]" * 300),
]
RICH = PreferenceGroup(
    "q",
    (GroupCandidate("good", "1"), GroupCandidate("bad", "2", True)),
    (Edge(0, 1, 2.0, 0.8, "judge:m@1", calibrated=True, margin=0.5),),
    "s",
    "id",
    "family",
    "train",
    tuple(EARLIER),
    (TOOL,),
)
FULL = EXAMPLES | {
    "trl": EXAMPLES["trl"] | {"weight": 2, "p": 0.8, "source": "x", "margin": 1.0, "system": "s", "calibrated": True},
    "unpaired": {"prompt": "q", "completion": "good", "label": True, "weight": 2.0, "source": "x", "system": "s"},
    "groups": RICH.to_dict(),
}


def spoiled(value: Any) -> Iterator[Any]:
    """`value` with every part of it replaced by every hostile value, one at a time, or missing."""
    yield from HOSTILE
    if isinstance(value, dict):
        for key in value:
            yield {k: v for k, v in value.items() if k != key}
            yield from ({**value, key: other} for other in spoiled(value[key]))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in spoiled(value[i]))


@pytest.mark.parametrize("name", FULL)
def test_hostile_values_in_every_column_cost_their_row_alone(tmp_path: Path, name: str) -> None:
    good = {"prompt": "kept", "chosen": "a", "rejected": "b"}
    rows = list(spoiled(FULL[name]))
    file = write(tmp_path / "x.jsonl", *(json.dumps(row) for row in rows), good)
    found = read_preferences(file)
    assert "kept" in [g.prompt for g in found.groups]
    assert sum(found.formats.values()) + len(found.bad) == len(rows) + 1 and found.bad
    kept = lines(set_aside(file, found.bad_rows))  # type: ignore[arg-type]
    assert [row["line"] for row in kept] == [n for n, _ in found.bad] and all(row["reason"] for row in kept)
    mixed = mix({"x": found.groups}, Mixing(balance=("family", "source"), match_lengths=True))
    with open_store(tmp_path / "a.db") as store:
        for n, groups in enumerate((found.groups, mixed.groups)):
            keep_groups(store, groups, {"n": n}, dict)
            assert {g.id for g in newest_groups(store)} == {g.id for g in groups}
    named = read_preferences(write(tmp_path / "y.jsonl", *(json.dumps(row) for row in rows), FULL[name]), name)
    assert sum(named.formats.values()) + len(named.bad) == len(rows) + 1


def edge(**change: Any) -> dict[str, Any]:
    row = RICH.to_dict()
    return {**row, "edges": [{**row["edges"][0], **change}]}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (edge(margin="x"), "'edges[0].margin' is str, not float"),
        (edge(margin=float("nan")), "'edges[0].margin' is no finite number"),
        (edge(weight=float("inf")), "'edges[0].weight' is no finite number"),
        (edge(weight=1e300), "not a number of at most 1e+100"),
        (edge(winner=0.0), "'edges[0].winner' is float, not int"),
        (edge(winner=False), "'edges[0].winner' is bool, not int"),
        (edge(source=5), "'edges[0].source' is int, not str"),
        (RICH.to_dict() | {"family": ["x"]}, "'family' is list, not str"),
        (RICH.to_dict() | {"split": 7}, "'split' is int, not str"),
        (RICH.to_dict() | {"system": 5}, "'system' is int, not str"),
        (RICH.to_dict() | {"context": [5]}, "'context[0]' is int, not object"),
        (RICH.to_dict() | {"context": "abc"}, "'context' is str, not list"),
        (RICH.to_dict() | {"candidates": [{"text": 5}]}, "'candidates[0].text' is int, not str"),
        (EXAMPLES["trl"] | {"weight": int("9" * 401)}, "'weight' is '9999"),
        (EXAMPLES["trl"] | {"source": ["x"]}, "'source' is list, not a text"),
        (FULL["unpaired"] | {"weight": float("inf")}, "'weight' is 'inf', not a number"),
    ],
)
def test_values_of_the_wrong_kind_are_named(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    found = read_preferences(write(tmp_path / "x.jsonl", row, EXAMPLES["trl"]))
    assert found.formats == {"trl": 1}
    ((line, reason),) = found.bad
    assert line == 1 and why in reason


def test_an_edge_has_whole_places_and_finite_numbers() -> None:
    for wrong in (
        {"winner": 0.0},
        {"loser": True},
        {"weight": float("inf")},
        {"weight": float("nan")},
        {"weight": 10**400},
        {"margin": float("nan")},
        {"margin": -(10**400)},
        {"p": float("nan")},
    ):
        with pytest.raises(ValueError):
            Edge(**{"winner": 0, "loser": 1, **wrong})  # type: ignore[arg-type]


def test_a_format_that_is_named_is_the_one_that_is_used(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", EXAMPLES["ultrafeedback"])
    assert read_preferences(file, "trl").formats == {"trl": 1}
    with pytest.raises(DataError, match="'input' is missing"):
        read_preferences(file, "openai")


def test_broken_files_are_named(tmp_path: Path) -> None:
    cut = gzip.compress(b'{"prompt": "q", "chosen": "a", "rejected": "b"}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(cut[: len(cut) // 2])
    (tmp_path / "no.jsonl.gz").write_bytes(b"plain text")
    (tmp_path / "no.parquet").write_bytes(b"PAR1 not really")
    for name in ("cut.jsonl.gz", "no.jsonl.gz", "no.parquet"):
        with pytest.raises(DataError, match="make the file again"):
            read_preferences(tmp_path / name)
    (tmp_path / "ragged.csv").write_text('prompt,chosen,rejected\nq,a,b\nq,a\n"q\nx",c,d\nq,e,f,g\n')
    found = read_preferences(tmp_path / "ragged.csv")
    assert [n for n, _ in found.bad] == [3, 6] and found.pairs == 2
    (tmp_path / "array.json").write_text(json.dumps([EXAMPLES["trl"], 5, EXAMPLES["openai"]]))
    found = read_preferences(tmp_path / "array.json")
    assert found.bad == [(2, "not a JSON object but int")] and sum(found.formats.values()) == 2


def test_a_quoting_error_in_csv_costs_its_record_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('prompt,chosen,rejected\nq,a,b\n"r\nx","c"y,d\ns,e,f\n"t\nu",g\nv,h,i\nw,"j,k\nx,l,m\ny,n,o\n')
    found = read_preferences(file)
    assert [g.prompt for g in found.groups] == ["q", "s", "v"]
    assert [n for n, _ in found.bad] == [3, 6, 9] and "takes up 3 lines" in found.bad[2][1]
    kept = lines(set_aside(file, found.bad_rows))  # type: ignore[arg-type]
    assert [row["row"] for row in kept] == ['"r\nx","c"y,d', '"t\nu",g', 'w,"j,k\nx,l,m\ny,n,o']


SPOKEN = [
    '{"type": "move"}',
    '{"role": "user"}',
    '[{"function": "f"}]',
    '[{"role": "user", "n": 1}]',
    '{"from": "a"}',
    "[{",
    '{"from": "a", "value": "b", "c": 1}',
    "[]",
    "",
    " ",
    "1",
    "true",
    '"',
    ",",
    "a\nb",
    "a\r\nb",
    "\t",
]


@pytest.mark.parametrize("end", [".csv", ".tsv.gz", ".jsonl"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    texts=st.lists(st.sampled_from(SPOKEN) | words, min_size=2, max_size=2, unique_by=same_text),
    prompt=st.sampled_from([t for t in SPOKEN if t.strip()]) | words,
)
def test_texts_that_look_like_something_else_come_back(tmp_path: Path, end: str, texts: list[str], prompt: str) -> None:
    made = group_of(Asked("", "[]", prompt), map(GroupCandidate, texts), (Edge(0, 1),))
    write_preferences(tmp_path / f"x{end}", [made], "trl")
    (back,) = read_preferences(tmp_path / f"x{end}").groups
    assert [c.text for c in back.candidates] == texts and back.prompt == prompt


def test_what_csv_cannot_hold_is_refused(tmp_path: Path) -> None:
    for text, why in ((json.dumps([ASSISTANT]), "would come back as messages"), ("\ud800", "half a character")):
        made = group_of(Asked("", "[]", "q"), map(GroupCandidate, (text, "b")), (Edge(0, 1),))
        with pytest.raises(DataError, match=why):
            write_preferences(tmp_path / "x.csv", [made], "trl")
        assert not (tmp_path / "x.csv").exists()


def test_messages_in_csv_are_read(tmp_path: Path) -> None:
    made = group_of(Asked("s", json.dumps(EARLIER, sort_keys=True), "q"), map(GroupCandidate, "ab"), (Edge(0, 1),))
    for name in ("trl", "trl-chat", "sharegpt"):
        write_preferences(tmp_path / "x.csv", [made], name)
        found = read_preferences(tmp_path / "x.csv")
        assert not found.bad and meaning(found.groups[0]) == meaning(made)


def test_bad_rows_keep_their_text_and_their_file(tmp_path: Path) -> None:
    """In gzip, in a directory, in Parquet: the side file has the row, its number in its file, and the file's name."""
    good = json.dumps(EXAMPLES["trl"])
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(f"{{broken\n{good}\n".encode()))
    found = read_preferences(tmp_path / "x.jsonl.gz")
    assert lines(set_aside(tmp_path / "x.jsonl.gz", found.bad_rows))[0]["row"] == "{broken"  # type: ignore[arg-type]
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    write(folder / "a.jsonl", EXAMPLES["trl"], EXAMPLES["trl"])
    write(folder / "in" / "b.jsonl", EXAMPLES["trl"], "{broken")
    found = read_preferences(folder)
    (kept,) = lines(set_aside(folder, found.bad_rows))  # type: ignore[arg-type]
    assert (kept["file"], kept["line"], kept["row"]) == ("in/b.jsonl", 2, "{broken") and found.pairs == 3


def test_bytes_that_are_not_utf8_are_bad_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "ä", "rejected": "b"}, {"prompt": "r", "chosen": "ä", "rejected": "b"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    contents = {
        "x.jsonl": text,
        "x.json": f"[{text}]".replace("}\n{", "},\n{"),
        "x.csv": "prompt,chosen,rejected\nq,ä,b\nr,ä,b\n",
    }
    for name, content in contents.items():
        data = content.encode()
        at = data.rindex("ä".encode())
        (tmp_path / name).write_bytes(data[:at] + b"\xe4" + data[at + 2 :])
        found = read_preferences(tmp_path / name)
        assert [g.prompt for g in found.groups] == ["q"]
        assert found.bad == [(3 if name == "x.csv" else 2, "it has bytes that are not UTF-8")]
        assert "\\udce4" in set_aside(tmp_path / name, found.bad_rows).read_text()  # type: ignore[union-attr]


def test_parquet_with_values_that_are_no_json(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    when = datetime(2020, 1, 1)
    rows = [{**EXAMPLES["trl"], "made": when}, {"prompt": "q", "chosen": "a", "rejected": "a", "made": when}]
    for name in ("x.parquet", "X.PARQUET"):
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / name)
        found = read_preferences(tmp_path / name)
        assert found.pairs == 1 and [n for n, _ in found.bad] == [2]
        (kept,) = lines(set_aside(tmp_path / name, found.bad_rows))  # type: ignore[arg-type]
        assert kept["row"]["made"].startswith("2020-01-01")
    group = RICH.to_dict() | {"tools": [{"made": when}]}
    pyarrow.parquet.write_table(pa.Table.from_pylist([group]), tmp_path / "g.parquet")
    with pytest.raises(DataError, match=r"line 1: .*datetime"):
        read_preferences(tmp_path / "g.parquet")


def test_a_broken_list_of_splits_is_named(tmp_path: Path) -> None:
    for content in (b"{", b"[]", b"{}", b"\xff"):
        (tmp_path / "dataset_dict.json").write_bytes(content)
        with pytest.raises(DataError, match=r"dataset_dict.json is damaged"):
            read_preferences(tmp_path)


# ---- the verbs


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


def test_every_format_becomes_every_other(tmp_path: Path) -> None:
    for name in EXAMPLES:
        groups = read_preferences(write(tmp_path / "in.jsonl", EXAMPLES[name])).groups
        for to in FORMATS:
            assert write_preferences(tmp_path / "out.jsonl", groups, to).rows >= 1, (name, to)
            assert read_preferences(tmp_path / "out.jsonl").groups[0].prompt == "q"


def test_import_and_export_of_every_format(inside: Path) -> None:
    others = list(FORMATS)
    for place, name in enumerate(EXAMPLES):
        write(inside / "in.jsonl", EXAMPLES[name], "{broken")
        ran = hafs("preferences", "import", "in.jsonl", "--json").ok()
        assert ran.json == {**ran.json, "groups": 1, "formats": {name: 1}, "bad": 1, "bad_rows": "in.jsonl.bad.jsonl"}
        assert "in.jsonl:2: skipped" in ran.err and len(lines(inside / "in.jsonl.bad.jsonl")) == 1
        for to in (others[place], others[-1 - place]):
            out = hafs("preferences", "export", f"{to}.jsonl", "--format", to, "--json").ok()
            assert out.json["rows"] >= 1, (name, to)
            assert read_preferences(inside / f"{to}.jsonl").groups[0].prompt == "q"
    assert {path.stem for path in inside.glob("*.jsonl")} >= set(FORMATS)
    text = hafs("preferences", "export", "x.jsonl", "--format", "openai", "--input", "argilla.jsonl").ok()
    assert "cannot hold: sources" in text.err or "cannot hold: annotators" in text.err or text.err == ""
    hafs("preferences", "export", "x.jsonl", "--format", "nonsense").failed(2, "no format 'nonsense'")


def test_training_reads_every_format(inside: Path, tiny_model: Path) -> None:
    write(inside / "mixed.jsonl", *(row for row in EXAMPLES.values()))
    found = read_preferences(inside / "mixed.jsonl")
    assert set(found.formats) == set(EXAMPLES)
    ran = hafs(
        "train",
        "dpo",
        "--sft_model",
        tiny_model,
        "--preference_data",
        "mixed.jsonl",
        "--output_dir",
        "dpo",
        "--dry-run",
        "--json",
    ).ok()
    assert 0 < ran.json["prompts"] <= len(found.groups)
    write(inside / "mixed.jsonl", EXAMPLES["openai"], {"prompt": "q"})
    ran = hafs(
        "train",
        "dpo",
        "--sft_model",
        tiny_model,
        "--preference_data",
        "mixed.jsonl",
        "--output_dir",
        "dpo",
        "--dry-run",
    )
    assert "mixed.jsonl:2: skipped" in ran.err and (inside / "mixed.jsonl.bad.jsonl").is_file()


def test_turns_and_tools_reach_the_model(tiny_model: Path) -> None:
    from hafs.models.chat import encode_prompt
    from hafs.models.loading import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    plain, more = encode_prompt(tokenizer, "q"), encode_prompt(tokenizer, "q", "", EARLIER)
    assert "first" in tokenizer.decode(more) and "yes" in tokenizer.decode(more) and len(more) > len(plain)


def test_pairs_are_the_rows_that_they_were() -> None:
    group = PreferenceGroup("p", tuple(map(GroupCandidate, "ab")), (Edge(0, 1, margin=2.0),), tools=(TOOL,))
    (row,) = to_pairs(group)
    assert row == {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "weight": 1.0,
        "source": "",
        "margin": 2.0,
        "tools": [TOOL],
    }
