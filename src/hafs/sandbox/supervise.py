"""Watching one running program: its output up to a limit, the clock, what it uses; and what became of it.

This is the same for every kind of sandbox. The program is started through a line of shell that sets the kernel's
own limits and prints a mark; if the mark never came, the sandbox failed and not the program.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import signal
import stat
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol

MARK = b"in the sandbox\n"
SCRIPT = (
    'ulimit -c 0 && ulimit -f "$1" && ulimit -t "$2" && ulimit -n "$3" && shift 3 && echo "in the sandbox" && exec "$@"'
)
KILLERS: dict[int, str] = {
    signal.SIGKILL: "killed by SIGKILL, most likely for using more memory than allowed",
    signal.SIGXCPU: "used more processor time than allowed",
    signal.SIGXFSZ: "wrote a larger file than allowed",
    signal.SIGSYS: "made a forbidden system call",
}
PATIENCE = 4
"""How many times its seconds a run may take at most where others keep the processor from it."""
ENTRY_BYTES = 4096  # what a file counts at least, so that a million empty ones are noticed


@dataclass(frozen=True)
class Limits:
    """What one run may use: seconds, memory of all its processes (MiB), processes at once, bytes of standard output and
    of standard error (each), bytes that its folder may grow by (files that were removed and are still open included),
    open files of each process. Its seconds are those of the clock less what it waited while others had the processor.
    """

    seconds: float = 5.0
    memory_mb: int = 1024
    processes: int = 8
    output_bytes: int = 1 << 20
    file_bytes: int = 32 << 20
    open_files: int = 256


@dataclass(frozen=True)
class SandboxJob:
    """One run: the command, its private folder, what it may read besides, its standard input and its limits."""

    argv: tuple[str, ...]
    cwd: str
    read: tuple[str, ...]
    stdin: bytes
    limits: Limits

    def command(self) -> list[str]:
        """The command to start in the sandbox: a shell that sets limits, says so and becomes the program."""
        limits = self.limits
        numbers = (-(-limits.file_bytes // 512), int(limits.seconds) + 1, limits.open_files)  # blocks of 512 bytes
        return ["/bin/sh", "-c", SCRIPT, "sh", *map(str, numbers), *self.argv]

    def environment(self) -> dict[str, str]:
        """All environment variables that the program gets."""
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": self.cwd, "TMPDIR": self.cwd}


@dataclass(frozen=True)
class SandboxOutcome:
    """How a run ended; the fields are those of `Result`."""

    status: str
    returncode: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    reason: str


class Child(Protocol):
    """A started program. `counted` says that the sandbox itself limits memory and processes; `helpers` is how many
    processes of its own a sandbox has between `pid` and the program.
    """

    counted: bool
    helpers: int
    pid: int
    stdin: IO[bytes] | None
    stdout: IO[bytes]
    stderr: IO[bytes]

    def kill(self) -> None:
        """Kill the program and all that it started; nothing happens when they are gone."""

    def wait(self) -> int | None:
        """The exit code, a signal as its negative number; None when the sandbox does not know."""


def supervise(child: Child, job: SandboxJob, cancel: int | None = None) -> SandboxOutcome:
    """Let `child` run to its end or to its first limit, then kill what is left of it.

    `cancel` is a file descriptor that becomes readable when nobody waits for the outcome any more.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        for stream in (child.stdout, child.stderr, child.stdin):
            if stream is not None:
                stack.callback(_close, stream)
        streams = _Streams(child, job)
        try:
            stopped = _watch(child, job, streams, began, cancel)
        finally:
            child.kill()
            code = child.wait()
        streams.drain()
    return _outcome(job, code, stopped, streams, time.monotonic() - began)


def _close(stream: IO[bytes]) -> None:
    with suppress(OSError):
        stream.close()


