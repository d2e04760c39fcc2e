"""Processes that begin with torch and hafs imported: a parent imports them once, and every process is a fork of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PARENT = """
import json, os, signal, sys, traceback
sys.path.insert(0, sys.argv[1])
import accelerate, peft, pytest, torch, transformers.models.llama.modeling_llama
import hafs.backends.transformers, hafs.training.data, hafs.training.loop, hafs.training.run
torch.set_num_threads(1)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the children print is no answer

def child(code, environment):
    status = 1
    try:
        os.environ.update(environment)
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)

for line in sys.stdin:
    code, environments = json.loads(line)
    running = {}
    for place, environment in enumerate(environments):
        pid = os.fork()
        if not pid:
            child(code, environment)
        running[pid] = place
    codes = [0] * len(running)
    while running:
        pid, status = os.wait()
        codes[running.pop(pid)] = ended = os.waitstatus_to_exitcode(status)
        for other in running if ended else ():  # as torchrun does
            os.kill(other, signal.SIGKILL)
    print(json.dumps(codes), file=answers, flush=True)
"""


class Forks:
    """Runs programs in forks of one parent."""

    def __init__(self, parent: subprocess.Popen[str]) -> None:
        self._parent = parent

    def run(self, code: str, *environments: Mapping[str, str]) -> list[int]:
        """Run a program in one process for each environment, all at once; when one fails, the others are killed."""
        assert self._parent.stdin is not None and self._parent.stdout is not None
        print(json.dumps([code, environments]), file=self._parent.stdin, flush=True)
        codes: list[int] = json.loads(self._parent.stdout.readline())
        return codes


@contextmanager
def forking() -> Iterator[Forks]:
    """The parent, started."""
    argv = [sys.executable, "-c", PARENT, str(Path(__file__).parent)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env={**os.environ}, text=True, **pipes) as parent:  # type: ignore[call-overload]
        try:
            yield Forks(parent)
        finally:
            parent.kill()
