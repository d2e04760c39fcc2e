"""The sandbox made of Landlock and seccomp, through the package sandlock.

The package forks the calling process, which takes a quarter of a second when that process holds a 3 GB model
(measured; 4 ms from a small one). So the runs are made by a small helper process that lives as long as the sandbox;
it hears of a run through a pipe and ends when the other side of the pipe is gone.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from hafs.sandbox.box import DEVICES, LIBRARIES, Box, _existing
from hafs.sandbox.seccomp import FORBIDDEN, RESTRICTED, drop_capabilities, install, seccomp_filter
from hafs.sandbox.supervise import Job, Outcome, supervise

GRACE = 30.0  # seconds that the helper may take beyond a run's own limit, on a machine that is very busy
_UNGUARDED = (
    "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat setxattr"
    " lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat file_setattr chroot"
    " mknod mknodat"
)
UNGUARDED = tuple(_UNGUARDED.split())
"""System calls refused beyond those of seccomp.py: Landlock does not guard a file's mode, owner, times and attributes,
so a program could change those of any file of the user."""


class Sandlock(Box):
    """Landlock and seccomp, without privileges or namespaces."""

    name = "sandlock"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._helper: _Helper | None = None

    def _execute(self, job: Job) -> Outcome:
        if importlib.util.find_spec("sandlock") is None:
            raise OSError("the package sandlock is not installed")
        for path in job.read:
            Path(path).stat()
        with self._lock:
            if self._helper is None:
                self._helper = _Helper()
            try:
                return self._helper.ask(job)
            except BaseException as e:  # also an interrupt: the next run must not get this one's answer
                self._drop()
                if not isinstance(e, (EOFError, OSError)):
                    raise
                broken = f"the sandbox's helper process died or did not answer: {e or type(e).__name__}"
                return Outcome("sandbox broken", None, b"", b"", 0.0, broken)

    def close(self) -> None:
        """See `Sandbox.close`."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._helper is not None:
            self._helper.close()
        self._helper = None


class _Helper:
    """The helper process and our end of the pipe to it."""

    def __init__(self) -> None:
        self._pipe, other = Pipe()
        path = os.pathsep.join(p for p in sys.path if p)
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path}
        self._process = subprocess.Popen(
            [sys.executable, "-s", "-c", f"from hafs.sandbox.landlock import serve; serve({other.fileno()})"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            pass_fds=[other.fileno()],
            start_new_session=True,
        )
        other.close()
        self.close = weakref.finalize(self, _end, self._pipe, self._process)

    def ask(self, job: Job) -> Outcome:
        """Have the helper run the job. Raises EOFError or OSError when it does not answer."""
        self._pipe.send(job)
        if not self._pipe.poll(job.limits.seconds + GRACE):
            raise TimeoutError("no answer in time")
        outcome = self._pipe.recv()
        assert isinstance(outcome, Outcome)
        return outcome


def _end(pipe: Connection[Any, Any], process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, upon which the helper ends its run and itself; kill it when it does not."""
    pipe.close()
    try:
        process.wait(5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Confined:
    """A process started by sandlock, as `supervise` wants it."""

    counted = True
    helpers = 0

    def __init__(self, process: Any) -> None:
        self.process = process
        self.pid = process.pid
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int | None:
        from sandlock._sdk import ExitReason

        result = self.process.wait(timeout=GRACE / 2)
        codes = {ExitReason.EXITED: result.exit_code, ExitReason.SIGNALED: -result.signal, ExitReason.KILLED: -9}
        return codes.get(result.reason)


def execute(job: Job, cancel: int | None = None) -> Outcome:
    """Run a job with sandlock from this very process; `cancel` as in `supervise`."""
    import sandlock

    policy = sandlock.Sandbox(
        fs_readable=[*_existing((*LIBRARIES, *DEVICES)), *job.read],
        fs_writable=[job.cwd, "/dev/null"],
        cwd=job.cwd,
        clean_env=True,
        env=job.environment(),
        max_memory=job.limits.memory_mb << 20,
        max_processes=job.limits.processes,
        extra_deny_syscalls=[*FORBIDDEN, *UNGUARDED],
        no_coredump=True,
    )
    piped, null = sandlock.StdioMode.PIPED, sandlock.StdioMode.NULL
    try:
        process = policy.popen(job.command(), stdin=piped if job.stdin else null, stdout=piped, stderr=piped)
    except (RuntimeError, sandlock.SandlockError) as e:
        return Outcome("sandbox broken", None, b"", b"", 0.0, _explain(sandlock, e))
    return supervise(_Confined(process), job, cancel)


def _explain(sandlock: Any, error: Exception) -> str:
    """What sandlock's error means on this machine."""
    have, need = sandlock.landlock_abi_version(), sandlock.min_landlock_abi()
    if have < need:
        return f"the kernel offers Landlock ABI {max(have, 0)}, sandlock needs {need} (Linux 6.12 or newer)"
    return str(error)


def serve(fd: int) -> None:
    """Run jobs from the pipe at file descriptor `fd` until its other end is gone: the whole life of the helper.

    The helper gives up the powers of root and takes on the restrictions on arguments, which its programs inherit; the
    calls that are forbidden altogether are sandlock's to refuse, since sandlock itself makes some of them.
    """
    os.set_inheritable(fd, False)
    pipe: Connection[Any, Any] = Connection(fd)
    fault = _confine_helper()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            try:
                if fault:
                    raise OSError(fault)
                outcome = execute(job, fd)
            except Exception as e:
                outcome = Outcome("sandbox broken", None, b"", b"", 0.0, f"{type(e).__name__}: {e}")
            pipe.send(outcome)


def _confine_helper() -> str:
    """Take on what all programs of this process will have to bear; returns why that failed, or ""."""
    try:
        drop_capabilities()
        install(seccomp_filter(RESTRICTED))
    except OSError as e:
        return str(e)
    return ""
