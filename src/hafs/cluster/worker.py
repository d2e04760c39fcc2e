"""What runs on the machines of a cluster: one job, opened once, doing one task after the other."""

from __future__ import annotations

import importlib.metadata
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from hafs.errors import HafsError

Task = TypeVar("Task")
Done = TypeVar("Done")
Task_contra = TypeVar("Task_contra", contravariant=True)
Done_co = TypeVar("Done_co", covariant=True)


class Job(Protocol[Task_contra, Done_co]):
    """Work that can be done on another machine: it is sent there whole, so it holds names and settings, no open thing.

    With `accelerated` a worker takes an accelerator where the cluster has any. Equal jobs are done by the same workers.
    """

    @property
    def accelerated(self) -> bool:
        """Whether an accelerator is of use."""
        ...

    def open(self) -> AbstractContextManager[Callable[[Task_contra], Done_co]]:
        """Load and open what the tasks need, in the worker; yields what does one task."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What came of a task: its value, or the error that the user is to see."""

    value: Any = None
    error: HafsError | None = None


def installed() -> str:
    """The version of hafs on this machine."""
    return importlib.metadata.version("hafs")


class Worker:
    """One process of the cluster. Making it never fails: what goes wrong is an outcome of `ready` or `do`."""

    def __init__(self, job: Job[Any, Any], version: str) -> None:
        self._job, self._version = job, version
        self._stack = ExitStack()
        self._work: Callable[[Any], Any] | None = None

    def ready(self) -> Outcome:
        """Open the job."""

        def opened() -> None:
            self._open()

        return self._told(opened)

    def do(self, task: Any) -> Outcome:
        """Do one task."""
        return self._told(lambda: self._open()(task))

    def _open(self) -> Callable[[Any], Any]:
        if self._work is None:
            if self._version != (here := installed()):
                raise HafsError(f"hafs {here} is installed, the command runs {self._version}", "install the same one")
            self._work = self._stack.enter_context(self._job.open())
        return self._work

    @staticmethod
    def _told(work: Callable[[], Any]) -> Outcome:
        try:
            return Outcome(work())
        except HafsError as e:
            return Outcome(error=type(e)(f"{e.what} (on {socket.gethostname()})", e.fix))
