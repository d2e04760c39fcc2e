"""Tasks without tools: what is generated, how it is split and balanced, and that a row is plain, complete data."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hafs import registry
from hafs.data import read_prompts
from hafs.errors import DataError, UsageError
from hafs.files.jsonl import write_jsonl
from hafs.tasks import BENCHMARKS, SPLITS, benchmark, generate, split_of
from hafs.types import Prompt
from hafs_snes.scorer.check import parse_check
from hafs_snes.tasks import CONVENTION, asm, rom_hack, with_convention
from hafs_snes.tasks.dsl import FAMILIES, HELD_OUT, AsmCase, AsmFamily, Draw, Hex, Memory, h2, h4, listing
from hafs_snes.tasks.game import GAMES, size_of

ALL = [f for pack in FAMILIES.values() for f in pack.values()]
EASY = [f for f in ALL if "easy" in f.tags]


def skeleton(prompt: Prompt) -> str:
    """What is left of a text when label, numbers and names of things are taken out: its phrasing."""
    text = prompt.text.replace(str(prompt.check["entry"]) or "\0", "@")
    text = re.sub(r"\$[0-9A-F]+|%[01]+|0x[0-9a-f]+|\b\d+\b", "#", text)
    return prompt.family + "|" + text.lower()


def small(pack: str, split: str, n: int, seed: int = 0) -> list[Prompt]:
    return generate(pack, split, n, seed)


# -- splits ---------------------------------------------------------------------------------------------------------


def test_split_of_is_the_same_forever() -> None:
    known = {"add": "test", "clear": "test", "sub": "validation", "neg": "train", "mul": "train", "": "train"}
    assert {text: split_of(text) for text in known} == known


def test_split_of_gives_eighty_ten_ten() -> None:
    counts = Counter(split_of(f"prompt {i}") for i in range(20000))
    assert abs(counts["train"] / 20000 - 0.8) < 0.01
    assert abs(counts["validation"] / 20000 - 0.1) < 0.01


@pytest.mark.parametrize("pack", ["asm", "rom_hack"])
def test_splits_share_no_text_and_no_phrasing(pack: str) -> None:
    rows = {split: small(pack, split, 400 if split == "train" else 150, seed=3) for split in SPLITS}
    for split, prompts in rows.items():
        assert all(p.split == split == split_of(p.text) for p in prompts)
        assert all((HELD_OUT in p.tags) == (split == "test") for p in prompts)
    test = {skeleton(p) for p in rows["test"]}
    assert test.isdisjoint(skeleton(p) for p in rows["train"] + rows["validation"])


@pytest.mark.parametrize("pack", ["asm", "rom_hack"])
def test_no_test_task_is_a_train_task_in_other_words(pack: str) -> None:
    train = {r.text for p in small(pack, "train", 1500, seed=5) if p.check["kind"] != "value" for r in p.references}
    test = [p for p in small(pack, "test", 150, seed=5) if p.check["kind"] != "value"]
    same = [p.family for p in test if p.references[0].text in train]
    assert len(same) <= len(test) // 50, Counter(same)


@pytest.mark.parametrize("f", ALL, ids=lambda f: f"{f.pack}-{f.name}")
def test_a_family_has_phrasings_of_its_own_for_the_test_split(f: AsmFamily) -> None:
    for seed in range(3):
        draft = f.make(Draw(f"phrasings {seed}"))
        assert len(draft.ask) >= 3
        assert len(draft.ask_test) >= 1
        texts = [*draft.ask, *draft.ask_test]
        assert len(set(texts)) == len(texts)
        assert all(text == text.strip() and "{" not in text for text in texts)


# -- generating ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", ["asm", "rom_hack"])
@pytest.mark.parametrize("split", SPLITS)
def test_generating_repeats_and_a_longer_call_begins_with_a_shorter_one(pack: str, split: str) -> None:
    long = small(pack, split, 60, seed=7)
    assert small(pack, split, 60, seed=7) == long
    assert small(pack, split, 25, seed=7) == long[:25]
    assert {p.id for p in small(pack, split, 60, seed=8)} != {p.id for p in long}


def test_generated_prompts_are_unique() -> None:
    prompts = small("asm", "train", 1500)
    assert len({p.text for p in prompts}) == 1500


@pytest.mark.parametrize(("pack", "n"), [("asm", 200), ("rom_hack", 100)])
def test_categories_have_their_shares_in_every_prefix(pack: str, n: int) -> None:
    loaded = registry.load("tasks", pack)
    prompts = small(pack, "train", n)
    for length in (n // 4, n // 2, n):
        counts = Counter(p.category for p in prompts[:length])
        assert set(counts) == set(loaded.shares)
        for category, share in loaded.shares.items():
            assert abs(counts[category] - length * share / 100) <= 2, (category, length)


def test_a_choice_of_families_is_balanced() -> None:
    prompts = generate("asm", "train", 30, families=["add16", "sub16", "neg16"])
    assert Counter(p.family for p in prompts) == {"add16": 10, "sub16": 10, "neg16": 10}


def test_tags_choose_families() -> None:
    prompts = generate("asm", "train", 50, tags=["easy"])
    assert {p.family for p in prompts} == {f.name for f in EASY}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate("nes", "train", 1), "no task named 'nes'"),
        (lambda: generate("asm", "dev", 1), "no split 'dev'"),
        (lambda: generate("asm", "train", 1, families=["mul99"]), "no family 'mul99'"),
        (lambda: generate("asm", "train", 1, tags=["hard"]), "has the tags hard"),
        (lambda: benchmark("gsm8k"), "no benchmark 'gsm8k'"),
    ],
)
def test_a_wrong_name_is_named(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()  # type: ignore[operator]


def test_too_many_prompts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hafs.tasks.pack.TRIES", 40)
    one = AsmFamily("one", "asm", "basic operations", lambda d: FAMILIES["asm"]["add16"].make(Draw("always the same")))
    pack = type(asm)("asm", {"one": one}, asm.shares)
    with pytest.raises(UsageError, match="has only"):
        pack.generate("train", 500)


# -- benchmarks ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def benchmarks() -> dict[str, list[Prompt]]:
    return {name: benchmark(name) for name in BENCHMARKS}


def test_benchmarks_are_held_out_and_large_enough(benchmarks: dict[str, list[Prompt]]) -> None:
    assert {name: len(prompts) for name, prompts in benchmarks.items()} == {
        "asm": 320,
        "rom_hack": 120,
        "python": 200,
        "easy": 320,
        "demo": 192,
    }
    for prompts in benchmarks.values():
        assert len({p.id for p in prompts}) == len(prompts)
        assert all(p.split == "test" and HELD_OUT in p.tags for p in prompts)


@pytest.mark.parametrize("pack", [asm, rom_hack], ids=lambda p: p.name)
def test_a_benchmark_has_every_family_and_the_guides_shares(benchmarks: dict[str, list[Prompt]], pack) -> None:  # type: ignore[no-untyped-def]
    prompts = benchmarks[pack.name]
    assert {p.family for p in prompts} == set(pack.families)
    for category, share in pack.shares.items():
        n = sum(p.category == category for p in prompts)
        assert abs(n - len(prompts) * share / 100) <= 2


def test_the_demo_asks_easy_things_only(benchmarks: dict[str, list[Prompt]]) -> None:
    counts = Counter(p.family for p in benchmarks["demo"])
    assert set(counts) == {f.name for f in EASY}
    assert min(counts.values()) >= 4


def test_easy_tasks_fit_a_small_model() -> None:
    for p in generate("asm", "train", 130, tags=["easy"]):
        assert p.system == ""
        assert "\n" not in p.text
        assert len(p.text.split()) <= 40
        assert len(p.references) == 2
        assert all(len(r.text.split("\n")) <= 14 for r in p.references)


def test_there_are_enough_families() -> None:
    assert len(asm.families) >= 50
    assert len(rom_hack.families) >= 20
    assert len(EASY) in range(12, 16)


# -- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("f", ALL, ids=lambda f: f"{f.pack}-{f.name}")
def test_a_row_is_plain_data_that_the_scorer_accepts(f: AsmFamily) -> None:
    draft = f.make(Draw("row"))
    made = f.prompt(draft, draft.ask[0], "train", "phrasing 0")
    again = Prompt.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again == made
    assert again.id == made.id
    check = parse_check(made.check)
    assert check.kind in CONVENTION
    assert made.references
    assert made.checker == "asm"
    assert made.source == f.pack


@pytest.mark.parametrize("f", ALL, ids=lambda f: f"{f.pack}-{f.name}")
def test_a_routines_text_names_its_label(f: AsmFamily) -> None:
    for prompt in generate(f.pack, "train", 3, seed=11, families=[f.name]):
        assert str(prompt.check["entry"]) in prompt.text
        assert not re.search(r"\{|\}|None", prompt.text)


def test_vectors_differ_and_change_something() -> None:
    for f in ALL:
        draft = f.make(Draw("vectors"))
        check = draft.check()
        inputs = {json.dumps([v["registers"], v["memory"], v["pad"]]) for v in check["vectors"]}
        assert len(inputs) == len(check["vectors"]), f.name
        if check["kind"] == "routine":
            assert len(check["vectors"]) >= 3, f.name
        assert any(any(v["after"].values()) for v in check["vectors"]), f.name


def test_the_oracle_may_read_declared_memory_only() -> None:
    memory = Memory(AsmCase({0x1234: b"\x01\x02\x03"}, {"A": 7}))
    assert memory[0x1234] == 1
    assert memory.word(0x1234) == 0x0201
    assert memory.long(0x1234) == 0x030201
    assert memory.span(0x1235, 2) == b"\x02\x03"
    assert memory.registers["A"] == 7
    with pytest.raises(KeyError):
        memory.span(0x1234, 4)


def test_a_convention_is_added_on_request() -> None:
    for pack in ("asm", "rom_hack"):
        for prompt in small(pack, "train", 20):
            told = with_convention(prompt)
            assert told.system and not prompt.system
            assert (told.text, told.check) == (prompt.text, prompt.check)
            assert "{" not in told.system
    far = generate("asm", "train", 1, families=["any_width"])[0]
    assert "Return with RTL" in with_convention(far).system


# -- files -----------------------------------------------------------------------------------------------------------


def test_tasks_survive_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    prompts = small("rom_hack", "validation", 30)
    assert write_jsonl(tmp_path / "t.jsonl", prompts) == 30
    loaded = read_prompts(tmp_path / "t.jsonl")
    assert loaded.rows == prompts
    assert loaded.bad == []


def test_bad_lines_are_named_and_the_rest_is_kept(tmp_path) -> None:  # type: ignore[no-untyped-def]
    good = json.dumps(small("asm", "train", 1)[0].to_dict())
    lines = [
        good,
        "{not json",
        json.dumps({"family": "x"}),
        json.dumps({"text": " "}),
        json.dumps({"text": "a", "q": 1}),
    ]
    (tmp_path / "t.jsonl").write_text("\n".join([*lines, json.dumps({"text": "hand-written"})]))
    loaded = read_prompts(tmp_path / "t.jsonl")
    assert [p.text for p in loaded.rows][1:] == ["a", "hand-written"]
    assert [number for number, _ in loaded.bad] == [2, 3, 4]
    assert "no column is known as the prompt: the columns are family" in dict(loaded.bad)[3]
    assert loaded.notes[-1].endswith("columns that are not used: q")


def test_a_missing_or_empty_file_is_an_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="no file"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="empty"):
        read_prompts(tmp_path / "empty.jsonl")


# -- the language of families ------------------------------------------------------------------------------------------


@given(st.integers(0, 0xFFFFFF), st.integers(1, 6), st.integers(-300, 300))
def test_a_hex_number_keeps_its_digits(value: int, digits: int, step: int) -> None:
    x = Hex(value, digits)
    assert str(x) == f"{x}" == f"${value % 16**digits:0{digits}X}"
    assert str(x + step) == f"${(value + step) % 16**digits:0{digits}X}"
    assert int(x - step) == (value % 16**digits - step) % 16**digits
    assert f"{x:d}" == str(int(x))


@given(st.integers(0, 0xFFFF))
def test_parts_of_a_word(value: int) -> None:
    x = h4(value)
    assert (str(x.low), str(x.high)) == (f"${value & 255:02X}", f"${value >> 8:02X}")
    assert x.long == f"$7E{value:04X}"
    assert h2(value).wide == f"$00{value & 255:02X}"


@settings(max_examples=50)
@given(st.integers(1, 6), st.integers(1, 8), st.text(max_size=8))
def test_drawn_areas_do_not_overlap(k: int, size: int, seed: str) -> None:
    areas = sorted(Draw(seed).addresses(k, size))
    assert all(b - a >= size for a, b in pairwise(areas))
    assert all(a >= 0x200 and a + size <= 0x1E00 for a in areas)


def test_edges_come_first() -> None:
    values = Draw("x").edges8(300, -1, n=12)
    assert values[:2] == [44, 255]
    assert len(values) == 12
    assert set(range(3)) <= set(values)


def test_a_listing_has_a_line_for_each_instruction() -> None:
    assert listing("LDA $10 / .loop / RTS", "Go") == "Go:\nLDA $10\n.loop\nRTS"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("RTS", 1),
        ("LDA #$12", 2),
        ("LDA #$1234", 3),
        ("STA $12", 2),
        ("LDA $1234,X", 3),
        ("LDA $7E1234", 4),
        ("BCC .x", 2),
        ("JSR .x", 3),
        ("JSL $108000", 4),
        ("REP #$20", 2),
        (".x", 0),
        ("ASL", 1),
        ("INC", 1),
        ("TAX", 1),
        ("INC $0E20", 3),
        ("db $01,$02,$03", 3),
        ("dw $0001,$0002", 4),
        ("LDA [$00],Y", 2),
        ("JMP ($8000,X)", 3),
        ("LDA .t,X", 3),
        ("PHA", 1),
    ],
)
def test_instruction_sizes(line: str, size: int) -> None:
    assert size_of(line) == size


@pytest.mark.parametrize("make", GAMES)
def test_a_games_site_leaves_room_for_a_long_jump(make) -> None:  # type: ignore[no-untyped-def]
    g = make(Draw("site"))
    assert sum(map(size_of, g.site)) >= 4
    assert sum(map(size_of, g.opening)) >= 4
    lines = list(g.vanilla.lines)
    at = lines.index(g.site[0])
    assert tuple(lines[at : at + len(g.site)]) == g.site
    assert g.vanilla.end - g.vanilla.start == sum(map(size_of, lines))
