"""JSON lines: what is written comes back, bad lines are named, a file appears whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hafs.data import load
from hafs.errors import DataError, HafsError, UsageError
from hafs.files.jsonl import atomic_write, write_jsonl
from hafs.types import Prompt

anything = st.text(max_size=8) | st.text(st.sampled_from("a\x00\x85\u2028\r\n\ud800é\ufeff"), max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.dictionaries(anything, anything | st.integers() | st.none()), min_size=1))
def test_rows_come_back_as_they_were_written(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    file = tmp_path / "rows.jsonl"
    assert write_jsonl(file, rows) == len(rows)
    loaded = load(file, dict)
    assert loaded.rows == rows and loaded.bad == []
    assert file.read_bytes().count(b"\n") == len(rows)


def test_objects_are_written_by_their_own_form_and_readable_text_stays_readable(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "prompts.jsonl"
    prompt = Prompt("Zähle é", tags=("easy",))
    write_jsonl(file, [prompt])
    assert "Zähle é" in file.read_text(encoding="utf-8")
    assert load(file, Prompt.from_dict).rows == [prompt]


def test_bad_lines_are_named_by_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    deep = b"[" * 100_000
    file.write_bytes(
        b'\xef\xbb\xbf{"n": 1}\n\n{"n": 2\n[1]\n{"m": 1}\n{"n": "x"}\n' + deep + b'\n{"n": 3, "t": "\xff"}\r\n'
    )
    loaded = load(file, lambda row: int(row["n"]))
    assert loaded.rows == [1]
    bad = dict(loaded.bad)
    assert sorted(bad) == [3, 4, 5, 6, 7, 8] and bad[8] == "it has bytes that are not UTF-8"
    assert bad[4] == "not a JSON object but list" and bad[5] == "the column 'n' is missing"


def test_a_file_without_a_usable_row_says_why(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n \n")
    with pytest.raises(DataError, match="it is empty"):
        load(file, dict)
    file.write_text("\nnonsense\n")
    with pytest.raises(DataError, match="line 2: "):
        load(file, dict)
    with pytest.raises(UsageError, match="there is no file"):
        load(tmp_path / "nothing.jsonl", dict)
    file.unlink()
    with pytest.raises(UsageError, match="holds no rows"):
        load(tmp_path, dict)


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [{"n": 1}])
    with pytest.raises(RuntimeError), atomic_write(file) as f:
        f.write("half of it")
        raise RuntimeError("stopped")
    with pytest.raises(TypeError):
        write_jsonl(file, [{"n": 2}, {"n": object()}])
    assert load(file, dict).rows == [{"n": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "rows.jsonl", Path("/proc/rows.jsonl"), tmp_path):
        with pytest.raises(HafsError, match=f"could not write {place}"):
            write_jsonl(place, [{"n": 1}])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    code = """if 1:
        import resource, sys
        from hafs.errors import HafsError
        from hafs.files.jsonl import write_jsonl
        write_jsonl(sys.argv[1], [{"n": 1}])
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write_jsonl(sys.argv[1], ({"text": "x" * 1000} for _ in range(1000)))
        except HafsError as e:
            print(e)
    """
    file = tmp_path / "rows.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert f"could not write {file}" in done.stdout and "fix: free space" in done.stdout
    assert load(file, dict).rows == [{"n": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_what_a_killed_writer_left_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    left = tmp_path / ".rows.jsonl.abc.part"
    left.write_text("half")
    with atomic_write(tmp_path / "rows.jsonl") as f:
        f.write("one")
        write_jsonl(tmp_path / "rows.jsonl", [{"two": 2}])  # by another, meanwhile
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert (tmp_path / "rows.jsonl").read_text() == "one"
