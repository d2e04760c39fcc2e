"""What the kinds of sandbox have in common, and the two that are plain child processes: bubblewrap and none."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from hafs.sandbox import selftest
from hafs.sandbox.seccomp import FORBIDDEN, RESTRICTED, Rule, seccomp_filter
from hafs.sandbox.supervise import Job, Limits, Outcome, supervise

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/bin/sh")
DEVICES = ("/dev/zero", "/dev/urandom")
"""What every program may read, where it exists: the system's libraries, the shell that starts it, two devices."""


@dataclass(frozen=True)
class Result:
    """How a run ended.

    `status` is "finished" (exit code 0), "failed" (another exit code, or a crash), "timed out", "killed" (by a
    limit) or "sandbox broken" (the program was not run as promised: this says nothing about the program).
    `returncode` is the exit code, or a signal as its negative number, or None. `stdout` and `stderr` are cut at
    `Limits.output_bytes`. `files` are the collected files that exist. `seconds` is wall-clock time. `reason` says in
    words why the status is not "finished".
    """

    status: str
    returncode: int | None
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""


class Sandbox(Protocol):
    """Runs one program at a time, each in a private folder of its own."""

    name: str

    def run(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] = ...,
        read: Sequence[Path] = ...,
        collect: Sequence[str] = ...,
        stdin: bytes = ...,
        limits: Limits = ...,
    ) -> Result:
        """Run `argv` with `files` in its folder and bring back those named by `collect`.

        `argv[0]` is an absolute path or a name on the path; `read` are further files and folders that the program
        may read and execute. File names are relative to the folder. Raises ValueError for a name that leaves it.
        """

    def close(self) -> None:
        """Give back what the sandbox holds; it may be used again afterwards."""


class Box:
    """A sandbox but for `_execute`: the private folder, what goes in, what comes back, and the proof that it holds."""

    name = ""
    confines = True

    def run(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, bytes] | None = None,
        read: Sequence[Path] = (),
        collect: Sequence[str] = (),
        stdin: bytes = b"",
        limits: Limits | None = None,
    ) -> Result:
        """See `Sandbox.run`."""
        given, limits = files or {}, limits or Limits()
        for name in (*given, *collect):
            _check_name(name)
        try:
            with _private_folder() as cwd:
                for name, content in given.items():
                    path = cwd / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                program = _program(argv[0])
                readable = (program, *(str(path.absolute()) for path in read))
                job = Job((program, *argv[1:]), str(cwd), readable, stdin, limits)
                outcome = self._execute(job)
                found = {name: data for name in collect if (data := _collect(cwd, name, limits)) is not None}
        except OSError as e:
            outcome, found = Outcome("sandbox broken", None, b"", b"", 0.0, str(e)), {}
        return Result(
            outcome.status, outcome.returncode, outcome.stdout, outcome.stderr, found, outcome.seconds, outcome.reason
        )

    def close(self) -> None:
        """See `Sandbox.close`."""

    def fault(self) -> str:
        """Why this sandbox does not work here, or "" after a real program in it could do none of what it must not."""
        program, readable = interpreter()
        script = Path(selftest.__file__).read_text(encoding="utf-8")
        with (
            tempfile.TemporaryDirectory(prefix=f"hafs-secret-{os.getpid()}-") as folder,
            socket.create_server(("127.0.0.1", 0)) as port,
        ):
            secret = Path(folder, "secret")
            secret.write_text("secret\n")
            given = [str(secret), str(os.getpid()), str(port.getsockname()[1])]
            result = self.run([program, "-sPSB", "-c", script, *given], read=readable, limits=Limits(seconds=20.0))
        if result.status != "finished":
            return result.reason
        *worked, last = result.stdout.decode(errors="replace").splitlines() or [""]
        if worked and self.confines:
            return f"a program in it could {worked[0]}"
        return "" if last == selftest.WORKS else "a program in it lost its output"

    def _execute(self, job: Job) -> Outcome:
        """Run the job. Raises OSError when it cannot be started."""
        raise NotImplementedError


