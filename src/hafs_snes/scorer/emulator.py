"""The parent's handle on an emulator process: starts it, gives it jobs with a time limit, starts it again
when it died.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hafs_snes.scorer.compare import Verdict

__all__ = ["Emulator", "EmulatorDied", "EmulatorHung"]

START_SECONDS = 60.0  # a busy machine may take this long to start a Python process and boot the core


class EmulatorDied(Exception):
    """The emulator's process crashed, hung or could not start; says which. The candidate has no score."""


class EmulatorHung(EmulatorDied):
    """The emulator's process did not answer in time."""


class Emulator:
    """An emulator in a process of its own; `run` restarts it when it is gone. For one thread at a time."""

    def __init__(self, core: Path, rom: bytes, symbols: Mapping[str, int], seconds: float = 60.0) -> None:
        """`rom` and `symbols` are the assembled harness, `seconds` the wall-clock limit of one job."""
        self.core, self.rom, self.symbols, self.seconds = core, rom, dict(symbols), seconds
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def run(self, job: Mapping[str, Any]) -> list[Verdict]:
        """Run a job (see worker.run_job). Raises EmulatorDied when there is no answer."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        reply = self._ask(json.dumps({**job, "seconds": self.seconds}).encode(), self.seconds)
        return [Verdict(**{**v, "problems": [tuple(p) for p in v["problems"]]}) for v in reply]

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        return self._process.pid if self._process else None

    def close(self) -> None:
        """End the process."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _start(self) -> None:
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hafs_snes.scorer.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.starts += 1
        self._connection = Connection(ours.detach())
        self._ask(json.dumps({"core": str(self.core), "symbols": self.symbols}).encode(), START_SECONDS, self.rom)

    def _ask(self, message: bytes, seconds: float, *more: bytes) -> Any:
        assert self._connection is not None and self._process is not None
        try:
            for part in (message, *more):
                self._connection.send_bytes(part)
            if not self._connection.poll(seconds):
                raise EmulatorHung(f"the emulator gave no answer within {seconds:g} s")
            reply = json.loads(self._connection.recv_bytes())
        except (OSError, EOFError) as e:
            process = self._process
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            self.close()
            if process.returncode == -signal.SIGVTALRM:  # see machine.Console._save
                raise EmulatorHung("the code reported its return and then stopped the processor") from e
            if process.returncode == -signal.SIGALRM:  # the process's own clock, see worker.serve
                raise EmulatorHung(f"the emulator gave no answer within {seconds:g} s") from e
            raise EmulatorDied(f"the emulator's process ended (exit status {process.returncode})") from e
        except EmulatorDied:
            self.close()
            raise
        if isinstance(reply, dict) and "error" in reply:
            self.close()
            raise EmulatorDied(f"the emulator failed: {reply['error']}")
        return reply
