"""Files from outside: the cache folder, pinned pip downloads, folders that appear whole or not at all.

Everything fetched is checked against a sha256 written in the source before it is used. A downloaded file
stays in `downloads/` of the cache, so an interrupted or repeated install never fetches it twice; the same folder
is where a person without a network puts the file by hand.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hafs.errors import HafsError, MissingTool
from hafs.types import Progress, silent

__all__ = ["Wheel", "cache_root", "downloaded", "downloads", "fetch_wheel", "file_sha256", "locked", "new_folder"]


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel: its requirement, its file with size (bytes) and sha256, the tags pip must ask for."""

    package: str
    version: str
    file: str
    size: int
    sha256: str
    platform: str = "any"
    python: str = "3.12"


def cache_root() -> Path:
    """The folder for tools, models and downloads: $HAFS_CACHE, else `hafs` in the platform's cache folder."""
    if named := os.environ.get("HAFS_CACHE"):
        return Path(named).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hafs"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "hafs"


def downloads() -> Path:
    """The folder of the cache that keeps downloaded files."""
    return cache_root() / "downloads"


def file_sha256(path: Path) -> str:
    """The sha256 of a file's content in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def downloaded(file: str, sha256: str) -> Path | None:
    """The kept download `file`, or None when it is not there or its content is not the pinned one."""
    path = downloads() / file
    return path if path.is_file() and file_sha256(path) == sha256 else None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` (created when missing) for this process: two installs at once wait for each other."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    except OSError as e:
        raise _unwritable(folder, e) from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that takes `target`'s place when the block ends well; until then `target` stays.

    Call it under `locked(target.parent)`: what an interrupted earlier run left beside `target` is removed.
    Raises HafsError when the disk refuses (full, read-only).
    """
    part, old = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.old")
    try:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.rename(old)
        part.rename(target)
    except OSError as e:
        raise _unwritable(target, e) from e
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def fetch_wheel(wheel: Wheel, progress: Progress = silent) -> Path:
    """The pinned wheel's file in the cache, downloaded with pip unless it is already there.

    Raises MissingTool when there is no pip, HafsError when the package index does not answer, lacks the file
    or serves another one.
    """
    wanted = f"{wheel.package} {wheel.version}"
    by_hand = (
        "check the network and `pip config list`, then run the same command again; or put the file"
        f" {wheel.file} (sha256 {wheel.sha256}) into {downloads()}"
    )
    with locked(downloads()):
        if kept := downloaded(wheel.file, wheel.sha256):
            return kept
        for left in downloads().glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=downloads(), prefix=".part-") as part:
            failure = _pip_download(wheel, Path(part), progress)
            if failure:
                raise HafsError(f"could not download {wanted}: {failure}", by_hand)
            file = next(Path(part).glob("*.whl"), None)
            if file is None or file_sha256(file) != wheel.sha256:
                raise HafsError(f"the package index served another file for {wanted} than the pinned one", by_hand)
            return file.rename(downloads() / wheel.file)


def _pip_download(wheel: Wheel, folder: Path, progress: Progress) -> str:
    """Run pip in `folder` (also for its temporary files: their growth is the progress); returns "" or a reason."""
    command = [*_pip(), "download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--python-version", wheel.python, "--platform", wheel.platform, "--dest", str(folder)]
    command += ["--disable-pip-version-check", "--no-input", "--retries", "2", "--progress-bar", "off"]
    what, total = f"download {wheel.package}", max(1, wheel.size // 1_000_000)
    with tempfile.TemporaryFile("w+", errors="replace", dir=folder) as log:
        pip = subprocess.Popen(
            [*command, f"{wheel.package}=={wheel.version}"],
            stdout=log,
            stderr=log,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while pip.poll() is None:
                progress(what, min(total - 1, _bytes_in(folder) // 1_000_000), total, {})
                time.sleep(0.2)
        finally:
            pip.kill()
            pip.wait()
        log.seek(0)
        if pip.returncode:
            return _pip_reason(log.read())
    progress(what, total, total, {})
    return ""


def _bytes_in(folder: Path) -> int:
    """How much lies under `folder` now; files that vanish meanwhile count as nothing."""
    total = 0
    for root, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += Path(root, file).stat().st_size
    return total


@cache
def _pip() -> tuple[str, ...]:
    """The command that runs a pip: this Python's, else that of the one it was made from or of one on the path."""
    if importlib.util.find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    base = str(Path(sys.base_prefix, "bin", "python3"))
    for name in (base, "python3", "python"):
        other = shutil.which(name)
        if other and subprocess.run([other, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return (other, "-m", "pip")
    raise MissingTool("there is no pip to download with", f"{sys.executable} -m ensurepip")


def _pip_reason(output: str) -> str:
    """Why pip failed, in a few words."""
    if "connection broken" in output or "Could not fetch URL" in output:
        return "the package index cannot be reached"
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    return f"pip says: {errors[0]}" if errors else "pip failed without a reason"


def _unwritable(path: Path, error: OSError) -> HafsError:
    fix = "free space or set HAFS_CACHE to a folder you can write, then run the same command again"
    return HafsError(f"could not write {path}: {error.strerror or error}", fix)
