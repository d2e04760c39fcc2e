"""One at a time: a claim on a piece of work, so that two processes with one workspace do not both do it.

A claim ends with the process that has it, however it ends, and leaves nothing in the database: on PostgreSQL it is an
advisory lock of a connection, on SQLite the lock of a file beside the database.

The holder may have the work done by workers in other processes. Each of them joins the claim, and a claim is not given
again before the last of them has ended: a holder that died cannot leave a worker that goes on beside the next holder's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import ReadWriteLock, Timeout
from sqlalchemy import Engine, text

from hafs.errors import HafsError
from hafs.store.engine import explained
from hafs.types import content_id

LOCKS = 64
"""Lock files that a workspace may have; claims that share one wait for each other and do no harm."""


@contextmanager
def claimed(engine: Engine, where: str, what: str, workers: bool = False) -> Iterator[None]:
    """Hold the claim on `what`, waiting for another process that has it, and for the workers that one had.

    With `workers` the holder leaves the work to other processes, which join it.
    """
    with ExitStack() as held:
        held.enter_context(_locked(engine, where, what))
        with _locked(engine, where, what, _WORKERS):
            if not workers:
                yield
                return
        yield


@contextmanager
def joined(engine: Engine, where: str, what: str) -> Iterator[None]:
    """Be one of the workers of the holder of the claim on `what`."""
    with _locked(engine, where, what, _WORKERS, shared=True):
        yield


_WORKERS = "workers"


@contextmanager
def _locked(engine: Engine, where: str, what: str, kind: str = "lock", shared: bool = False) -> Iterator[None]:
    number = int(content_id("claim", what, *([kind] if kind == _WORKERS else []))[:12], 16)
    if engine.dialect.name == "postgresql":
        with _advisory(engine, where, number, "_shared" if shared else ""):
            yield
        return
    folder = Path(where + ".claims")
    try:
        folder.mkdir(exist_ok=True)
        lock = ReadWriteLock(folder / f"{number % LOCKS}.{kind}", is_singleton=False)
        acquire = lock.acquire_read if shared else lock.acquire_write
        try:
            acquire(blocking=False)
        except Timeout:
            _say(where)
            acquire()
    except OSError as e:
        raise HafsError(
            f"could not claim work in {folder}: {e.strerror or e}", "make the workspace's directory writable"
        ) from e
    try:
        yield
    finally:
        lock.release()
        lock.close()


@contextmanager
def _advisory(engine: Engine, where: str, number: int, shared: str) -> Iterator[None]:
    with explained(where), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        mine = conn.execute(text(f"SELECT pg_try_advisory_lock{shared}(:n)"), {"n": number}).scalar()
        if not mine:
            _say(where)
            conn.execute(text(f"SELECT pg_advisory_lock{shared}(:n)"), {"n": number})
        try:
            yield
        finally:
            conn.execute(text(f"SELECT pg_advisory_unlock{shared}(:n)"), {"n": number})


def _say(where: str) -> None:
    logging.getLogger(__name__).warning("another process does the same work in %s: waiting for it", where)
