"""Rows out of text: JSON lines, a JSON array, objects over several lines, CSV of any delimiter, one prompt a line.

The encoding, the ends of lines and the delimiter are found out, and what is not the usual one is said.
"""

from __future__ import annotations

import ast
import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO, NamedTuple

from hafs.data.columns import KNOWN, plain_name
from hafs.errors import DataError

UNDECODED = re.compile("[\udc80-\udcff]")
"""Finds what `errors="surrogateescape"` could not decode."""
NOT_UTF8 = "it has bytes that are not UTF-8"
LONGEST_CELL = 1 << 28
HEAD = 1 << 16
"""How many bytes of a file are looked at to find out what it is."""


class FileRow(NamedTuple):
    """A row of a file: its number (the first line of it in text files, else rows from 1) and what it holds.

    With a `problem` it is no row: `value` is then what could be kept, mostly its text. `file` names the file in a
    directory.
    """

    number: int
    value: Any
    problem: str = ""
    file: str = ""


class Encoding(NamedTuple):
    """How the bytes of a text are read, and what is to be said of it ("" for UTF-8 without a mark)."""

    name: str
    errors: str = "surrogateescape"
    said: str = ""


_MARKS = (
    (codecs.BOM_UTF8, Encoding("utf-8-sig", said="UTF-8 with a byte order mark")),
    (codecs.BOM_UTF32_LE, Encoding("utf-32", "strict", "UTF-32")),
    (codecs.BOM_UTF32_BE, Encoding("utf-32", "strict", "UTF-32")),
    (codecs.BOM_UTF16_LE, Encoding("utf-16", "strict", "UTF-16")),
    (codecs.BOM_UTF16_BE, Encoding("utf-16", "strict", "UTF-16")),
)


