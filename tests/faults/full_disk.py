"""A full disk at each write of every verb of the path, and a file system of a few sizes that are too small.

A full disk is `ENOSPC` at the one moment, put where files are opened, made, renamed, synced and committed (no file
system has to be mounted for it, so it is tried everywhere); where this user may mount a file system of a chosen size,
the same is done with one that is really full. The verb must say so without a traceback; with space again the same
command must leave what it leaves undisturbed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from boundaries import PATH, Play, Verb, fill, places, playing
from catalogue import Fault, Outcome
from killed import LOOP, QUICK, tried

SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the bytes that a verb writes, those for which there is space."""

FAULTS = [Fault(f"disk full at a write: {verb.name}", verb.name) for verb in PATH] + [
    Fault(f"small disk: {verb.name}", verb.name) for verb in PATH if verb.name != "loop"
]


def outcomes(faults: Sequence[Fault], quick: bool = False) -> Iterator[Outcome]:
    """Each verb with each of its writes refused."""
    verbs = {verb.name: verb for verb in PATH}
    with playing() as play:
        for fault in FAULTS[: len(PATH)] if quick else faults:
            verb = verbs[fault.attack]
            if quick and verb.name not in QUICK:
                continue
            quiet = play.undisturbed(verb)
            if "small" in fault.name:
                yield from small_disks(play, verb)
                continue
            most = 2 if quick else LOOP if verb.name == "loop" else None
            for at, what in places(quiet.passed, most):
                if what.startswith("before"):
                    yield tried(play, verb, f"disk full {what}", play.run(verb, play.fresh(verb), at, fill))


def small_disks(play: Play, verb: Verb) -> Iterator[Outcome]:
    """The verb on file systems that have space for a part of what it writes."""
    root = play.fresh(verb)
    before = used(root)
    play.run(verb, root)
    written = used(root) - before
    for share in SHARES:
        root = play.fresh(verb)
        away = root.rename(root.with_name("away"))
        root.mkdir()
        if not mount(root, before + int(written * share)):
            root.rmdir()
            away.rename(root)
            return
        try:
            shutil.copytree(away, root, dirs_exist_ok=True)
            broken = play.run(verb, root)
            mount(root, 1 << 30, again=True)
            yield tried(play, verb, f"a disk for {share:.0%} of it", broken)
        finally:
            LIBC.umount2(os.fsencode(root), 2)  # MNT_DETACH
            shutil.rmtree(away)


LIBC = ctypes.CDLL(None, use_errno=True)


def mount(where: Path, size: int, again: bool = False) -> bool:
    """Mount a file system in memory of that size (or change its size); whether this user may."""
    options = f"size={max(size, 1 << 16)}".encode()
    return LIBC.mount(b"none", os.fsencode(where), b"tmpfs", 32 if again else 0, options) == 0  # MS_REMOUNT


def used(folder: Path) -> int:
    """Bytes that the files of a folder take in a file system in memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(-(-p.lstat().st_size // page) * page for p in folder.rglob("*") if p.is_file())
