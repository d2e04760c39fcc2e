"""What `hafs doctor` says of the assembler and the emulator: both are tried."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hafs.doctor import Check, output
from hafs_snes import tools

__all__ = ["assembler", "emulator"]

PROBE_CORE = """
import ctypes, sys
class Info(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("version", ctypes.c_char_p), ("rest", ctypes.c_char * 64)]
core, info = ctypes.CDLL(sys.argv[1]), Info()
core.retro_get_system_info(ctypes.byref(info))
print(info.name.decode(), info.version.decode())
"""


def assembler() -> list[Check]:
    """Whether asar is there, runs, and is the pinned version."""
    row = _tool("asar")
    if row["path"] is None or not row["ok"]:
        return [Check("assembler", "missing", row["detail"], row["fix"])]
    said = output([row["path"], "--version"])
    if not said.startswith("Asar "):
        return [Check("assembler", "missing", f"{row['path']} does not run: {said}", row["fix"] or tools.INSTALL)]
    wanted = said.startswith("Asar 1.91,")
    detail = f"{said.split(',')[0]} ({row['path']})"
    return [Check("assembler", "ok" if wanted else "warn", detail, "" if wanted else _not_pinned("asar 1.91"))]


def emulator() -> list[Check]:
    """Whether the emulator core is there, loads, and is the pinned version."""
    row = _tool("bsnes")
    if row["path"] is None or not row["ok"]:
        return [Check("emulator", "missing", row["detail"], row["fix"])]
    said = output([sys.executable, "-I", "-c", PROBE_CORE, row["path"]])
    if "bsnes" not in said:
        return [Check("emulator", "missing", f"{row['path']} does not load: {said}", tools.INSTALL)]
    try:
        version("libretro.py")
    except PackageNotFoundError:
        return [Check("emulator", "missing", "the package libretro.py is not installed", "pip install 'hafs[asm]'")]
    status = "ok" if row["pinned"] else "warn"
    wanted = f"bsnes-mercury balanced {tools.CORE_VERSION}"
    return [Check("emulator", status, f"{said} ({row['path']})", "" if row["pinned"] else _not_pinned(wanted))]


def _tool(name: str) -> dict[str, Any]:
    return next(row for row in tools.status() if row["name"] == name)


def _not_pinned(wanted: str) -> str:
    return f"scores are comparable with those of other machines only with {wanted}"