@dataclass
class _Streams:
    """The three pipes of a child, read and written without blocking; output is kept up to the limit."""

    child: Child
    job: SandboxJob
    kept: dict[int, bytearray] = field(default_factory=dict)
    too_much: bool = False

    def __post_init__(self) -> None:
        self.unsent = memoryview(self.job.stdin)
        self.out, self.err = self.child.stdout.fileno(), self.child.stderr.fileno()
        self.kept = {self.out: bytearray(), self.err: bytearray()}
        for fd in self.kept:
            os.set_blocking(fd, False)
        if self.child.stdin is not None:
            os.set_blocking(self.child.stdin.fileno(), False)

    def read(self, fd: int) -> bool:
        """Take what there is; False at the end of the stream or when nothing more is wanted."""
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        kept = self.kept[fd]
        room = self.job.limits.output_bytes + (len(MARK) if fd == self.out else 0) - len(kept)
        kept += data[:room]
        self.too_much |= len(data) > room
        return bool(data) and not self.too_much

    def write(self, fd: int) -> bool:
        """Send a piece of the standard input; False when it is all sent or the program stopped reading."""
        try:
            self.unsent = self.unsent[os.write(fd, self.unsent[: 1 << 16]) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return len(self.unsent) > 0

    def drain(self) -> None:
        """Take what is left in the pipes of a program that has ended."""
        for fd in self.kept:
            before = -1
            while before < len(self.kept[fd]):
                before = len(self.kept[fd])
                self.read(fd)


def _watch(child: Child, job: SandboxJob, streams: _Streams, began: float, cancel: int | None) -> tuple[str, str]:
    """Wait for the end of `child`; returns (status, reason) when a limit ended the wait, else ("", "")."""
    limits = job.limits
    deadline, tick = began + limits.seconds, 0.1 if child.counted else 0.025
    files_before, looked = folder_bytes(job.cwd), began
    with selectors.DefaultSelector() as selector, ExitStack() as stack:
        try:
            ended = os.pidfd_open(child.pid)
        except ProcessLookupError:
            return "", ""
        stack.callback(os.close, ended)
        selector.register(ended, selectors.EVENT_READ)
        for fd in (*streams.kept, *([] if cancel is None else [cancel])):
            selector.register(fd, selectors.EVENT_READ)
        if child.stdin is not None:
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while True:
            now = time.monotonic()
            if now >= deadline:
                deadline = began + limits.seconds + min(waited(child.pid), (PATIENCE - 1) * limits.seconds)
                if now >= deadline:
                    return "timed out", f"still running after {limits.seconds:g} s"
            for key, events in selector.select(min(deadline, looked + tick) - now):
                if key.fd == ended or key.fd == cancel:
                    return "", ""
                if events & selectors.EVENT_READ:
                    more = streams.read(key.fd)
                else:
                    more = streams.write(key.fd)
                if not more:
                    selector.unregister(key.fileobj)
                    if child.stdin is not None and key.fileobj is child.stdin:
                        _close(child.stdin)
            if streams.too_much:
                return "killed", _TOO_MUCH.format(f"{limits.output_bytes} bytes of output")
            if time.monotonic() >= looked + tick:
                if excess := _excess(child, job, files_before):
                    return "killed", _TOO_MUCH.format(excess)
                looked = time.monotonic()


_TOO_MUCH = "used more than {}"


def _excess(child: Child, job: SandboxJob, files_before: float) -> str:
    """The limit on files, memory or processes that the run is above now, in words, or ""."""
    limits = job.limits
    sizes = tree_bytes(child.pid)
    files = folder_bytes(job.cwd, files_before + limits.file_bytes) + removed_bytes(sizes)
    if files > files_before + limits.file_bytes:
        return f"{limits.file_bytes} bytes of files"
    if not child.counted:
        if sum(sizes.values()) > limits.memory_mb << 20:
            return f"{limits.memory_mb} MiB of memory"
        if len(sizes) - child.helpers > limits.processes:
            return f"{limits.processes} processes"
    return ""


def waited(root: int) -> float:
    """The seconds for which a thread of `root`, or of what descends from it, stood ready and had no processor.

    The most of any thread; 0 where the kernel does not say.
    """
    most = 0
    for pid in tree_bytes(root):
        with suppress(OSError, ValueError, IndexError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                most = max(most, int((task / "schedstat").read_text().split()[1]))
    return most / 1e9


def folder_bytes(folder: str, enough: float = math.inf) -> float:
    """The disk space (bytes) under `folder`, at least 4096 an entry; counting stops above `enough`.

    Infinite when folders are nested deeper than the system's longest path, where files would go unseen.
    """
    total, folders = 0.0, [folder]
    while folders and total <= enough:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        total += max(ENTRY_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
        except OSError as e:
            total += math.inf if e.errno == errno.ENAMETOOLONG else 0
    return total


def removed_bytes(pids: Iterable[int]) -> float:
    """The disk space (bytes) of files that these processes hold open and that no folder names any more."""
    found: dict[tuple[int, int], int] = {}
    for pid in pids:
        with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    about = entry.stat()
                    if stat.S_ISREG(about.st_mode) and not about.st_nlink:
                        found[about.st_dev, about.st_ino] = about.st_blocks * 512
    return float(sum(found.values()))


def tree_bytes(root: int) -> dict[int, int]:
    """The resident memory (bytes) of process `root` and of each living process that descends from it, by its id."""
    parents: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if after_name[0] != "Z":
                    parents.setdefault(int(after_name[1]), []).append(int(folder.name))
                    resident[int(folder.name)] = int(after_name[21]) * page
    found: dict[int, int] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in resident:
            found[pid] = resident[pid]
        waiting += parents.get(pid, ())
    return found


def _outcome(
    job: SandboxJob, code: int | None, stopped: tuple[str, str], streams: _Streams, seconds: float
) -> SandboxOutcome:
    stdout, stderr = bytes(streams.kept[streams.out]), bytes(streams.kept[streams.err])
    if not stdout.startswith(MARK):
        why = stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["the program was never reached"]
        return SandboxOutcome("sandbox broken", None, b"", stderr, seconds, why[0])
    stdout = stdout.removeprefix(MARK)
    status, reason = stopped
    if status:
        return SandboxOutcome(status, None, stdout, stderr, seconds, reason)
    if code is None:
        return SandboxOutcome("sandbox broken", None, stdout, stderr, seconds, "the sandbox lost its program")
    if streams.too_much:
        reason = _TOO_MUCH.format(f"{job.limits.output_bytes} bytes of output")
        return SandboxOutcome("killed", None, stdout, stderr, seconds, reason)
    if code < 0:
        if -code in KILLERS:
            return SandboxOutcome("killed", code, stdout, stderr, seconds, KILLERS[-code])
        return SandboxOutcome(
            "failed", code, stdout, stderr, seconds, f"ended by signal {signal.strsignal(-code) or -code}"
        )
    status, reason = ("failed", f"exit code {code}") if code else ("finished", "")
    return SandboxOutcome(status, code, stdout, stderr, seconds, reason)
