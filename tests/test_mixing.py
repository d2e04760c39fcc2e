"""Mixing preferences of several sources, and what is said of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hafs.errors import UsageError
from hafs.files.jsonl import write_jsonl
from hafs.preferences import Mixing, Stats, mix, read_preferences
from hafs.preferences.collect import keep_groups, newest_groups, newest_stats
from hafs.preferences.mix import kind_of
from hafs.store import open_store
from hafs.types import Edge, GroupCandidate, PreferenceGroup
from run_hafs import hafs, workspace


def group(
    prompt: str, texts: str, *edges: tuple[int, int], family: str = "", margin: float | None = None, **more: object
):  # type: ignore[no-untyped-def]
    made = tuple(Edge(a, b, margin=margin, **more) for a, b in edges)  # type: ignore[arg-type]
    return PreferenceGroup(prompt, tuple(map(GroupCandidate, texts.split())), made, family=family)


AUTO = [
    group("p", "a b c", (0, 1), (0, 2), (1, 2), source="asm@1"),
    group("q", "x y", (0, 1), source="asm@1", family="f"),
]
JUDGE = [group("p", "b a", (0, 1), source="judge:m@1"), group("q", "x y", (0, 1), source="judge:m@1")]
HUMAN = [group("p", "a b", (0, 1)), group("r", "u v", (0, 1), source="human:ann")]
FILES = {"auto": AUTO, "llm": JUDGE, "human": HUMAN}


def edges_of(groups: list[PreferenceGroup]) -> Counter[tuple[str, str, str, str, float]]:
    return Counter((g.prompt, a, b, e.source, e.weight) for g in groups for a, b, e in g.pairs())


def test_every_edge_keeps_its_source_and_a_prompt_has_one_group() -> None:
    mixed = mix(FILES)
    assert [g.prompt for g in mixed.groups] == ["p", "q", "r"]
    assert edges_of(mixed.groups) == Counter(
        [
            ("p", "a", "b", "asm@1", 1.0),
            ("p", "a", "c", "asm@1", 1.0),
            ("p", "b", "c", "asm@1", 1.0),
            ("p", "b", "a", "judge:m@1", 1.0),
            ("p", "a", "b", "human", 1.0),
            ("q", "x", "y", "asm@1", 1.0),
            ("q", "x", "y", "judge:m@1", 1.0),
            ("r", "u", "v", "human:ann", 1.0),
        ]
    )
    assert mixed.groups[1].family == "f"


def test_weights_multiply_and_duplicates_repeat() -> None:
    weighed, repeated = (
        mix(FILES, Mixing(weights={"human": 5})),
        mix(FILES, Mixing(weights={"human": 5}, duplicate=True)),
    )
    for mixed in (weighed, repeated):
        assert mixed.weights == {"asm": 4.0, "judge": 2.0, "human": 10.0}
    assert weighed.edges == 8 and repeated.edges == 16
    assert edges_of(weighed.groups)["r", "u", "v", "human:ann", 5.0] == 1
    assert edges_of(repeated.groups)["r", "u", "v", "human:ann", 1.0] == 5
    with pytest.raises(UsageError, match="no edge is of the source 'people'"):
        mix(FILES, Mixing(weights={"people": 5}))
    for wrong in (
        {"weights": {"human": 0}},
        {"weights": {"human": 1.5}, "duplicate": True},
        {"balance": ("colour",)},
        {"conflicts": "fight"},
        {"max_length_ratio": 0.5},
    ):
        with pytest.raises(UsageError):
            Mixing(**wrong)  # type: ignore[arg-type]


def test_repetitions_count_once() -> None:
    mixed = mix({"auto": [*AUTO, *AUTO], "again": AUTO})
    assert edges_of(mixed.groups) == edges_of(mix({"auto": AUTO}).groups)
    assert mixed.left_out["said before"] == 8


def test_people_against_the_judge() -> None:
    mixed = mix(FILES)
    rows = {tuple(row["between"]): row for row in mixed.conflicts}
    assert {k: (r["compared"], r["agree"]) for k, r in rows.items()} == {
        ("asm", "human"): (1, 1),
        ("asm", "judge"): (2, 1),
        ("human", "judge"): (1, 0),
    }
    assert rows["human", "judge"]["examples"] == [{"prompt": "p", "human": "a", "judge": "b"}]
    people = mix(FILES, Mixing(conflicts="people"))
    assert (
        people.left_out["in conflict with people"] == 1
        and edges_of(people.groups)["p", "b", "a", "judge:m@1", 1.0] == 0
    )
    dropped = mix(FILES, Mixing(conflicts="drop"))
    assert not [e for e in edges_of(dropped.groups) if e[0] == "p" and {e[1], e[2]} == {"a", "b"}]


def test_margins_lengths_and_limits() -> None:
    files = {
        "auto": [
            group("p", "a b", (0, 1), margin=0.1),
            group("q", "aaaa b", (0, 1), margin=0.9),
            group("r", "a b c d", (0, 1), (0, 2), (0, 3), margin=0.5),
        ]
    }
    assert {g.prompt for g in mix(files, Mixing(min_margin=0.3)).groups} == {"q", "r"}
    assert {g.prompt for g in mix(files, Mixing(max_length_ratio=2)).groups} == {"p", "r"}
    limited = mix(files, Mixing(per_prompt=2))
    assert {g.prompt: len(g.edges) for g in limited.groups} == {"p": 1, "q": 1, "r": 2}
    assert limited.left_out["above the limit of a prompt"] == 1


lengths = st.lists(
    st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from("fg"), st.sampled_from(["asm@1", "human"])),
    min_size=1,
    max_size=20,
)


@given(lengths)
def test_balance_gives_equal_weight_and_matching_no_bonus_to_length(rows: list[tuple[int, int, str, str]]) -> None:
    files = {
        "x": [group(f"p{i}", f"{'a' * n} {'b' * m}", (0, 1), family=f, source=s) for i, (n, m, f, s) in enumerate(rows)]
    }
    for part in ("family", "source"):
        mixed = mix(files, Mixing(balance=(part,)))
        totals: Counter[str] = Counter()
        for g in mixed.groups:
            totals[g.family if part == "family" else kind_of(g.edges[0].source)] += g.edges[0].weight  # type: ignore[assignment]
        assert sum(totals.values()) == pytest.approx(len(rows))
        counts = Counter(r[2] if part == "family" else kind_of(r[3]) for r in rows)
        if max(counts.values()) <= 5 * min(counts.values()):
            assert max(totals.values()) == pytest.approx(min(totals.values()))
    matched = mix(files, Mixing(match_lengths=True)) if len(rows) else None
    assert matched is not None
    gap = sum(e.weight * ((len(a) > len(b)) - (len(a) < len(b))) for g in matched.groups for a, b, e in g.pairs())
    assert gap == pytest.approx(0)


@given(lengths, st.integers(2, 5), st.booleans())
def test_matched_lengths_stay_matched_when_sources_have_weights(
    rows: list[tuple[int, int, str, str]], weight: int, duplicate: bool
) -> None:
    groups = [group(f"p{i}", f"{'a' * n} {'b' * m}", (0, 1), source=s) for i, (n, m, _, s) in enumerate(rows)]
    human = {"human": weight} if any(s == "human" for *_, s in rows) else {}
    how = Mixing(match_lengths=True, weights=human, duplicate=duplicate, balance=("source",))
    pairs = [pair for g in mix({"x": groups}, how).groups for pair in g.pairs()]
    assert sum(e.weight * ((len(a) > len(b)) - (len(a) < len(b))) for a, b, e in pairs) == pytest.approx(0)


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 4), st.sampled_from(["", "f", "g"])), min_size=1),
    st.permutations("xyz"),
    st.sampled_from([("family",), ("source",), ("family", "source")]),
)
def test_the_order_of_the_files_does_not_matter(
    rows: list[tuple[str, int, str]], order: list[str], balance: tuple[str, ...]
) -> None:
    files = {
        name: [group(f"p{i}", "a b", (0, 1), family=f, source=f"{name}@1") for file, i, f in rows if file == name]
        for name in "xyz"
    }

    def said(names: Iterable[str]) -> dict[tuple[str, str, str], Any]:
        mixed = mix({name: files[name] for name in names}, Mixing(balance=balance))
        return {(g.prompt, g.family, e.source): pytest.approx(e.weight) for g in mixed.groups for e in g.edges}

    assert said(order) == said("xyz")


def test_a_family_that_a_later_file_names_is_balanced() -> None:
    one = [group(f"p{i}", "a b", (0, 1), source="asm@1") for i in range(4)]
    two = [group(f"p{i}", "c d", (0, 1), source="human", family="f" if i else "g") for i in range(4)]
    for files in ({"one": one, "two": two}, {"two": two, "one": one}):
        totals: Counter[str] = Counter()
        for g in mix(files, Mixing(balance=("family",))).groups:
            totals[g.family] += sum(e.weight for e in g.edges)  # type: ignore[assignment]
        assert totals == {"f": pytest.approx(4), "g": pytest.approx(4)}


def test_statistics_survive_the_store_and_are_those_of_the_groups(tmp_path: Path) -> None:
    mixed = mix(FILES, Mixing(weights={"human": 5})).groups
    stats = Stats()
    for g in mixed:
        stats.add(g)
    assert (stats.groups, stats.edges, stats.kinds()["human"]) == (3, 8, {"edges": 2, "weight": 10.0})
    assert Stats.from_dict(json.loads(json.dumps(stats.to_dict()))) == stats
    with open_store(tmp_path / "hafs.db") as store:
        kept = keep_groups(store, iter(mixed), {}, dict)
        assert newest_stats(store) == stats and len(kept) == 3
        assert {g.id for g in kept} == {g.id for g in mixed} == {g.id for g in newest_groups(store)}
        keep_groups(store, iter(AUTO), {}, dict)
        assert newest_stats(store).groups == 2 and len(newest_groups(store)) == 2


# ---- the verbs


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    monkeypatch.chdir(workspace(tmp_path))
    for name, groups in FILES.items():
        write_jsonl(tmp_path / f"preferences_{name}.jsonl", groups)
    return tmp_path


NAMES = [f"preferences_{name}.jsonl" for name in FILES]


def test_combine_as_the_guide_does(inside: Path) -> None:
    ran = hafs("preferences", "combine", *NAMES, "--weight", "human=5", "--output", "mixed.jsonl", "--json").ok()
    assert ran.json["weights"] == {"asm": 4.0, "judge": 2.0, "human": 10.0} and ran.json["groups"] == 3
    found = read_preferences(inside / "mixed.jsonl").groups
    assert edges_of(found)["p", "a", "b", "human", 5.0] == 1
    twice = hafs("preferences", "combine", *NAMES, "--weight", "human=5", "--duplicate", "--output", "rows.jsonl").ok()
    assert "written as trl" in twice.err and "agree on 0 of 1" in twice.out
    again = read_preferences(inside / "rows.jsonl")
    assert again.pairs == 16 and again.repeated == 11
    hafs("preferences", "combine", *NAMES, "--weight", "human", "--output", "x.jsonl").failed(2, "SOURCE=NUMBER")
    hafs("preferences", "combine", NAMES[0], NAMES[0], "--output", "x.jsonl").failed(2, "one name")
    hafs("preferences", "combine", NAMES[0], "--output", "x.jsonl", "--max-length-ratio", "1", "--min-margin", "1").ok()


def test_groups_that_a_format_cannot_hold_are_named_and_not_counted(inside: Path) -> None:
    circle = group("z", "a b", (0, 1), (1, 0), source="asm@1")
    write_jsonl(inside / "circle.jsonl", [circle, *HUMAN])
    what = ["preferences", "combine", "circle.jsonl", "--format", "ranked", "--output", "x.jsonl"]
    why = "its edges run in a circle, which no ranking can say"
    ran = hafs(*what, "--json").ok()
    assert f"left out: 1 groups, {why}" in ran.err
    assert ran.json["left_out_groups"] == {why: 1}
    assert (ran.json["rows"], ran.json["groups"], ran.json["edges"]) == (2, 2, 2)
    assert "2 rows of ranked in x.jsonl, of 2 groups with 2 edges" in hafs(*what).ok().out
    ran = hafs("preferences", "export", "y.jsonl", "--input", "circle.jsonl", "--format", "ranked", "--json").ok()
    assert f"left out: 1 groups, {why}" in ran.err and ran.json["left_out"] == {why: 1} and ran.json["rows"] == 2


def test_statistics_of_files_and_of_the_workspace(inside: Path) -> None:
    assert hafs("preferences", "stats", NAMES[0], "--json").ok().json["edges"] == 4
    hafs("preferences", "import", NAMES[1]).ok()
    assert hafs("preferences", "stats", "--json", "--output", "s.svg").ok().json["sources"] == {
        "judge:m@1": {"edges": 2, "weight": 2.0}
    }
    assert (inside / "s.svg").read_text().startswith("<svg")
    hafs("preferences", "stats", "--output", "s.html").ok()
    page = Path("s.html").read_text()
    assert "<title>Preferences" in page and "Weight by source" in page and "prefers-color-scheme" in page
    assert "judge" in (inside / "s.html").read_text()
    hafs("preferences", "stats", "--output", "s.gif").failed(2, "neither .svg nor .html")


def test_a_score_is_explained(inside: Path) -> None:
    write_jsonl(inside / "p.jsonl", [{"text": "Say hello."}])
    hafs("data", "import", "prompts", "p.jsonl").ok()
    hafs("data", "export", "prompts", "out.jsonl").ok()
    id = json.loads((inside / "out.jsonl").read_text())["id"]
    write_jsonl(inside / "c.jsonl", [{"prompt_id": id, "text": "Hello to you all."}])
    hafs("data", "import", "candidates", "c.jsonl").ok()
    spec = "text:min_words=2*0.7+text:regex=^Bye*0.3"
    assert hafs("score", "--scorer", spec, "--json").ok().json["scored"] == 1
    hafs("data", "export", "candidates", "made.jsonl").ok()
    candidate = json.loads((inside / "made.jsonl").read_text())["id"]
    text = hafs("score", "explain", candidate[:8]).ok().out
    for words in ("Say hello.", "Hello to you all.", "wrong", "text:regex=^Bye: pattern not found", "weight: 0.7"):
        assert words in text, text
    ran = hafs("score", "explain", candidate, "--json").ok()
    assert len(ran.json["scores"][0]["details"]["parts"]) == 2
    hafs("score", "explain", "nothing").failed(2, "no candidate begins with 'nothing'")
