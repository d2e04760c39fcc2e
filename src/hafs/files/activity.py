"""What runs in a workspace: a small file for each process that does long work there, with its stages and a heartbeat.

A process writes `.running/PID-BEGAN.json` while it works and takes it away when it ends. Who reads it trusts no file: a
process of this machine lives when the operating system has one with that number that began at that moment, one of
another machine while its heartbeat is fresh. What was killed leaves its file, and is told apart by that.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hafs.errors import HafsError, UsageError
from hafs.files.jsonl import atomic_write

FOLDER = ".running"
BEAT = 2.0
"""Seconds between two writes of a process that works."""
SILENT = 60.0
"""Seconds after which a process of another machine that has not written counts as gone."""
FORGOTTEN = 86_400.0
"""Seconds after which the file of a process that was killed is taken away."""


@dataclass
class StageProgress:
    """A stage of a running process: how much of it is done, its newest figures, when it began and last moved."""

    what: str
    done: int
    total: int
    figures: dict[str, float]
    began: float
    moved: float
    first: int = 0

    @property
    def seconds_left(self) -> float | None:
        """What the work itself says, else what its pace so far says; None before there is one."""
        if self.done >= self.total:
            return None
        if (known := self.figures.get("seconds_left")) is not None:
            return known
        made = self.done - self.first
        return (self.moved - self.began) / made * (self.total - self.done) if made > 0 else None


@dataclass
class Activity:
    """A process at work: whose it is, what was typed, its stages in the order in which they began, its memory in bytes.

    `born` is the moment at which the operating system says that it began, `folder` the training directory that it
    writes, `beat` when it last wrote.
    """

    pid: int
    host: str
    born: int
    command: str
    since: float
    stages: list[StageProgress] = field(default_factory=list)
    folder: str = ""
    memory: int = 0
    beat: float = 0.0

    @property
    def id(self) -> str:
        """Its name in the workspace."""
        return f"{self.pid}-{self.born}"

    @property
    def here(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return _born(self.pid) == self.born if self.here else time.time() - self.beat < SILENT

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        stages = [{**asdict(s), "seconds_left": s.seconds_left} for s in self.stages]
        return {**asdict(self), "id": self.id, "alive": self.alive, "stages": stages}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Activity:
        """The inverse of what is in its file."""
        return cls(**{**row, "stages": [StageProgress(**s) for s in row["stages"]]})


class _Recorder:
    """Keeps this process's file: stages come from progress, the heartbeat from a thread."""

    def __init__(self, root: Path) -> None:
        pid = os.getpid()
        command = shlex.join(["hafs", *sys.argv[1:]])[:2000]
        self.about = Activity(pid, socket.gethostname(), _born(pid) or 0, command, time.time(), folder=_STATE["folder"])
        self._path = root / FOLDER / f"{self.about.id}.json"
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def begin(self) -> None:
        with suppress(OSError):  # a workspace that cannot be written is told of by the work itself
            self._path.parent.mkdir(exist_ok=True)
        self._write()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def end(self) -> None:
        self._ended.set()
        with self._lock, suppress(OSError):
            self._path.unlink(missing_ok=True)

    def moved(self, what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        now = time.time()
        with self._lock:
            stages = self.about.stages
            found = next((s for s in stages if s.what == what), None)
            if found is None or done < found.done:
                fresh = StageProgress(what, done, total, {}, now, now, done)
                stages[:] = [*[s for s in stages if s.what != what][-11:], fresh]
                found = fresh
            elif found is not stages[-1]:  # a stage that goes on after another one
                stages.remove(found)
                stages.append(found)
            found.done, found.total, found.moved = done, total, now
            found.figures |= {k: v for k, v in figures.items() if isinstance(v, int | float) and v == v}
        if now - self.about.beat > BEAT:
            self._write()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._write()

    def _write(self) -> None:
        with self._lock, suppress(OSError, HafsError):
            if self._ended.is_set():
                return
            self.about.beat, self.about.memory, self.about.folder = time.time(), _memory(), _STATE["folder"]
            with atomic_write(self._path) as f:
                json.dump(asdict(self.about), f)


_STATE: dict[str, Any] = {"recorder": None, "folder": ""}


@contextmanager
def recorded(root: Path | None) -> Iterator[None]:
    """Let the workspace at `root` know that this process works there; nothing without one, or where it is known."""
    if root is None or _STATE["recorder"] is not None:
        yield
        return
    recorder = _STATE["recorder"] = _Recorder(root)
    recorder.begin()
    try:
        yield
    finally:
        _STATE["recorder"] = None
        recorder.end()


def record_progress(what: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """A `Progress` that goes into this process's file."""
    if (recorder := _STATE["recorder"]) is not None:
        recorder.moved(what, done, total, figures)


def record_folder(folder: Path) -> None:
    """Note the training directory that this process writes."""
    _STATE["folder"] = str(folder.absolute())


def activities(root: Path) -> list[Activity]:
    """The processes at work in the workspace at `root`, and those that were killed within a day; the oldest first."""
    found = []
    for path in (root / FOLDER).glob("*.json"):
        try:
            about = Activity.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):  # it ended meanwhile, or is no file of ours
            continue
        if not about.alive and time.time() - about.beat > FORGOTTEN:
            path.unlink(missing_ok=True)
            continue
        found.append(about)
    return sorted(found, key=lambda a: (a.since, a.pid))


def stop(root: Path, id: str) -> Activity:
    """Send a process what Ctrl-C sends, after making sure that it is the one meant; gives the process.

    Raises UsageError when there is none, when it is another machine's or another user's.
    """
    about = next((a for a in activities(root) if a.id == id), None)
    if about is None or not about.alive:
        raise UsageError("that process has ended", "load the page again")
    if not about.here:
        raise UsageError(f"it runs on {about.host}", "press Ctrl-C there")
    try:
        os.kill(about.pid, signal.SIGINT)
    except OSError as e:
        raise UsageError(f"process {about.pid} cannot be stopped from here: {e.strerror}", "press Ctrl-C there") from e
    return about


def forget(root: Path, id: str) -> None:
    """Take the file of a killed process away."""
    for about in activities(root):
        if about.id == id and not about.alive:
            (root / FOLDER / f"{id}.json").unlink(missing_ok=True)


def memory_limit() -> int:
    """Bytes that processes of this machine may use together: the control group's limit, else what it has."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return min(total, int(Path(path).read_text()))
    return total


def _born(pid: int) -> int | None:
    """When the process began, in the kernel's ticks; None when there is none, or a dead one that nobody has buried."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
