"""What holds rows: text of any kind, Parquet, Arrow, compressed or not, folders of `datasets`, data sets of the hub.

What a file is shows in its first bytes where it has a mark there, else in its name's end.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from hafs.data.texts import FileRow, text_rows
from hafs.errors import DataError, HafsError, UsageError

COMPRESSED = {
    "gzip": (b"\x1f\x8b", (".gz",)),
    "bz2": (b"BZh", (".bz2",)),
    "xz": (b"\xfd7zXZ\0", (".xz",)),
    "zstd": (b"\x28\xb5\x2f\xfd", (".zst", ".zstd")),
}
ENDS = (".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
_TABLES = {b"PAR1": ".parquet", b"ARROW1": ".feather", b"\xff\xff\xff\xff": ".arrow"}
_FOREIGN = {
    b"PK\x03\x04": "is a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook",
    b"SQLite format 3": "is an SQLite database",
    b"%PDF": "is a PDF",
    b"\x80\x04": "is a Python pickle, which may run code when it is read",
}


def file_rows(source: str | Path, notes: list[str], plain: bool = False) -> Iterator[FileRow]:
    """The rows of a file, of a folder, or of a data set on the hub (`owner/name`, `owner/name:split`).

    `notes` gets what is to be said of the reading. Raises UsageError when there is no such thing or it cannot be
    read, DataError when it is damaged or of a kind that holds no rows.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, "", str(source), notes, plain)
    if path.is_file():
        return _file(path, str(source), notes, plain)
    name, _, part = str(source).partition(":")
    if part and Path(name).expanduser().is_dir():
        return _folder(Path(name).expanduser(), part, name, notes, plain)
    if _HUB.fullmatch(name) and kind_of(Path(name)) not in ENDS:
        return _folder(_from_hub(name), part, name, notes, plain)
    raise UsageError(f"there is no file {source}", "check the path")


def kind_of(path: Path) -> str:
    """The end of a file's name that says what it holds, without that of a compression."""
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes[-1:] and any(suffixes[-1] in ends for _, ends in COMPRESSED.values())
    suffixes = suffixes[:-1] if packed else suffixes
    return suffixes[-1] if suffixes else ""


def _file(path: Path, name: str, notes: list[str], plain: bool) -> Iterator[FileRow]:
    try:
        with _opened(path) as f:
            head = f.read(16)
        for mark, what in _FOREIGN.items():
            if head.startswith(mark):
                raise DataError(f"{path} {what}", "export it as CSV, JSON lines or Parquet")
        table = next((kind for mark, kind in _TABLES.items() if head.startswith(mark)), "")
        if table or kind_of(path) in (".parquet", ".arrow", ".feather"):
            yield from _arrow(path, table)
        else:
            with _opened(path) as f:
                yield from text_rows(name, f, kind_of(path), notes, plain)
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as e:
        raise DataError(f"{path} is damaged: {e}", "make the file again") from e
    except OSError as e:
        if e.errno is None:  # of a decompressor
            raise DataError(f"{path} is damaged: {e}", "make the file again") from e
        raise UsageError(f"could not read {path}: {e.strerror or e}", "check who may read the file") from e


