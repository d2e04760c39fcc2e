"""Processes that begin with torch and hafs imported: a parent imports them once, and every process is a fork of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PARENT = """
import json, os, signal, sys, traceback
sys.path.insert(0, sys.argv[1])
import accelerate, peft, pytest, torch, transformers.models.llama.modeling_llama
import hafs.generation.transformers, hafs.training.data, hafs.training.loop, hafs.training.run
torch.set_num_threads(1)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the children print is no answer

def child(code, environment, argv, files):
    status = 1
    try:
        os.environ.update(environment)
        sys.argv = ["-c", *argv]
        for fd, file in enumerate(files, 1):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), fd)
        exec(code, {"__name__": "__main__"})
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)

for line in sys.stdin:
    code, environments, argv, files = json.loads(line)
    running = {}
    for place, environment in enumerate(environments):
        pid = os.fork()
        if not pid:
            child(code, environment, argv, files)
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
        return self._run(code, environments)

    def python(self, code: str, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program as `python -c` would, in the environment of this moment."""
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("out", "err")]
            (status,) = self._run(code, [{**os.environ}], argv, files)
            return subprocess.CompletedProcess(argv, status, *(file.read_text() for file in files))

    def _run(
        self,
        code: str,
        environments: Sequence[Mapping[str, str]],
        argv: Sequence[str | Path] = (),
        files: Sequence[Path] = (),
    ) -> list[int]:
        assert self._parent.stdin is not None and self._parent.stdout is not None
        order = [code, environments, list(map(str, argv)), list(map(str, files))]
        print(json.dumps(order), file=self._parent.stdin, flush=True)
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
