"""Running a program that nobody vouches for: no network, no file but its own, and limits on all it can use up.

    box = open_sandbox()
    result = box.run(["/path/to/asar", "a.asm", "a.sfc"], files={"a.asm": source}, collect=["a.sfc"])

Every run gets an empty private folder that is its working directory and is removed afterwards. The program reads
that folder, the system's libraries and what `read` names; it writes that folder. Its environment holds nothing of
ours. When it ends, is too slow or too greedy, it and all that it started are killed.

Two kinds confine: `sandlock` (Landlock and seccomp, no privileges, Linux 6.12 or newer) and `bubblewrap` (user
namespaces). `none` keeps the limits and confines nothing; it is used only by those who ask for it by name.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hafs.errors import SandboxUnavailable, UsageError
from hafs.sandbox.box import Box, Bubblewrap, Result, Sandbox, Unconfined, interpreter
from hafs.sandbox.landlock import Sandlock
from hafs.sandbox.supervise import Limits

__all__ = ["CONFINING", "KINDS", "Limits", "Result", "Sandbox", "interpreter", "open_sandbox", "probe"]

KINDS: dict[str, type[Box]] = {"sandlock": Sandlock, "bubblewrap": Bubblewrap, "none": Unconfined}
CONFINING = ("sandlock", "bubblewrap")


def open_sandbox(kind: str = "auto") -> Sandbox:
    """A sandbox that has just proven that it works: "auto" takes the first of sandlock and bubblewrap that does.

    One sandbox runs one program at a time; open one per thread. "auto" never takes "none". Raises
    SandboxUnavailable with the reason of each kind tried, UsageError for an unknown kind.
    """
    if kind != "auto" and kind not in KINDS:
        raise UsageError(f"there is no sandbox {kind!r}", f"use one of: auto, {', '.join(KINDS)}")
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable("running untrusted programs needs Linux", "use a Linux machine or container")
    return _first_working(CONFINING if kind == "auto" else (kind,))


def probe(kind: str) -> str:
    """Why the sandbox `kind` does not work on this machine, or "" when a real run in it went as it should."""
    box = KINDS[kind]()
    try:
        return box.fault()
    finally:
        box.close()


def _first_working(kinds: Sequence[str]) -> Box:
    faults = []
    for kind in kinds:
        box = KINDS[kind]()
        fault = box.fault()
        if not fault:
            return box
        box.close()
        faults.append(f"{kind}: {fault}")
    raise SandboxUnavailable(
        f"no sandbox works here, and untrusted programs are not run without one ({'; '.join(faults)})",
        "pip install 'hafs[asm]' (needs Linux 6.12 or newer), or install bubblewrap (`apt-get install bubblewrap`);"
        " where you trust what runs, ask for the sandbox `none` by name",
    )
