"""One at a time: a claim on a piece of work, so that two processes with one workspace do not both do it.

A claim ends with the process that has it, however it ends, and leaves nothing in the database: on PostgreSQL it is an
advisory lock of a connection, on SQLite the lock of a file beside the database.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Engine, text

from hafs.errors import HafsError
from hafs.store.engine import explained
from hafs.types import content_id

LOCKS = 64
"""Lock files that a workspace may have; claims that share one wait for each other and do no harm."""


@contextmanager
def claimed(engine: Engine, where: str, what: str) -> Iterator[None]:
    """Hold the claim on `what`, waiting for another process that has it."""
    number = int(content_id("claim", what)[:12], 16)
    if engine.dialect.name == "postgresql":
        yield from _advisory(engine, where, number)
        return
    folder = Path(where + ".claims")
    lock = FileLock(folder / f"{number % LOCKS}.lock", is_singleton=True)  # two claims of this process may share it
    try:
        folder.mkdir(exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            _say(where)
            lock.acquire()
    except OSError as e:
        raise HafsError(
            f"could not claim work in {folder}: {e.strerror or e}", "make the workspace's directory writable"
        ) from e
    try:
        yield
    finally:
        lock.release()


def _advisory(engine: Engine, where: str, number: int) -> Iterator[None]:
    with explained(where), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        mine = conn.execute(text("SELECT pg_try_advisory_lock(:n)"), {"n": number}).scalar()
        if not mine:
            _say(where)
            conn.execute(text("SELECT pg_advisory_lock(:n)"), {"n": number})
        try:
            yield
        finally:
            conn.execute(text("SELECT pg_advisory_unlock(:n)"), {"n": number})


def _say(where: str) -> None:
    logging.getLogger(__name__).warning("another process is at the same work in %s: waiting for it", where)
