"""What hafs finds on this machine: one check per thing it needs, each with the command that mends it.

The checks try things out (a run in the sandbox, a run of the assembler, loading the emulator core) where that takes
a fraction of a second. Torch takes seconds to import, so only its version is looked up unless the device is asked
for.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from hafs import sandbox
from hafs.errors import MissingTool
from hafs.files.fetch import cache_root
from hafs.models import naming as models
from hafs.tasks.domain import domains

__all__ = ["Check", "checks", "output"]

PYTHONS = ((3, 11), (3, 15))
PACKAGES = ("torch", "transformers", "peft", "accelerate")
KEYS = ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")
GIB = 1 << 30
ROOM = 3 * GIB  # the embedded model with its download takes 0.6 GiB; the rest is for the checkpoints of a run


@dataclass(frozen=True)
class Check:
    """One thing looked at. `status` is "ok", "warn" (works, or is optional) or "missing"; `fix` mends it."""

    name: str
    status: str
    detail: str
    fix: str = ""

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def checks(device: bool = False) -> list[Check]:
    """Look at everything hafs uses, in the order in which one would mend it. Raises nothing.

    With `device`, torch is imported (seconds) to see what it computes on.
    """
    every: list[Callable[[], list[Check]]] = [
        _python,
        _packages,
        _extras,
        _torch_device if device else _device,
        _sandbox,
        *(domain.checks for domain in domains()),
        _model,
        _judge_keys,
        _disk,
    ]
    return [check for look in every for check in look()]


def _python() -> list[Check]:
    low, high = PYTHONS
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    fits = low <= sys.version_info[:2] < high
    fix = "" if fits else f"install Python {low[0]}.{low[1]} or newer, below {high[0]}.{high[1]}"
    return [Check("python", "ok" if fits else "missing", detail, fix)]


def _packages() -> list[Check]:
    found = []
    for name in PACKAGES:
        try:
            found.append(Check(name, "ok", version(name)))
        except PackageNotFoundError:
            found.append(Check(name, "missing", "not installed", f"pip install {name}"))
    return found


def _extras() -> list[Check]:
    """The extras of hafs that are installed, and of each other one what it lacks."""
    lacking: dict[str, list[str]] = {}
    for name in metadata("hafs").get_all("Provides-Extra") or ():
        if name not in ("dev", "all"):
            lacking[name] = [r.name for r in _needed(name) if not _here(r)]
    if not lacking:
        return []
    here = ", ".join(name for name, gone in lacking.items() if not gone)
    gone = "; ".join(f"{name} lacks {', '.join(dict.fromkeys(found))}" for name, found in lacking.items() if found)
    fix = f"pip install 'hafs[{','.join(name for name, found in lacking.items() if found)}]'" if gone else ""
    return [Check("extras", "warn" if gone else "ok", "; ".join(filter(None, (here, gone))), fix)]


def _needed(extra: str) -> list[Requirement]:
    """What an extra asks for on this machine."""
    marked = [(r, r.marker) for r in map(Requirement, requires("hafs") or ()) if r.marker]
    return [r for r, m in marked if m.evaluate({"extra": extra}) and not m.evaluate({"extra": ""})]


def _here(needed: Requirement) -> bool:
    try:
        return needed.specifier.contains(version(needed.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _device() -> list[Check]:
    if Path("/dev/nvidiactl").exists():
        return [Check("device", "ok", "an NVIDIA GPU is present")]
    return [Check("device", "ok", f"no NVIDIA GPU seen: {os.cpu_count()} processor cores")]


def _torch_device() -> list[Check]:
    try:
        import torch
    except (ImportError, OSError) as e:
        return [Check("device", "missing", f"torch cannot be imported: {e}", "pip install --force-reinstall torch")]
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        return card_checks(card.name, card.total_memory)
    if Path("/dev/nvidiactl").exists():
        detail = f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it"
        return [Check("device", "warn", detail, "install a CUDA build of torch that fits the driver")]
    none = "no card is seen: `hafs doctor --cards` says which models train on which"
    return [Check("device", "ok", f"processor, {torch.get_num_threads()} threads"), Check("training", "ok", none)]


def card_checks(name: str, memory: int) -> list[Check]:
    """What a card of `memory` bytes is, and the largest models that train on it by the planner's figures."""
    from hafs.training.cards import largest

    rows = [Check(f"trains by {method}", "ok", sizes, command) for method, sizes, command in largest(memory)]
    return [Check("device", "ok", f"{name}, {memory / GIB:.0f} GiB"), *rows]


def _sandbox() -> list[Check]:
    if not sys.platform.startswith("linux"):
        return [Check("sandbox", "missing", "untrusted programs run on Linux only", "use a Linux machine")]
    faults = {kind: sandbox.probe(kind) for kind in sandbox.CONFINING}
    detail = "; ".join(f"{kind}: {fault}" if fault else f"{kind} works" for kind, fault in faults.items())
    if not all(faults.values()):
        return [Check("sandbox", "ok", detail)]
    fix = "pip install 'hafs[asm]' (needs Linux 6.12 or newer), or apt-get install bubblewrap"
    return [Check("sandbox", "missing", detail, fix)]


def output(command: list[str]) -> str:
    """What a trusted command printed, or the last line of why it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    if done.returncode == 0:
        return done.stdout.strip()
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _model() -> list[Check]:
    try:
        return [Check("model", "ok", f"SmolLM2-135M-Instruct ({models.resolve('default')})")]
    except MissingTool as e:
        return [Check("model", "missing", e.what, e.fix)]


def _judge_keys() -> list[Check]:
    present = [key for key in KEYS if os.environ.get(key)]
    detail = ", ".join(f"{key} {'is set' if key in present else 'is not set'}" for key in KEYS)
    fix = "" if present else "only a judge behind an API needs one: export ANTHROPIC_API_KEY=…"
    return [Check("judge keys", "ok" if present else "warn", detail, fix)]


def _disk() -> list[Check]:
    found = []
    for name, folder in (("cache", cache_root()), ("here", Path())):
        there = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
        free = shutil.disk_usage(there).free
        enough = free >= ROOM
        fix = "free space" + ("" if enough or name == "here" else ", or set HAFS_CACHE to a folder with more")
        detail = f"{free / GIB:.1f} GiB free in {folder if folder.is_absolute() else 'this folder'}"
        found.append(Check(f"disk ({name})", "ok" if enough else "warn", detail, "" if enough else fix))
    return found
