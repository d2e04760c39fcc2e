"""Data as people have it: each kind of file, encoding, shape and column, with what comes of it and what is said."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafs.data import Loaded, parse_columns, read_examples, read_prompts, set_aside
from hafs.data.columns import ASKING, ROLES, Columns
from hafs.data.remarks import of_groups, of_prompts, remarks
from hafs.errors import DataError, HafsError, UsageError
from hafs.preferences import Preferences, read_preferences
from hafs.types import CandidateLabel, PreferenceGroup
from run_hafs import hafs, workspace

PAIRS = [{"prompt": f"What is {i}+{i}?", "chosen": str(2 * i), "rejected": str(2 * i + 1)} for i in range(1, 9)]
CALL = {"type": "function", "function": {"name": "rand", "arguments": {"lo": 1, "hi": 6}}}
FAUST = [{"role": "user", "content": "Who wrote Faust?"}, {"role": "assistant", "content": "Goethe."}]


def put(path: Path, *rows: object) -> Path:
    """JSON lines; a string is a line as it is."""
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def texts(found: Preferences) -> list[tuple[str, str, str]]:
    """(prompt, better, worse) of every edge."""
    return [(g.prompt, a, b) for g in found.groups for a, b, _ in g.pairs()]


def pairs_of(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(r["prompt"], r["chosen"], r["rejected"]) for r in rows]


# ---- what holds the rows

JSONL = "".join(json.dumps(r) + "\n" for r in PAIRS)
CSV = "prompt,chosen,rejected\n" + "".join(f"{r['prompt']},{r['chosen']},{r['rejected']}\n" for r in PAIRS)
TABLE = pa.Table.from_pylist(PAIRS)


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)  # type: ignore[no-any-return]


TEXTS: dict[str, tuple[str, bytes, str]] = {
    "lines": ("x.jsonl", JSONL.encode(), ""),
    "a mark": ("x.jsonl", JSONL.encode("utf-8-sig"), "byte order mark"),
    "CR LF": ("x.jsonl", JSONL.replace("\n", "\r\n").encode(), "lines end in CR LF"),
    "CR": ("x.jsonl", JSONL.replace("\n", "\r").encode(), "lines end in CR"),
    "UTF-16 by its mark": ("x.jsonl", JSONL.replace("\n", "\r\n").encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": ("x.jsonl", JSONL.encode("utf-16-be"), "UTF-16 without a mark"),
    "UTF-32": ("x.jsonl", JSONL.encode("utf-32"), "UTF-32"),
    "no end": ("x", JSONL.encode(), ""),
    "an array": ("x.json", json.dumps(PAIRS, indent=1).encode(), ""),
    "an array called lines": ("x.jsonl", json.dumps(PAIRS).encode(), ""),
    "an array with a last comma": ("x.json", json.dumps(PAIRS)[:-1].encode() + b",\n]", "comma after the last row"),
    "rows in an object": ("x.json", json.dumps({"version": 1, "data": PAIRS}).encode(), "the rows are those of 'data'"),
    "objects over lines": ("x.json", "\n".join(json.dumps(r, indent=2) for r in PAIRS).encode(), ""),
    "commas": ("x.csv", CSV.encode(), ""),
    "semicolons": ("x.csv", CSV.replace(",", ";").encode("utf-8-sig"), "columns between semicolons"),
    "bars": ("x.csv", CSV.replace(",", "|").encode(), "columns between bars"),
    "tabs of Excel": ("x.csv", CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), "columns between tabs"),
    "a line that names the delimiter": ("x.csv", b"sep=;\r\n" + CSV.replace(",", ";").encode(), "semicolons"),
    "old Macintosh": ("x.csv", CSV.replace("\n", "\r").encode(), "lines end in CR"),
    "large letters": ("x.csv", CSV.replace("prompt,chosen", " Prompt,CHOSEN").encode(), ""),
    "a column of numbers without a name": (
        "x.csv",
        "".join(f"{i or ''},{line}\n" for i, line in enumerate(CSV.splitlines())).encode(),
        "",
    ),
    "gzip": ("x.jsonl.gz", gzip.compress(JSONL.encode()), ""),
    "gzip without its end": ("x.jsonl", gzip.compress(JSONL.encode()), ""),
    "gzip of CSV": ("x.csv.gz", gzip.compress(CSV.replace(",", ";").encode("utf-16")), "UTF-16"),
    "zstandard": ("x.jsonl.zst", zstd(JSONL.encode()), ""),
    "bzip2": ("x.jsonl.bz2", bz2.compress(JSONL.encode()), ""),
    "xz": ("x.json.xz", lzma.compress(json.dumps(PAIRS).encode()), ""),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_every_kind_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    name, data, said = TEXTS[kind]
    (tmp_path / name).write_bytes(data)
    found = read_preferences(tmp_path / name)
    assert texts(found) == pairs_of(PAIRS) and not found.bad
    assert said in " ".join(found.notes) and bool(said) == bool(found.notes)


def test_tables_of_arrow_give_the_same_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, tmp_path / "x.parquet")
    pyarrow.parquet.write_table(TABLE, tmp_path / "no_end")
    pyarrow.feather.write_feather(TABLE, tmp_path / "x.feather")
    with pa.ipc.new_stream(tmp_path / "x.arrow", TABLE.schema) as stream:
        stream.write_table(TABLE)
    (tmp_path / "x.parquet.gz").write_bytes(gzip.compress((tmp_path / "x.parquet").read_bytes()))
    for file in sorted(tmp_path.iterdir()):
        assert texts(read_preferences(file)) == pairs_of(PAIRS), file


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "a workbook": ("x.xlsx", b"PK\x03\x04" + bytes(50), "Excel workbook"),
    "a pickle": ("x.pkl", b"\x80\x04\x95" + bytes(50), "pickle"),
    "an array that breaks off": ("x.json", b'[\n{"prompt": "q"},\n{"pro', "line 3, column 2"),
    "bytes of nothing": ("x.jsonl", b"\xff\xfe\x01" + bytes(range(0, 256, 3)), "begins as UTF-16 and is not"),
    "a kind that nothing says": ("x.dat", b"hello\n", "neither JSON nor a kind of file"),
    "two columns of one name": ("x.csv", b"prompt,chosen,chosen\na,b,c\n", "two columns called 'chosen'"),
    "plain text": ("x.txt", b"hello\n", "one prompt a line, and neither columns nor answers"),
    "a header in plain text": ("x.txt", b"prompt\tchosen\trejected\na\tb\tc\n", ".csv"),
    "lines with commas after them": ("x.jsonl", b'{"prompt": "q"},\n{"prompt": "r"},\n', "a comma follows the object"),
    "notation of Python": ("x.jsonl", b"{'prompt': 'q'}\n", "Python's notation"),
    "no header": ("x.csv", b"What is 1+1?,2,3\nWhat is 2+2?,4,5\n", "does the first line name the columns?"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_holds_no_rows_is_refused_with_the_place_and_a_remedy(tmp_path: Path, kind: str) -> None:
    name, data, words = REFUSED[kind]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_preferences(tmp_path / name)
    assert words in str(caught.value) and caught.value.fix and caught.value.exit_code == 2


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(*[st.text("ab ,;|\t\"'\n€é{[", min_size=1, max_size=8).filter(str.strip)] * 3).filter(
            lambda r: r[1].rstrip() != r[2].rstrip()
        ),
        min_size=1,
        max_size=4,
    ),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_comes_back_whatever_its_delimiter_and_encoding(
    tmp_path: Path, rows: list[tuple[str, str, str]], delimiter: str, encoding: str, end: str
) -> None:
    import csv

    with (tmp_path / "x.csv").open("w", encoding=encoding, newline="") as f:
        writer = csv.writer(f, delimiter=delimiter, lineterminator=end)
        writer.writerows([("prompt", "chosen", "rejected"), *rows])
    seen: list[Any] = []
    from hafs.data import load

    load(tmp_path / "x.csv", lambda row: seen.append((row["prompt"], row["chosen"], row["rejected"])))
    assert seen == rows


# ---- folders


def test_one_split_of_a_folder_is_read_and_the_others_are_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    train, test = (datasets.Dataset.from_list(rows) for rows in (PAIRS[:6], PAIRS[6:]))
    split = datasets.DatasetDict(train=train, test=test)
    split.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "train" / "cache-1.arrow").write_bytes(b"nonsense")
    found = read_preferences(tmp_path / "saved")
    assert texts(found) == pairs_of(PAIRS[:6]) and "the split train is read; test left out" in found.notes[0]
    for named in (f"{tmp_path}/saved:test", f"{tmp_path}/saved/test"):
        again = read_preferences(named)
        assert texts(again) == pairs_of(PAIRS[6:]) and not again.notes
    with pytest.raises(UsageError, match="has no split 'dev': it has train, test"):
        read_preferences(f"{tmp_path}/saved:dev")


def test_files_that_are_named_by_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(TABLE.slice(0, 3), tmp_path / "data" / "train-00000-of-00002.parquet")
    pyarrow.parquet.write_table(TABLE.slice(3, 3), tmp_path / "data" / "train-00001-of-00002.parquet")
    put(tmp_path / "test.jsonl", *PAIRS[6:])
    (tmp_path / "README.md").write_text("words")
    found = read_preferences(tmp_path)
    assert texts(found) == pairs_of(PAIRS[:6]) and "test left out" in found.notes[0]
    assert texts(read_preferences(f"{tmp_path}:test")) == pairs_of(PAIRS[6:])
    (tmp_path / "de").mkdir()
    put(tmp_path / "de" / "train.jsonl", *PAIRS[:1])
    with pytest.raises(UsageError, match="holds several data sets: data, de"):
        read_preferences(tmp_path)
    assert texts(read_preferences(f"{tmp_path}:de")) == pairs_of(PAIRS[:1])


def test_the_hub_is_asked_for_a_name_that_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"there is no file owner/name.jsonl\n"):
        read_preferences("owner/name.jsonl")
    with pytest.raises(HafsError, match="there is no file owner/name, and the hub could not be asked"):
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        read_preferences("owner/name")


# ---- shapes of preferences

ALPACA = {"instruction": "Translate to German.", "input": "Good morning", "chosen": "Guten Morgen"}
SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "alpaca": (ALPACA | {"rejected": "Guten Abend"}, "Translate to German.\nGood morning"),
    "alpaca, nothing put in": ({**ALPACA, "input": "", "rejected": "Guten Abend"}, "Translate to German."),
    "orca": ({"system": "s", "question": "q?", "chosen": "Guten Morgen", "rejected": "Guten Abend"}, "q?"),
    "input alone": ({"system": "s", "input": "q?", "chosen": "Guten Morgen", "rejected": "Guten Abend"}, "q?"),
    "argilla's answers": (
        {"instruction": "q?", "chosen_response": "Guten Morgen", "rejected_response": "Guten Abend"},
        "q?",
    ),
    "single messages": (
        {
            "messages": [{"role": "user", "content": "q?"}],
            "chosen": {"role": "assistant", "content": "Guten Morgen"},
            "rejected": {"role": "assistant", "content": "Guten Abend"},
        },
        "q?",
    ),
    "ms-swift": (
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q?"},
                {"role": "assistant", "content": "Guten Morgen"},
            ],
            "rejected_response": "Guten Abend",
        },
        "q?",
    ),
    "sharegpt": (
        {
            "conversations": [{"from": "human", "value": "q?"}],
            "chosen": {"from": "gpt", "value": "Guten Morgen"},
            "rejected": {"from": "gpt", "value": "Guten Abend"},
        },
        "q?",
    ),
    "scores beside texts": (
        {"prompt": "q?", "chosen": "Guten Morgen", "rejected": "Guten Abend", "score_chosen": 9.0, "score_rejected": 2},
        "q?",
    ),
    "what is null is not there": (
        {
            "prompt": "q?",
            "chosen": "Guten Morgen",
            "rejected": "Guten Abend",
            "system": None,
            "tools": None,
            "images": None,
        },
        "q?",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_pairs_of_every_shape(tmp_path: Path, name: str) -> None:
    row, prompt = SHAPES[name]
    found = read_preferences(put(tmp_path / "x.jsonl", row))
    assert texts(found) == [(prompt, "Guten Morgen", "Guten Abend")] and not found.bad
    assert found.groups[0].system == (
        "s" if "s" in (row.get("system"), row.get("messages", [{}])[0].get("content")) else ""
    )
    if "score_chosen" in row:
        assert found.groups[0].edges[0].margin == 7.0


def test_pairs_that_follow_a_tools_result(tmp_path: Path) -> None:
    asked = [
        {"role": "user", "content": "A number from 1 to 6"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "4"},
    ]
    row = {"prompt": asked, "chosen": [{"role": "assistant", "content": "4."}], "rejected": "5."}
    (group,) = read_preferences(put(tmp_path / "x.jsonl", row)).groups
    assert group.prompt == "" and [m["role"] for m in group.context] == ["user", "assistant", "tool"]
    assert group.context[1]["tool_calls"] == [CALL]


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ({"prompt": "q", "completion": "a", "label": True}, True),
        ({"prompt": "q", "completion": "a", "label": 0}, False),
        ({"instruction": "q", "input": "", "output": "a", "kto_tag": "thumbs_down"}, False),
        ({"messages": [*FAUST], "label": "👍"}, True),
        ({"prompt": [FAUST[0]], "completion": [FAUST[1]], "label": 1.0}, True),
    ],
)
def test_one_sided_labels_stay_with_their_answers(tmp_path: Path, row: dict[str, Any], good: bool) -> None:
    found = read_preferences(put(tmp_path / "x.jsonl", row))
    ((candidate,),) = [g.candidates for g in found.groups]
    assert candidate.label == CandidateLabel(good) and not found.groups[0].edges and found.unpaired == 1


def test_labels_of_both_kinds_make_pairs_as_well(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": t, "label": good} for t, good in (("a", True), ("b", False), ("a", True))]
    rows += [{"prompt": "q", "completion": "c", "label": good} for good in (True, False)]
    found = read_preferences(put(tmp_path / "x.jsonl", *rows))
    labels = {c.text: c.label and c.label.good for c in found.groups[0].candidates}
    assert labels["a"] is True and labels["b"] is False and labels.get("c") is None
    assert ("q", "a", "b") in texts(found) and found.contradictions >= 1
    again = read_preferences(put(tmp_path / "y.jsonl", *(g.to_dict() for g in found.groups)))
    assert again.groups == found.groups


# ---- columns


def test_columns_that_nobody_knows_are_named_with_the_nearest_mapping(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", {"ask": "q", "best": "a", "worst": "b", "weight": 2})
    with pytest.raises(DataError) as caught:
        read_preferences(file)
    assert "the columns are ask, best, worst, weight" in caught.value.what
    assert caught.value.fix == "--columns prompt=ask,chosen=best,rejected=worst"
    mapping = parse_columns(caught.value.fix.removeprefix("--columns "))
    found = read_preferences(file, columns=mapping)
    assert texts(found) == [("q", "a", "b")] and found.groups[0].edges[0].weight == 2


@pytest.mark.parametrize("name", sorted(ASKING | {"problem", "topic", "title"}))
def test_a_column_that_asks_is_never_dropped(tmp_path: Path, name: str) -> None:
    """Beside two answers that begin alike, the text of any column is in what is asked, or the row is refused."""
    value: Any = "What is it in German?"
    row = {name: value, "chosen": "Guten Morgen", "rejected": "Guten Abend"}
    try:
        found = read_preferences(put(tmp_path / "x.jsonl", row))
    except DataError as e:
        assert name in str(e) and e.fix
        return
    (group,) = found.groups
    assert value in (group.prompt + group.system + str(group.context)) and name not in ("problem", "topic", "title")
    assert group.prompt != "Guten" or found.notes


def test_a_prompt_that_is_inside_the_answers_is_said(tmp_path: Path) -> None:
    found = read_preferences(put(tmp_path / "x.jsonl", {"chosen": "The sky is blue", "rejected": "The sky is green"}))
    assert found.groups[0].prompt == "The sky is" and "no column for the prompt" in found.notes[0]


def test_two_columns_for_one_role_are_refused_until_one_is_chosen(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", PAIRS[0] | {"question": "another"})
    with pytest.raises(DataError, match="prompt and question could both be the prompt"):
        read_preferences(file)
    assert texts(read_preferences(file, columns=parse_columns("-question"))) == pairs_of(PAIRS[:1])
    joined = read_preferences(file, columns=parse_columns("prompt=prompt+question"))
    assert joined.groups[0].prompt == f"{PAIRS[0]['prompt']}\nanother"


@pytest.mark.parametrize("wrong", ["prompt", "=x", "promt=x", "prompt="])
def test_a_mapping_that_says_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        parse_columns(wrong)


def test_a_mapping_leads_into_objects_and_names_what_is_not_there(tmp_path: Path) -> None:
    file = put(tmp_path / "x.jsonl", {"data": {"ask": "q"}, "a": "x", "b": "y"})
    found = read_preferences(file, columns=parse_columns("prompt=data.ask,chosen=a,rejected=b"))
    assert texts(found) == [("q", "x", "y")]
    with pytest.raises(DataError, match=r"there is no column 'data\.nope': the columns are data, a, b"):
        read_preferences(file, columns=parse_columns("prompt=data.nope,chosen=a,rejected=b"))


def test_what_is_not_used_and_how_it_was_read_is_said(tmp_path: Path) -> None:
    found = read_preferences(put(tmp_path / "x.jsonl", ALPACA | {"rejected": "x", "id": 5, "licence": "mit"}))
    assert [n.partition("x.jsonl: ")[2] for n in found.notes] == [
        "1 rows are read as prompt = instruction + input",
        "columns that are not used: licence",
    ]


def test_the_names_of_columns_have_one_role_each() -> None:
    names = [name for role in ROLES.values() for name in role]
    assert len(names) == len(set(names))
    assert Columns().apply({"Prompt ": "q", "chosen-response": "a", "x": None}) == {
        "prompt": "q",
        "chosen_response": "a",
    }


# ---- examples and prompts


def one(loaded: Loaded[PreferenceGroup]) -> tuple[str, list[str]]:
    (group,) = loaded.rows
    return group.prompt, [c.text for c in group.candidates]


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"prompt": "q", "completion": "a"}, "q", "a"),
        ({"instruction": "Past tense.", "input": "go", "output": "went"}, "Past tense.\ngo", "went"),
        ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, "q\nc", "a"),
        ({"question": "q", "answer": "a"}, "q", "a"),
        ({"messages": [*FAUST, *FAUST]}, "Who wrote Faust?", "Goethe."),
        ({"prompt": "Who wrote Faust?", "prompt_id": "1", "messages": FAUST}, "Who wrote Faust?", "Goethe."),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, "q", "a"),
        (
            {"messages": [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in FAUST]},
            "Who wrote Faust?",
            "Goethe.",
        ),
        ({"prompt": [FAUST[0]], "completion": [FAUST[1]]}, "Who wrote Faust?", "Goethe."),
        ({"text": "q", "references": ["a"]}, "q", "a"),
    ],
)
def test_examples_of_every_shape(tmp_path: Path, row: dict[str, Any], prompt: str, answer: str) -> None:
    assert one(read_examples(put(tmp_path / "x.jsonl", row))) == (prompt, [answer])


def test_earlier_turns_are_kept(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "When was he born?"}, {"role": "assistant", "content": "In 1749."}]
    rows = [
        {"messages": [*FAUST, *more]},
        {
            "instruction": more[0]["content"],
            "input": "",
            "output": "In 1749.",
            "history": [["Who wrote Faust?", "Goethe."]],
        },
    ]
    for row in rows:
        (group,) = read_examples(put(tmp_path / "x.jsonl", row)).rows
        assert (group.prompt, list(group.context)) == ("When was he born?", FAUST)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": FAUST[:1]}, "there is no answer to learn"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, FAUST[1]]}, "'image_url': only text"),
        ({"prompt": "q", "completion": "a", "images": ["x.png"]}, "images: only text"),
        ({"prompt": "q", "completion": ""}, "the answer is empty"),
        ({"prompt": " ", "completion": "a"}, "the prompt is empty"),
        ({"prompt": "q", "messages": FAUST}, "ask different things"),
        ({"system": "a", "messages": [{"role": "system", "content": "b"}, *FAUST]}, "differ"),
        ({"text": "<s>[INST] all in one [/INST] a</s>"}, "no column is known as the prompt or the completion"),
        ({"conversations": [{"from": "alien", "value": "q"}, {"from": "gpt", "value": "a"}]}, "'alien'"),
    ],
)
def test_examples_that_cannot_be_used_cost_their_row_alone(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    found = read_examples(put(tmp_path / "x.jsonl", row, {"prompt": "q", "completion": "a"}))
    assert one(found) == ("q", ["a"])
    ((line, reason),) = found.bad
    assert line == 1 and why in reason
    beside = set_aside(tmp_path / "x.jsonl", found.bad_rows)
    assert beside is not None and json.loads(beside.read_text())["row"] == row


def test_prompts_of_every_shape(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("What is 1+1?\n\nWhat is 2+2?\r\n")
    found = read_prompts(tmp_path / "x.txt")
    assert [p.text for p in found.rows] == ["What is 1+1?", "What is 2+2?"] and "one prompt a line" in found.notes[-1]
    (tmp_path / "x.json").write_text('["a", "b"]')
    assert [p.text for p in read_prompts(tmp_path / "x.json").rows] == ["a", "b"]
    rows: list[dict[str, Any]] = [
        {"text": "q", "system": None},
        {"prompt": "q"},
        {"messages": [{"role": "user", "content": "q"}]},
        {"prompt": [{"role": "user", "content": "q"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"text": "q", "references": ["4", {"name": "n", "text": "5"}], "answer": "6"},
    ]
    found = read_prompts(put(tmp_path / "x.jsonl", *rows))
    assert [p.text for p in found.rows] == ["q"] * 6 and all(p.split == "train" for p in found.rows)
    assert [(r.name, r.text) for r in found.rows[-1].references] == [("reference 1", "4"), ("n", "5")]
    said = " ".join(found.notes)
    assert "1 conversations end with an answer" in said and "columns that are not used: answer" in said


def test_empty_prompts_are_refused(tmp_path: Path) -> None:
    found = read_prompts(put(tmp_path / "x.jsonl", *({"text": t} for t in ("", "  ", None, 5, "q"))))
    assert [p.text for p in found.rows] == ["q"] and [n for n, _ in found.bad] == [1, 2, 3, 4]


def test_messages_in_csv_as_json_and_as_pandas_writes_them(tmp_path: Path) -> None:
    import csv

    for name, written in (("json", json.dumps(FAUST)), ("pandas", repr(FAUST))):
        with (tmp_path / f"{name}.csv").open("w", newline="") as f:
            csv.writer(f).writerows([["messages"], [written]])
        assert one(read_examples(tmp_path / f"{name}.csv")) == ("Who wrote Faust?", ["Goethe."])


# ---- what is odd is said


def odd(tmp_path: Path, *rows: dict[str, Any]) -> str:
    return " ".join(remarks(of_groups(read_examples(put(tmp_path / "x.jsonl", *rows)).rows)))


def test_what_is_odd_is_said_and_what_is_usual_is_not(tmp_path: Path) -> None:
    verbs = [("go", "went"), ("eat", "ate"), ("see", "saw"), ("run", "ran"), ("buy", "bought"), ("take", "took")]
    ask = "Give the past tense of the following verb."
    assert odd(tmp_path, *({"instruction": ask, "input": v, "output": a} for v, a in verbs)) == ""
    lost = odd(tmp_path, *({"instruction": ask, "output": a} for _, a in verbs))
    assert "6 of 6 rows have one prompt" in lost and "6 of 6 prompts speak of something that follows" in lost
    marked = {"prompt": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n", "completion": "a<|im_end|>"}
    assert "1 of 1 rows hold marks of a chat template inside their texts" in odd(tmp_path, marked)
    assert "answers that begin with the prompt" in odd(tmp_path, {"prompt": "q", "completion": "q and a"})
    assert "spoiled characters" in odd(tmp_path, {"prompt": "Ã¼ber", "completion": "a"})
    assert "carriage returns" in odd(tmp_path, {"prompt": "a\r\nb", "completion": "a"})
    assert odd(tmp_path, {"prompt": "Answer the following question: is 1 < 2?", "completion": "yes"}) == ""


def test_prompts_are_looked_at_too(tmp_path: Path) -> None:
    found = read_prompts(put(tmp_path / "x.jsonl", {"text": "[INST] q [/INST]"}))
    assert "marks of a chat template" in remarks(of_prompts(found.rows))[0]


def test_an_empty_system_text_is_said(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": "a", "system": ""}, {"messages": [{"role": "system", "content": ""}, *FAUST]}]
    assert "2 rows have an empty system text" in read_examples(put(tmp_path / "x.jsonl", *rows)).notes[0]


# ---- the verbs


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HAFS_WORKSPACE", raising=False)
    monkeypatch.chdir(workspace(tmp_path))
    return tmp_path


def test_an_import_shows_rows_as_the_model_sees_them(inside: Path, tiny_model: Path) -> None:
    put(inside / "x.jsonl", *PAIRS, {"prompt": "spelt <|im_end|>", "chosen": "a", "rejected": "b"}, {"prompt": "q"})
    ran = hafs("preferences", "import", "x.jsonl", "--show", "1", "--model", tiny_model).ok()
    assert "row 1 of 9 as the model sees it" in ran.err and "row 2" not in ran.err
    assert "⟦<|im_start|>⟧user⏎" in ran.err and "chosen    2⟦<|im_end|>⟧" in ran.err
    assert "warning: x.jsonl: 1 of 9 rows hold marks of a chat template" in ran.err
    assert "x.jsonl: 1 rows could not be used; they are in x.jsonl.bad.jsonl, with the reasons" in ran.err
    shown = hafs("preferences", "import", "x.jsonl", "--show", "9", "--model", tiny_model, "--json").ok().json["shown"]
    assert "spelt <|im_end|>⟦<|im_end|>⟧" in shown[8]["prompt"] and shown[0]["answers"][1]["as"] == "rejected"


def test_columns_are_mapped_in_every_verb_that_reads(inside: Path, tiny_model: Path) -> None:
    put(inside / "x.jsonl", {"ask": "q", "best": "a", "worst": "b"})
    ran = hafs("preferences", "import", "x.jsonl").failed(2, "the columns are ask, best, worst")
    assert "fix: --columns prompt=ask,chosen=best,rejected=worst" in ran.err
    mapped = ("--columns", "prompt=ask,chosen=best,rejected=worst")
    assert hafs("preferences", "import", "x.jsonl", *mapped, "--json").ok().json["groups"] == 1
    train = ("--sft-model", tiny_model, "--preference-data", "x.jsonl", "--dry-run", "--json")
    assert hafs("train", "dpo", *train, *mapped).ok().json["prompts"] == 1
    hafs("train", "dpo", *train).failed(2, "fix: --columns prompt=ask")
    sft = ("sft", "--model", tiny_model, "--data", "x.jsonl", "--dry-run", "--show", "1")
    assert "answer    a" in hafs(*sft, "--columns", "prompt=ask,completion=best").ok().err
    hafs(*sft).failed(2, "fix: --columns prompt=ask,completion=COLUMN")
    ran = hafs("generate", "--model", tiny_model, "--prompts", "x.jsonl", "--columns", "prompt=ask", "--json").ok()
    assert ran.json["prompts"] == 1 and "not used: best, worst" in ran.err
    hafs("data", "import", "prompts", "x.jsonl").failed(2, "fix: --columns prompt=ask")
    assert hafs("data", "import", "prompts", "x.jsonl", "--columns", "prompt=ask", "--json").ok().json["read"] == 1


def test_what_came_to_nothing_is_said_one_line_each(inside: Path) -> None:
    rows = [
        PAIRS[0],
        PAIRS[0],
        {**PAIRS[1]},
        {**PAIRS[1], "chosen": PAIRS[1]["rejected"], "rejected": PAIRS[1]["chosen"]},
    ]
    put(inside / "x.jsonl", *rows, {"prompt": "q", "completion": "a", "label": 1})
    err = hafs("preferences", "import", "x.jsonl", "--show", "0").ok().err
    for words in (
        "2 rows repeat what an earlier one says",
        "1 pairs of answers have rows on both sides",
        "1 pairs of answers weigh the same on both sides and are left out",
        "1 labelled answers have none of the other label",
    ):
        assert f"x.jsonl: {words}" in err