class Bubblewrap(Box):
    """bwrap: a mount namespace that holds only what the program may see, and no network namespace but its own."""

    name = "bubblewrap"

    def _execute(self, job: Job) -> Outcome:
        if (bwrap := shutil.which("bwrap")) is None:
            raise OSError("the program bwrap is not installed")
        refused = seccomp_filter({**dict.fromkeys(FORBIDDEN, Rule()), **RESTRICTED})
        command = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
        for path in (*_existing(LIBRARIES), *job.read):
            command += ["--ro-bind", path, path]
        for path in ("/dev/null", *_existing(DEVICES)):
            command += ["--dev-bind", path, path]
        command += ["--bind", job.cwd, job.cwd, "--remount-ro", "/", "--chdir", job.cwd]
        with tempfile.TemporaryFile() as file:
            file.write(refused)
            file.seek(0)
            command += ["--seccomp", str(file.fileno()), "--", *job.command()]
            return supervise(_Wrapped(_start(command, job, file.fileno())), job)


class Unconfined(Box):
    """No confinement: the limits, a private folder and a clean environment, for programs that are trusted."""

    name = "none"
    confines = False

    def _execute(self, job: Job) -> Outcome:
        return supervise(_Plain(_start(job.command(), job)), job)


def _start(command: Sequence[str], job: Job, *kept: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=job.cwd,
        env=job.environment(),
        stdin=subprocess.PIPE if job.stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
        pass_fds=kept,
    )


class _Plain:
    """A child process in a session of its own."""

    counted = False
    helpers = 0

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process, self.pid = process, process.pid
        self.stdin: IO[bytes] | None = process.stdin
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        return self.process.wait()


class _Wrapped(_Plain):
    """bwrap and what is in it: when bwrap dies, the kernel ends the whole process namespace."""

    helpers = 2

    def wait(self) -> int | None:
        code = self.process.wait()
        return 128 - code if 128 < code <= 128 + signal.NSIG else code


@cache
def interpreter() -> tuple[str, list[Path]]:
    """This Python's own program, not a link of a virtual environment, and what it has to read."""
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    places = [sysconfig.get_paths()["stdlib"], sysconfig.get_config_var("LIBDIR") or ""]
    return str(program), [program, *(Path(p) for p in places if p and Path(p).is_dir())]


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name!r} is not a file name inside the sandbox's folder")


def _program(name: str) -> str:
    """The absolute path of a program. Raises FileNotFoundError."""
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no program {name!r}")
    return str(Path(found).absolute())


def _existing(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if Path(path).exists()]


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A new folder that is removed afterwards, whatever a program left in it."""
    _sweep_once()
    folder = Path(tempfile.mkdtemp(prefix=f"hafs-box-{os.getpid()}-"))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # folders without permissions, or nested too deep for Python
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(folder)], stderr=subprocess.DEVNULL)


LEFT_BEHIND = 3600.0
"""Seconds after which a folder whose process is gone was left behind: not one of a process that we cannot see."""


@cache
def _sweep_once() -> None:
    sweep(Path(tempfile.gettempdir()))


def sweep(where: Path) -> int:
    """Remove the folders that killed runs of this user left in `where`; returns how many there were."""
    swept = 0
    for folder in where.glob("hafs-*-*-*"):
        kind = re.fullmatch(r"hafs-(?:box|secret|lint)-(\d+)-\w+", folder.name)
        if kind is None or Path(f"/proc/{kind[1]}").exists():
            continue
        with suppress(OSError):
            about = folder.lstat()
            mine = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
            if mine and about.st_mtime < time.time() - LEFT_BEHIND:
                _remove(folder)
                swept += 1
    return swept


def _collect(folder: Path, name: str, limits: Limits) -> bytes | None:
    """The content of a plain file in `folder`, up to the limit; None when there is none. Links are not followed."""
    *parents, last = PurePosixPath(name).parts
    opened = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for parent in parents:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            opened.append(os.open(parent, flags, dir_fd=opened[-1]))
        opened.append(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            return None
        with os.fdopen(opened.pop(), "rb") as file:
            return file.read(limits.file_bytes)
    except OSError:
        return None
    finally:
        for fd in opened:
            os.close(fd)
