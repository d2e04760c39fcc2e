"""A process in which patterns and schemas meet answers: both can be made to take years, and neither can be interrupted.

`Bounded` is the parent's end: it gives the process one question at a time and ends it when the answer takes too long;
the next question starts another. The process has limits of its own on processor time and memory.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from hafs.errors import HafsError, MissingTool
from hafs.scorers.text.measures import as_json, found, matches_schema

__all__ = ["Bounded"]

CPU_SECONDS = 2.0  # of processor time for one answer; an honest check takes a thousandth
WALL_SECONDS = 20.0  # on the clock, for a machine that is very busy
MEMORY = 2 << 30
SIMPLER = "write the pattern or the schema simpler"


class Bounded:
    """Asks about one answer at a time, each under a limit. Used from one thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def found(self, pattern: str, text: str) -> bool:
        """`measures.found`; raises HafsError when there is no answer in time."""
        return bool(self._ask({"pattern": pattern, "text": text})["found"])

    def json(self, text: str, schema: Mapping[str, Any] | None) -> tuple[bool, str]:
        """(whether the text is JSON, what is wrong with it by the schema or ""). Raises HafsError."""
        said = self._ask({"text": text, "schema": schema})
        return bool(said["json"]), str(said["problem"])

    def close(self) -> None:
        """End the process."""
        if self._connection:
            self._connection.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        connection = self._connection or self._start()
        try:
            connection.send_bytes(json.dumps(question).encode())
            if not connection.poll(WALL_SECONDS):
                raise TimeoutError
            said: dict[str, Any] = json.loads(connection.recv_bytes())
        except TimeoutError as e:
            self.close()
            raise HafsError(f"the check took longer than {WALL_SECONDS:g} s on the answer", SIMPLER) from e
        except (OSError, EOFError) as e:
            raise HafsError(self._ended(), SIMPLER) from e
        if "error" in said:
            raise (MissingTool if said["missing"] else HafsError)(said["error"], said["fix"])
        return said

    def _start(self) -> Connection[Any, Any]:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hafs.scorers.text.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PATH": os.defpath},
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self._connection = Connection(ours.detach())
        return self._connection

    def _ended(self) -> str:
        process = self._process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
        code = process.returncode
        self.close()
        if code == -signal.SIGPROF:
            return f"the check took more than {CPU_SECONDS:g} s of processor time on the answer"
        return f"the check's process ended (exit status {code})"


def said_of(question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one question of `Bounded`."""
    if "pattern" in question:
        return {"found": found(question["pattern"], question["text"])}
    is_json, value = as_json(question["text"])
    schema = question["schema"]
    return {"json": is_json, "problem": matches_schema(value, schema) if is_json and schema is not None else ""}


def serve(connection: Connection[Any, Any]) -> None:
    """Answer questions until the other end is gone."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        question = json.loads(connection.recv_bytes())
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # its signal ends the process, wherever it is
        try:
            said = said_of(question)
        except HafsError as e:
            said = {"error": e.what, "fix": e.fix, "missing": isinstance(e, MissingTool)}
        except Exception as e:
            said = {
                "error": f"the check failed on the answer: {type(e).__name__}: {e}"[:300],
                "fix": "",
                "missing": False,
            }
        signal.setitimer(signal.ITIMER_PROF, 0)
        connection.send_bytes(json.dumps(said).encode())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, ConnectionError):
        serve(Connection(int(sys.argv[1])))