def encoding_of(head: bytes) -> Encoding:
    """The encoding of a text by its first bytes: by the mark, or for UTF-16 without one by where the zeros are."""
    for mark, found in _MARKS:
        if head.startswith(mark):
            return found
    zeros = [head[at::2].count(0) / max(1, len(head) // 2) for at in (0, 1)]
    if max(zeros) > 0.4 and min(zeros) < 0.1:
        return Encoding("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le", "strict", "UTF-16 without a mark")
    return Encoding("utf-8")


def text_rows(name: str, stream: BinaryIO, kind: str, notes: list[str], plain: bool) -> Iterator[FileRow]:
    """The rows of a text of which `kind` is the name's end; with `plain` a line may be a prompt.

    What is unusual about it is added to `notes`. Raises DataError when it cannot be read at all.
    """
    buffered = io.BufferedReader(stream, HEAD)  # type: ignore[type-var]
    head = buffered.peek(HEAD)[:HEAD]
    encoding = encoding_of(head)
    sample = head.decode(encoding.name, "replace").removesuffix("�")
    unusual = [encoding.said] if encoding.said else []
    if "\r" in sample:
        unusual.append("lines end in CR LF" if "\r\n" in sample else "lines end in CR")
    first = sample.lstrip("\ufeff \t\r\n")[:1]
    text = io.TextIOWrapper(buffered, encoding.name, encoding.errors, newline="")
    try:
        if (first and first in "{[") or kind in (".json", ".jsonl", ".ndjson"):
            rows = _json(name, text, notes, plain)
        elif kind in (".csv", ".tsv"):
            delimiter = delimiter_of(sample, cut=len(head) == HEAD)
            if delimiter != ("\t" if kind == ".tsv" else ","):
                unusual.append(f"columns between {DELIMITERS[delimiter]}")
            rows = _csv(name, text, delimiter)
        elif not first:
            rows = iter(())
        else:
            rows = _plain(name, text, kind, plain and not _is_table(sample), notes)
        if unusual:
            notes.append(f"{name}: {', '.join(unusual)}")
        yield from rows
    except UnicodeError as e:
        raise DataError(
            f"{name} has no usable row (line 1: it begins as {encoding.said} and is not)", "make the file again"
        ) from e


# ---- JSON


def _json(name: str, f: io.TextIOWrapper, notes: list[str], plain: bool) -> Iterator[FileRow]:
    """A JSON array, objects over several lines, an object that holds the rows, or JSON lines."""
    numbered = enumerate(f, 1)
    number, line = next((one for one in numbered if one[1].strip()), (0, ""))
    if not number:
        return
    if line.lstrip()[0] == "[":
        yield from _array(name, line + f.read(), number, notes, plain)
        return
    value = _parsed(line)
    if value is None and line.lstrip()[0] == "{":
        text = line + f.read()
        found = _objects(text, number)
        if found is None:
            yield from _lines(enumerate(io.StringIO(text, newline=""), number), plain)
        else:
            yield from _unwrapped(name, found, notes)
        return
    following = next((one for one in numbered if one[1].strip()), None)
    if following is None and isinstance(value, dict):
        yield from _unwrapped(name, [(number, value)], notes)
        return
    yield from _lines(chain([(number, line)], [following] if following else [], numbered), plain)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_BLANK = re.compile(r"\s*")


def _objects(text: str, number: int) -> list[tuple[int, Any]] | None:
    """Objects that follow each other, each with the line on which it begins; None when the text is anything else."""
    decoder = json.JSONDecoder()
    found, at, counted = [], 0, 0
    while (at := _BLANK.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        number += text.count("\n", counted, at)
        counted = at
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict):
            return None
        found.append((number, value))
    return found


_WRAPPERS = ("train", "data", "rows", "examples", "instances", "items", "records", "samples")


def _unwrapped(name: str, found: list[tuple[int, Any]], notes: list[str]) -> Iterator[FileRow]:
    """Objects as rows; a lone object that only holds a list of rows under a name such as `data` stands for these."""
    if len(found) == 1 and not KNOWN & set(found[0][1]):
        whole = found[0][1]
        lists = [k for k, v in whole.items() if isinstance(v, list) and v and all(isinstance(r, dict) for r in v)]
        inner = next((k for k in _WRAPPERS if k in lists), None)
        if inner is not None:
            others = "".join(f"; {len(whole[k])} of {k!r} are left out" for k in lists if k != inner)
            notes.append(f"{name}: the rows are those of {inner!r}{others}")
            for n, row in enumerate(whole[inner], 1):
                nested = row["row"] if set(row) >= {"row_idx", "row"} and isinstance(row["row"], dict) else row
                yield FileRow(n, nested)
            return
    yield from (_checked(number, row, row, False) for number, row in found)


def _array(name: str, text: str, number: int, notes: list[str], plain: bool) -> Iterator[FileRow]:
    try:
        listed = json.loads(text)
    except (ValueError, RecursionError) as e:
        line, *more = text.lstrip("\n").split("\n", 1)
        if (mended := re.sub(r",\s*\]\s*$", "]", text)) != text and isinstance(listed := _parsed(mended), list):
            notes.append(f"{name}: the comma after the last row is passed over")
        elif not more or _parsed(line) is not None or isinstance(e, RecursionError):
            yield from _lines(enumerate(io.StringIO(text, newline=""), number), plain)
            return
        else:
            raise DataError(
                f"{name} is no JSON array: {_why(e, number)}", "mend that place, or make the file again"
            ) from e
    if "\n" not in text.strip() and not any(isinstance(row, dict | str) for row in listed):
        yield from _lines(enumerate(io.StringIO(text, newline=""), number), plain)
        return
    doubtful = UNDECODED.search(text) is not None
    for n, row in enumerate(listed, 1):
        if doubtful and UNDECODED.search(json.dumps(row, ensure_ascii=False)):
            yield FileRow(n, row, NOT_UTF8)
        else:
            yield _checked(n, row, row, plain)


def _lines(numbered: Iterable[tuple[int, str]], plain: bool) -> Iterator[FileRow]:
    for at, line in numbered:
        text = line.strip()
        if UNDECODED.search(text):
            yield FileRow(at, text, NOT_UTF8)
        elif text:
            try:
                yield _checked(at, json.loads(text), text, plain)
            except (ValueError, RecursionError) as e:
                yield FileRow(at, text, _why_line(text, e))


def _why(error: Exception, first: int) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno + first - 1}, column {error.colno}: {error.msg}"
    return str(error)


def _why_line(text: str, error: Exception) -> str:
    """Why a line is no JSON object, in the words of whoever has to mend it."""
    if text.endswith(",") and isinstance(_parsed(text[:-1]), dict):
        return "a comma follows the object: each line is one object, without a comma"
    if text.startswith("{'"):
        return "it is in Python's notation, with single quotes, not JSON"
    if text[0] not in "{[":
        return f"it is no JSON object: it begins with {text[:20]!r}"
    return f"it is no JSON: {getattr(error, 'msg', error)} at column {getattr(error, 'colno', 1)}"


def _checked(number: int, value: Any, kept: Any, plain: bool) -> FileRow:
    if isinstance(value, dict):
        return FileRow(number, value)
    if plain and isinstance(value, str):
        return FileRow(number, {"text": value})
    return FileRow(number, kept, f"not a JSON object but {type(value).__name__}")


# ---- one prompt a line


def _plain(name: str, f: io.TextIOWrapper, kind: str, plain: bool, notes: list[str]) -> Iterator[FileRow]:
    if kind != ".txt":
        raise DataError(
            f"{name} holds neither JSON nor a kind of file that its name says",
            "name it .jsonl, .json, .csv, .tsv, .parquet or .arrow, after what it holds; prompts, one a line, are .txt",
        )
    if not plain:
        raise DataError(
            f"{name} is plain text, which holds one prompt a line, and neither columns nor answers",
            "give JSON lines, or CSV with a name that ends in .csv, with columns for the prompt and the answers",
        )
    notes.append(f"{name} is read as one prompt a line")
    for number, line in enumerate(f, 1):
        text = line.strip()
        if text:
            yield FileRow(number, text, NOT_UTF8) if UNDECODED.search(text) else FileRow(number, {"text": text})


def _is_table(sample: str) -> bool:
    """Whether the first line of a text names columns."""
    cells = re.split(r"[,;|\t]", sample.lstrip().partition("\n")[0])
    return sum(plain_name(cell.strip('"')) in KNOWN for cell in cells) > 1


# ---- CSV

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SEP = re.compile(r"\ufeff?\"?sep=(.)\"?\r?\n", re.IGNORECASE)


def delimiter_of(sample: str, cut: bool = False) -> str:
    """What stands between the columns of CSV: what makes most known columns, then even rows, then most columns."""
    if named := _SEP.match(sample):
        return named.group(1)
    ranked = []
    for delimiter in DELIMITERS:
        try:
            reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
            rows = [row for row in islice(reader, 50) if row]
        except csv.Error:
            continue
        header, *others = (rows[:-1] if cut and len(rows) > 1 else rows) or [[]]
        known = sum(plain_name(cell) in KNOWN for cell in header)
        even = sum(len(row) == len(header) for row in others) / len(others) if others else 1.0
        if len(header) > 1:
            ranked.append(((known, even, len(header)), delimiter))
    return max(ranked, key=lambda r: r[0])[1] if ranked else ","


def _csv(name: str, f: io.TextIOWrapper, delimiter: str) -> Iterator[FileRow]:
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
            header = None if number == 1 and _SEP.match(text) else _header(name, cells)
        elif cells:
            row = zip(header, cells, strict=True)
            yield FileRow(number, {k: cell_value(k, v) for k, v in row if k and (v or k in ANSWERS)})
        number += len(taken)
        taken.clear()


def _header(name: str, cells: list[str]) -> list[str] | None:
    if not cells:
        return None
    found = [cell.strip() for cell in cells]
    if twice := next((c for c in found if c and found.count(c) > 1), None):
        raise DataError(f"{name} has two columns called {twice!r}", "rename one")
    return found


NUMBERS = ("weight", "p", "margin", "score_chosen", "score_rejected")
ANSWERS = ("chosen", "rejected", "completion")  # may be empty texts; an empty cell of another column is none
JSONS = ("references", "check", "tags", "context", "candidates", "edges", "completions", "history")
"""Columns that hold JSON other than messages."""


def cell_value(column: str, cell: str) -> Any:
    """What a CSV cell holds: a number in a column of numbers, a list of messages, a truth value, or text."""
    if column in NUMBERS:
        try:
            return float(cell)
        except ValueError:
            return cell
    if column == "label" and cell.strip().lower() in ("true", "false", "1", "0"):
        return cell.strip().lower() in ("true", "1")
    if cell.startswith(("[{", "{")) or (column in JSONS and cell.startswith(("[", '"'))):
        value = _parsed(cell)
        if value is None and cell.startswith(("[{'", "{'")):  # a list as pandas writes it
            try:
                value = ast.literal_eval(cell)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                return cell
        return value if value is not None and (column in JSONS or is_said(value)) else cell
    return cell


def is_said(value: Any) -> bool:
    """Whether JSON is messages, or one message; an answer may be any other JSON, which stays a text."""
    if isinstance(value, list):
        return all(isinstance(m, dict) and is_said(m) for m in value)
    return isinstance(value, dict) and (
        set(value) == {"from", "value"} or ("role" in value and bool({"content", "tool_calls"} & set(value)))
    )