def _opened(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when its first bytes or its name say that it is packed."""
    with path.open("rb") as raw:
        head = raw.read(8)
    named = path.suffix.lower()
    codec = next((c for c, (mark, ends) in COMPRESSED.items() if head.startswith(mark) or named in ends), "")
    if codec == "zstd":
        import pyarrow as pa

        return cast(BinaryIO, pa.input_stream(str(path), compression="zstd"))
    opener: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}.get(codec, open)
    return cast(BinaryIO, opener(path, "rb"))


# ---- Parquet and Arrow


def _arrow(path: Path, kind: str) -> Iterator[FileRow]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kind = kind or kind_of(path)
    try:
        with _opened(path) as f:
            packed = not isinstance(f, io.BufferedReader)
            source: Any = pa.BufferReader(f.read()) if packed else path
        if kind == ".parquet":
            batches: Iterable[Any] = parquet.ParquetFile(source).iter_batches()
        elif kind == ".feather":
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            batches = pa.ipc.open_stream(source)
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


# ---- folders

_SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_ABOUT = ("dataset_info.json", "state.json", "dataset_infos.json", "dataset_dict.json")


def _folder(path: Path, part: str, name: str, notes: list[str], plain: bool) -> Iterator[FileRow]:
    """A folder that `datasets` saved (one split or several), or one of files of rows."""
    if (path / "dataset_dict.json").is_file():
        split, path = _saved_split(path, part, name, notes)
        part, name = "", f"{name}/{split}"
    files = _saved_files(path) or _loose_files(path, part, name, notes)
    for file in files:
        inside = str(file.relative_to(path))
        yield from (row._replace(file=inside) for row in _file(file, f"{name}/{inside}", notes, plain))


def _saved_split(path: Path, part: str, name: str, notes: list[str]) -> tuple[str, Path]:
    """The split that is read of several that `datasets` saved: the one that is named, the only one, or train."""
    listed = path / "dataset_dict.json"
    try:
        splits = [str(s) for s in json.loads(listed.read_bytes())["splits"]]
    except (ValueError, TypeError, KeyError) as e:
        raise DataError(f"{listed} is damaged: it names no splits", "save the data set again") from e
    chosen = _choice(splits, part, name, notes)
    return chosen, path / chosen


def _choice(splits: list[str], part: str, name: str, notes: list[str]) -> str:
    """Which of the splits, or parts, of a data set is read; what is not read is named."""
    chosen = part or ("train" if "train" in splits else splits[0] if len(splits) == 1 else "")
    if chosen not in splits:
        what = f"{name} has no split {part!r}" if part else f"{name} has several splits and none of them is train"
        raise UsageError(
            f"{what}: it has {', '.join(splits) or 'none'}", f"name one: {name}:{(splits or ['train'])[0]}"
        )
    others = [s for s in splits if s != chosen]
    if others and not part:
        notes.append(f"{name}: the split {chosen} is read; {', '.join(others)} left out ({name}:{others[0]} reads it)")
    return chosen


def _saved_files(path: Path) -> list[Path]:
    """The files that a data set of `datasets` is made of, in order: others of the folder are its caches."""
    try:
        named = json.loads((path / "state.json").read_bytes())["_data_files"]
        return [path / str(one["filename"]) for one in named]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as e:
        raise DataError(f"{path / 'state.json'} is damaged: it names no files", "save the data set again") from e


def _loose_files(path: Path, part: str, name: str, notes: list[str]) -> list[Path]:
    """The files of rows in a folder; where their names say train, test and so on, those of one split."""
    found = [f for f in sorted(path.rglob("*")) if kind_of(f) in ENDS and f.name not in _ABOUT and f.is_file()]
    hidden = [f for f in found if any(p.startswith(".") for p in f.relative_to(path).parts)]
    found = [f for f in found if f not in hidden and not f.name.endswith((".bad.jsonl", ".txt"))]
    if part and (path / part.partition(":")[0]).is_dir():
        inner, _, part = part.partition(":")
        found = [f for f in found if (path / inner) in f.parents]
        name = f"{name}:{inner}"
    if not found:
        raise UsageError(f"{name} holds no rows", "give a file, or a folder that `datasets` saved to disk")
    by_split: dict[str, list[Path]] = {}
    for f in found:
        by_split.setdefault(_split_of(f.relative_to(path)), []).append(f)
    if set(by_split) == {""}:
        if len(found) > 1:
            notes.append(f"{name}: all {len(found)} files of it are read")
        return found
    unnamed = [str(f.relative_to(path)) for f in by_split.pop("", [])]
    chosen = by_split[_choice(list(by_split), part, name, notes)]
    if unnamed:
        notes.append(f"{name}: {', '.join(unnamed[:5])} left out, whose names say no split")
    places = list(dict.fromkeys(f.parent.relative_to(path) for f in chosen))
    if len(places) > 1:
        raise UsageError(
            f"{name} holds several data sets: {', '.join(map(str, places[:10]))}", f"name one: {name}:{places[0]}"
        )
    return chosen


def _split_of(path: Path) -> str:
    """The split that a path inside a data set speaks of, "" for none; the file's own name says it before folders."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.partition(".")[0].lower())
        for split, names in _SPLIT_WORDS.items():
            if set(words) & set(names):
                return split
    return ""


# ---- the hub

_HUB = re.compile(r"[\w\-.]+/[\w\-.]+")


def _from_hub(name: str) -> Path:
    """The files of rows of a data set on the hub, downloaded into the hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError as NotFound

    wanted = [f"*{end}{packed}" for end in ENDS[:-1] for packed in ("", ".gz", ".zst")]
    missing = f"there is no file {name}"
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except (NotFound, HFValidationError) as e:
        raise UsageError(f"{missing}, and no data set {name!r} on the hub", "check the path or the name") from e
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as e:
        what = f"{missing}, and the hub could not be asked for a data set of that name"
        raise HafsError(what, "check the path or the network") from e
