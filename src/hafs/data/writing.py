"""Rows into files, by what the name ends in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hafs.data.containers import kind_of
from hafs.data.texts import cell_value
from hafs.errors import DataError, UsageError
from hafs.files.jsonl import atomic_write, write_jsonl


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows by what the name ends in: .jsonl, .json, .csv, .tsv, .parquet, each but the last also with .gz.

    Raises UsageError for an end that is not written, DataError for rows that do not fit.
    """
    kind, packed = kind_of(path), path.suffix.lower()
    if kind == ".parquet":
        _write_parquet(path, rows)
    elif packed not in (".gz", kind):
        raise UsageError(f"{path}: files that end in {packed} are read and not written", "write .jsonl.gz instead")
    elif kind == ".jsonl" and packed != ".gz":
        write_jsonl(path, rows)
    else:
        text = _text(kind, rows)
        try:
            data = text.encode()
        except UnicodeEncodeError as e:
            raise DataError(f"half a character in a text does not fit {path.name}", "write .jsonl instead") from e
        _write_bytes(path, gzip.compress(data, mtime=0) if packed == ".gz" else data)


def _text(kind: str, rows: Sequence[Mapping[str, Any]]) -> str:
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
        return text.getvalue()


def _write_bytes(path: Path, data: bytes) -> None:
    with atomic_write(path) as f:
        f.buffer.write(data)  # type: ignore[attr-defined]


def _cell(column: str, value: Any) -> Any:
    if isinstance(value, str) and cell_value(column, value) != value:
        raise DataError(f"a text in the column {column!r} would come back as messages", "write .jsonl instead")
    return json.dumps(value) if isinstance(value, list | dict) else "" if value is None else value


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = list(dict.fromkeys(key for row in rows for key in row))
    plain = [{c: _arrow_value(c, row.get(c)) for c in columns} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "rows.parquet")
        try:
            parquet.write_table(pa.Table.from_pylist(plain), made)
        except (pa.ArrowException, UnicodeEncodeError) as e:
            raise DataError(f"these rows do not fit Parquet: {e}", "write .jsonl instead") from e
        _write_bytes(path, made.read_bytes())


def _arrow_value(column: str, value: Any) -> Any:
    """Tools are of any shape, which Arrow has no type for: they are written as JSON, as TRL does."""
    if isinstance(value, dict):
        return {name: _arrow_value(name, inner) for name, inner in value.items()}
    return json.dumps(value) if column == "tools" and isinstance(value, list) else value
