"""Limits on a model's chat template: a program from elsewhere that runs in this process.

transformers renders it in Jinja's sandbox, which keeps it from Python's insides. It may still count for years or write
without end; so one rendering has a time, a size, and, when a template is new to this process, memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from hafs.errors import UsageError

SECONDS, CHARACTERS, BYTES = 10.0, 50_000_000, 2 << 30
"""What one rendering may take: time, text, and memory beside what the process has."""


class TemplateTooGreedy(UsageError):
    """A chat template that does not come to an end, or writes too much."""

    def __init__(self) -> None:
        super().__init__(
            f"the model's chat template takes more than {SECONDS:g} s, {CHARACTERS // 1_000_000} million characters or"
            f" {BYTES >> 30} GiB to write one conversation",
            "use the model with a template of its family: correct chat_template in its folder",
        )


_known: set[str] = set()


def bounded(draw: Callable[[], str], template: str) -> str:
    """What `draw` makes of a template. Raises TemplateTooGreedy where that takes too much."""
    try:
        with nullcontext() if template in _known else _in_memory(BYTES), _in_time(SECONDS):
            made = draw()
    except MemoryError as e:
        raise TemplateTooGreedy from e
    if len(made) > CHARACTERS:
        raise TemplateTooGreedy
    _known.add(template)
    return made


class _Watcher:
    """A thread that looks twice a second whose time is up, and raises TemplateTooGreedy there."""

    def __init__(self) -> None:
        self._deadlines: dict[int, float] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        here = threading.get_ident()
        with self._lock:
            self._deadlines[here] = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                in_time = self._deadlines.pop(here, None) is not None
                if not in_time:
                    _raise_in(here, None)  # where it has not arrived yet, it is raised here
            if not in_time:
                raise TemplateTooGreedy

    def _look(self) -> None:
        while True:
            time.sleep(0.5)
            with self._lock:
                now = time.monotonic()
                for thread, until in list(self._deadlines.items()):
                    if now > until:
                        del self._deadlines[thread]
                        _raise_in(thread, TemplateTooGreedy)


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    """Have a thread raise an error at its next step, or take that back."""
    what = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


_watchers = [_Watcher()]
os.register_at_fork(after_in_child=lambda: _watchers.__setitem__(0, _Watcher()))


def _in_time(seconds: float) -> AbstractContextManager[None]:
    return _watchers[0].limit(seconds)


@contextmanager
def _in_memory(more: int) -> Iterator[None]:
    """Let the process take so many bytes of addresses more, for the block."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = taken + more
    if before[0] != resource.RLIM_INFINITY and before[0] <= limit:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
