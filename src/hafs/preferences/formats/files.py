"""Rows out of files and into them, whatever holds them: JSON lines, a JSON array, CSV, Parquet, gzip, a `datasets`
directory. A row that cannot be read comes as a text that says why.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from hafs.errors import DataError, MissingTool, UsageError
from hafs.files.jsonl import NOT_UTF8, UNDECODED, atomic_write, write_jsonl

__all__ = ["FileRow", "read_rows", "write_rows"]


class FileRow(NamedTuple):
    """A row of a file: its number (the first line of it in text files, else rows from 1) and what it holds.

    With a `problem` it is no row: `value` is then what could be kept, mostly its text. `file` names the file in a
    directory.
    """

    number: int
    value: Any
    problem: str = ""
    file: str = ""


LONGEST_CELL = 1 << 28


def read_rows(path: Path) -> Iterator[FileRow]:
    """The rows of a file or of a local `datasets` directory.

    Raises UsageError when there is no such file or it cannot be read, MissingTool without pyarrow for what needs it.
    """
    if path.is_dir():
        yield from _directory(path)
    elif not path.is_file():
        raise UsageError(f"there is no file {path}", "check the path")
    elif _kind(path) in (".parquet", ".arrow"):
        yield from _arrow(path)
    else:
        try:
            with _opened(path) as f:
                yield from (
                    _csv(f, "\t" if _kind(path) == ".tsv" else ",") if _kind(path) in (".csv", ".tsv") else _json(f)
                )
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            raise DataError(f"{path} is damaged: {e}", "make the file again") from e
        except OSError as e:
            raise UsageError(f"could not read {path}: {e.strerror or e}", "check who may read the file") from e


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows by what the name ends in: .jsonl, .json, .csv, .tsv, .parquet, each but the last also with .gz."""
    kind = _kind(path)
    if kind == ".parquet":
        _write_parquet(path, rows)
    elif kind == ".jsonl" and path.suffix != ".gz":
        write_jsonl(path, rows)
    else:
        with io.StringIO(newline="") as text:
            if kind in (".csv", ".tsv"):
                columns = list(dict.fromkeys(key for row in rows for key in row))
                writer = csv.writer(text, delimiter="\t" if kind == ".tsv" else ",", quoting=csv.QUOTE_MINIMAL)
                writer.writerow(columns)
                writer.writerows([_cell(c, row.get(c)) for c in columns] for row in rows)
            elif kind == ".json":
                json.dump(list(rows), text, indent=1)
            else:
                text.writelines(json.dumps(row) + "\n" for row in rows)
            try:
                data = text.getvalue().encode()
            except UnicodeEncodeError as e:
                raise DataError(f"half a character in a text does not fit {path.name}", "write .jsonl instead") from e
        _write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _write_bytes(path: Path, data: bytes) -> None:
    with atomic_write(path) as f:
        f.buffer.write(data)  # type: ignore[attr-defined]


