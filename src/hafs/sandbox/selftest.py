"""Runs inside a sandbox before the sandbox is used: tries what no program there may do, and names what worked.

The file uses the standard library alone and is handed to the interpreter as text. Its arguments are the path of a
secret file and the number of a process of the same user outside.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

WORKS = "works"


def library() -> ctypes.CDLL:
    """The C library, whose calls say why they failed."""
    return ctypes.CDLL(None, use_errno=True)


def in_child(attempt: Callable[[], bool]) -> bool:
    """Whether a forked process, whose parent this is, succeeds."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if attempt() else 1
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def take_file(pid: int) -> bool:
    """Take a parent's standard output out of it, and so forge what it says."""
    return in_child(lambda: library().syscall(438, os.pidfd_open(os.getppid()), 1, 0) >= 0)  # pidfd_getfd


def look_into(pid: int) -> bool:
    """Read a parent's memory, or trace it."""
    there = ctypes.create_string_buffer(8)
    piece = struct.pack("PN", ctypes.addressof(there), 8)

    def attempt() -> bool:
        parent = os.getppid()
        return library().process_vm_readv(parent, piece, 1, piece, 1, 0) > 0 or library().ptrace(16, parent, 0, 0) == 0

    return in_child(attempt)


def has_powers(pid: int) -> bool:
    """Hold a capability."""
    held = ctypes.create_string_buffer(24)
    return library().capget(struct.pack("Ii", 0x20080522, 0), held) == 0 and held.raw != bytes(24)


def limit(pid: int) -> bool:
    """Change the limits of another process."""
    return library().prlimit(pid, 4, struct.pack("NN", 0, 0), None) == 0  # RLIMIT_CORE


def stop(pid: int) -> bool:
    """Signal a process outside."""
    os.kill(pid, signal.SIGCONT)
    return True


def slow(pid: int) -> bool:
    """Change the priority of another process."""
    os.setpriority(os.PRIO_PROCESS, os.getppid(), 0)
    return True


def hide_memory(pid: int) -> bool:
    """Hold memory that no limit counts."""
    os.memfd_create("x")
    return True


def connect(pid: int) -> bool:
    """Reach the network."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex(("127.0.0.1", int(sys.argv[3]))) == 0


def read(pid: int) -> bool:
    """Read a file that it was not given."""
    return bool(Path(sys.argv[1]).read_text())


ATTEMPTS: dict[str, Callable[[int], bool]] = {
    "read a file that it was not given": read,
    "reach the network": connect,
    "take an open file out of another process": take_file,
    "look into another process": look_into,
    "use the powers of root": has_powers,
    "change the limits of another process": limit,
    "signal a process outside": stop,
    "change the priority of another process": slow,
    "hold memory that no limit counts": hide_memory,
}


def main() -> None:
    """Print what worked, and at the end that this ran."""
    for what, attempt in ATTEMPTS.items():
        try:
            worked = attempt(int(sys.argv[2]))
        except (OSError, AttributeError):
            worked = False
        if worked:
            print(what)
    print(WORKS)


if __name__ == "__main__":
    main()
