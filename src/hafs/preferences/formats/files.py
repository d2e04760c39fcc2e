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
from typing import IO, Any

from hafs.errors import DataError, MissingTool, UsageError
from hafs.jsonl import atomic_write, write_jsonl

__all__ = ["Numbered", "read_rows", "write_rows"]

Numbered = tuple[int, dict[str, Any] | str]
"""The number of a row (lines of text files, else rows from 1) and the row, or why there is none."""

LONGEST_CELL = 1 << 28


def read_rows(path: Path) -> Iterator[Numbered]:
    """The rows of a file or of a local `datasets` directory.

    Raises UsageError when there is no such file or it cannot be read, MissingTool without pyarrow for what needs it.
    """
    if path.is_dir():
        yield from _directory(path)
    elif not path.is_file():
        raise UsageError(f"there is no file {path}", "check the path")
    elif _kind(path) in (".parquet", ".arrow"):
        yield from _arrow([path])
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
                writer.writerows([_cell(row.get(c)) for c in columns] for row in rows)
            elif kind == ".json":
                json.dump(list(rows), text, indent=1)
            else:
                text.writelines(json.dumps(row) + "\n" for row in rows)
            data = text.getvalue().encode("utf-8", "surrogatepass")
        _write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def _write_bytes(path: Path, data: bytes) -> None:
    with atomic_write(path) as f:
        f.buffer.write(data)  # type: ignore[attr-defined]


def _kind(path: Path) -> str:
    suffixes = [s.lower() for s in path.suffixes]
    suffixes = suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes
    return suffixes[-1] if suffixes else ""


def _opened(path: Path) -> IO[str]:
    options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "replace", "newline": ""}
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", **options)
    return path.open(**options)


def _json(f: IO[str]) -> Iterator[Numbered]:
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
        for number, row in enumerate(listed, 1):
            yield number, row if isinstance(row, dict) else f"not a JSON object but {type(row).__name__}"
    else:
        f.seek(0)
        yield from _lines(f)


def _lines(f: IO[str]) -> Iterator[Numbered]:
    for number, line in enumerate(f, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield number, row if isinstance(row, dict) else f"not a JSON object but {type(row).__name__}"
        except (ValueError, RecursionError) as e:
            yield number, str(e)


def _csv(f: IO[str], delimiter: str) -> Iterator[Numbered]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader(f, delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                yield reader.line_num, f"{len(cells)} cells, the header has {len(header)}"
            else:
                yield reader.line_num, {k: _value(k, v) for k, v in zip(header, cells, strict=True) if v != ""}
    except csv.Error as e:
        yield reader.line_num, str(e)


NUMBERS = ("weight", "p", "margin", "score_chosen", "score_rejected")


def _value(column: str, cell: str) -> Any:
    """What a CSV cell holds: a number in a column of numbers, a list of messages or tools, a truth value, or text."""
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
        rows = value if isinstance(value, list) else [value]
        if all(isinstance(row, dict) and {"role", "from", "type", "function"} & set(row) for row in rows):
            return value
    return cell


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else value


# ---- Parquet and Arrow


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise MissingTool("the package pyarrow is not installed", "pip install 'hafs[formats]'") from e
    return pyarrow


def _arrow(paths: Sequence[Path]) -> Iterator[Numbered]:
    pa = _pyarrow()
    number = 0
    for path in paths:
        try:
            if path.suffix == ".parquet":
                batches: Iterable[Any] = pa.parquet.ParquetFile(path).iter_batches()
            else:
                batches = pa.ipc.open_stream(path)
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield number, _full(row)
        except (pa.ArrowException, OSError) as e:
            first = str(e).strip().partition("\n")[0]
            raise DataError(f"{path} is no readable {path.suffix[1:]} file: {first}", "make the file again") from e


def _full(value: Any) -> Any:
    """A value without the empty keys that Arrow puts into every object of a column."""
    if isinstance(value, dict):
        return {k: _full(v) for k, v in value.items() if v is not None}
    return [_full(v) for v in value] if isinstance(value, list) else value


def _directory(path: Path) -> Iterator[Numbered]:
    """A directory that `datasets` saved (one split or several), or one of files of rows."""
    if (path / "dataset_dict.json").is_file():
        parts = [path / name for name in json.loads((path / "dataset_dict.json").read_text())["splits"]]
    else:
        parts = [path]
    found = [f for part in parts for f in sorted(part.glob("*.arrow"))]
    if found:
        yield from _arrow(found)
        return
    rows = [f for f in sorted(path.rglob("*")) if _kind(f) in (".parquet", ".jsonl", ".json", ".csv") and f.is_file()]
    rows = [f for f in rows if f.name not in ("dataset_info.json", "state.json", "dataset_infos.json")]
    if not rows:
        raise UsageError(f"{path} holds no rows", "give a file, or a directory that `datasets` saved to disk")
    number = 0
    for file in rows:
        for _, row in read_rows(file):
            number += 1
            yield number, row


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