def _kind(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    suffixes = suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes
    return suffixes[-1] if suffixes else ""


def _opened(path: Path) -> IO[str]:
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape", "newline": ""}
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", **options)
    return path.open(**options)


def _json(f: IO[str]) -> Iterator[FileRow]:
    """A JSON array, or JSON lines."""
    first = ""
    while first == "" or first.isspace():
        at = f.tell() if f.seekable() else 0
        first = f.read(1)
        if not first:
            return
    f.seek(at)
    if first == "[":
        text = f.read()
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            yield from _lines(io.StringIO(text))
            return
        if all(not isinstance(row, dict) for row in listed) and "\n" not in text.strip():
            yield from _lines(io.StringIO(text))
            return
        doubtful = UNDECODED.search(text) is not None
        for number, row in enumerate(listed, 1):
            if doubtful and UNDECODED.search(json.dumps(row, ensure_ascii=False)):
                yield FileRow(number, row, NOT_UTF8)
            else:
                yield _object(number, row, row)
    else:
        f.seek(0)
        yield from _lines(f)


def _lines(f: IO[str]) -> Iterator[FileRow]:
    for number, line in enumerate(f, 1):
        text = line.strip()
        if UNDECODED.search(text):
            yield FileRow(number, text, NOT_UTF8)
        elif text:
            try:
                yield _object(number, json.loads(text), text)
            except (ValueError, RecursionError) as e:
                yield FileRow(number, text, str(e))


def _object(number: int, value: Any, kept: Any) -> FileRow:
    if isinstance(value, dict):
        return FileRow(number, value)
    return FileRow(number, kept, f"not a JSON object but {type(value).__name__}")


def _csv(f: IO[str], delimiter: str) -> Iterator[FileRow]:
    csv.field_size_limit(LONGEST_CELL)
    taken: list[str] = []  # the lines of the record

    def tapped() -> Iterator[str]:
        for line in f:
            taken.append(line)
            yield line

    reader = csv.reader(tapped(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number = 1
    while True:
        cells: list[str] = []
        try:
            cells, problem = next(reader), ""
        except StopIteration:
            return
        except csv.Error as e:
            problem = str(e) if len(taken) == 1 else f"{e}, in what begins here and takes up {len(taken)} lines"
        text = "".join(taken)
        if UNDECODED.search(text):
            problem = NOT_UTF8
        elif header is not None and cells and len(cells) != len(header):
            problem = f"{len(cells)} cells, the header has {len(header)}"
        if problem:
            yield FileRow(number, text.rstrip("\r\n"), problem)
            if header is None:
                return
        elif header is None:
            header = cells
        elif cells:
            yield FileRow(number, {k: _value(k, v) for k, v in zip(header, cells, strict=True) if v or k in ANSWERS})
        number += len(taken)
        taken.clear()


NUMBERS = ("weight", "p", "margin", "score_chosen", "score_rejected")
ANSWERS = ("chosen", "rejected", "completion")  # may be empty texts; an empty cell of another column is none


def _value(column: str, cell: str) -> Any:
    """What a CSV cell holds: a number in a column of numbers, a list of messages, a truth value, or text."""
    if column in NUMBERS:
        try:
            return float(cell)
        except ValueError:
            return cell
    if column == "label" and cell.strip().lower() in ("true", "false", "1", "0"):
        return cell.strip().lower() in ("true", "1")
    if cell.startswith(("[{", "{")):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        return value if _is_said(value) else cell
    return cell


def _is_said(value: Any) -> bool:
    """Whether JSON is messages, or ShareGPT's one message; an answer may be any other JSON, which stays a text."""
    if isinstance(value, list):
        return all(
            isinstance(m, dict) and (_is_said(m) or ("role" in m and {"content", "tool_calls"} & set(m))) for m in value
        )
    return isinstance(value, dict) and set(value) == {"from", "value"}


def _cell(column: str, value: Any) -> Any:
    if isinstance(value, str) and _value(column, value) != value:
        raise DataError(f"a text in the column {column!r} would come back as messages", "write .jsonl instead")
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else value


# ---- Parquet and Arrow


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise MissingTool("the package pyarrow is not installed", "pip install 'hafs[formats]'") from e
    return pyarrow


def _arrow(path: Path) -> Iterator[FileRow]:
    pa = _pyarrow()
    kind = _kind(path)
    try:
        if kind == ".parquet":
            batches: Iterable[Any] = pa.parquet.ParquetFile(path).iter_batches()
        else:
            batches = pa.ipc.open_stream(path)
        number = 0
        for batch in batches:
            for row in batch.to_pylist():
                number += 1
                yield FileRow(number, _full(row))
    except (pa.ArrowException, OSError) as e:
        first = str(e).strip().partition("\n")[0]
        raise DataError(f"{path} is no readable {kind[1:]} file: {first}", "make the file again") from e


def _full(value: Any) -> Any:
    """A value without the empty keys that Arrow puts into every object of a column."""
    if isinstance(value, dict):
        return {k: _full(v) for k, v in value.items() if v is not None}
    return [_full(v) for v in value] if isinstance(value, list) else value


def _directory(path: Path) -> Iterator[FileRow]:
    """A directory that `datasets` saved (one split or several), or one of files of rows."""
    listed = path / "dataset_dict.json"
    parts = [path]
    if listed.is_file():
        try:
            parts = [path / name for name in json.loads(listed.read_bytes())["splits"]]
        except (ValueError, TypeError, KeyError) as e:
            raise DataError(f"{listed} is damaged: it names no splits", "save the data set again") from e
    rows = [f for part in parts for f in sorted(part.glob("*.arrow"))]
    if not rows:
        kinds = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
        about = ("dataset_info.json", "state.json", "dataset_infos.json")
        rows = [f for f in sorted(path.rglob("*")) if _kind(f) in kinds and f.name not in about and f.is_file()]
        rows = [f for f in rows if not f.name.endswith(".bad.jsonl")]
    if not rows:
        raise UsageError(f"{path} holds no rows", "give a file, or a directory that `datasets` saved to disk")
    for file in rows:
        yield from (row._replace(file=str(file.relative_to(path))) for row in read_rows(file))


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    pa = _pyarrow()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    plain = [{c: _arrow_value(c, row.get(c)) for c in columns} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "rows.parquet")
        try:
            pa.parquet.write_table(pa.Table.from_pylist(plain), made)
        except (pa.ArrowException, UnicodeEncodeError) as e:
            raise DataError(f"these rows do not fit Parquet: {e}", "write .jsonl instead") from e
        _write_bytes(path, made.read_bytes())


def _arrow_value(column: str, value: Any) -> Any:
    """Tools are of any shape, which Arrow has no type for: they are written as JSON, as TRL does."""
    if isinstance(value, dict):
        return {name: _arrow_value(name, inner) for name, inner in value.items()}
    return json.dumps(value) if column == "tools" and isinstance(value, list) else value
