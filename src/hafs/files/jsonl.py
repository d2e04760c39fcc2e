"""JSON lines out: files appear whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import IO, Any, get_args, get_origin, get_type_hints

from hafs.errors import HafsError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[str]]:
    """Open a text file that replaces `path` only when the block ends well; a full disk leaves the old.

    What an earlier writer of `path` left half-written, because it was killed, is removed.
    """
    path = Path(path).expanduser()
    part: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        part, fd = _part_of(path)
        with os.fdopen(fd, "w", encoding="utf-8") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
            part.chmod(0o644)
            part.replace(path)
    except OSError as e:
        raise HafsError(
            f"could not write {path}: {e.strerror}",
            "free space or choose another place, then run the command again: what was there is unchanged",
        ) from e
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def _part_of(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, locked for as long as it is written."""
    while True:
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return Path(name), fd
        os.close(fd)  # swept by another writer before it was locked


def _sweep(path: Path) -> None:
    """Remove the parts of `path` that nobody writes any more."""
    for left in path.parent.iterdir():
        if left.name.startswith(f".{path.name}.") and left.name.endswith(".part"):
            with suppress(OSError), left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write rows (dicts, or objects with `to_dict`) one a line; returns how many."""
    n = 0
    with atomic_write(path) as f:
        for row in rows:
            data = row.to_dict() if hasattr(row, "to_dict") else row
            try:
                f.write(json.dumps(data, ensure_ascii=False) + "\n")
            except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
                f.write(json.dumps(data) + "\n")
            n += 1
    return n


def check_fields(cls: Any, row: Mapping[str, Any], where: str = "") -> None:
    """Check a row of JSON against the fields of a dataclass, those of the dataclasses in it too.

    `where` is what the names of columns begin with. Raises KeyError for a missing column, ValueError for a value of the
    wrong JSON type, a whole number of more than 64 bits, or a number that is not finite.
    """
    hints = _hints(cls)
    for f in fields(cls):
        if f.name in row:
            _check(row[f.name], hints[f.name], where + f.name)
        elif f.default is MISSING and f.default_factory is MISSING:
            raise KeyError(where + f.name)


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _check(value: Any, wanted: Any, name: str) -> None:
    if get_origin(wanted) is UnionType:  # of a type and None
        if value is None:
            return
        wanted = get_args(wanted)[0]
    listed, given = get_origin(wanted) is tuple, type(value)
    if listed and given is list:
        for i, one in enumerate(value):
            _check(one, get_args(wanted)[0], f"{name}[{i}]")
    elif is_dataclass(wanted) and given is dict:
        check_fields(wanted, value, f"{name}.")
    elif wanted is float and given in (int, float):
        if not abs(value) <= sys.float_info.max:
            raise ValueError(f"the column {name!r} is no finite number")
    elif wanted is int and given is int:
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"the column {name!r} is a number of more than 64 bits")
    elif given is not (list if listed else dict if get_origin(wanted) or is_dataclass(wanted) else wanted):
        called = "list" if listed else "object" if get_origin(wanted) or is_dataclass(wanted) else wanted.__name__
        raise ValueError(f"the column {name!r} is {given.__name__}, not {called}")
