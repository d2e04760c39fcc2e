"""Connections to the workspace database, and its failures in words.

SQLite runs with a write-ahead log, so a long read never blocks a writer; a write transaction takes its lock
at the start (BEGIN IMMEDIATE) and waits for another writer instead of failing half-way.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from hafs.errors import DataError, HafsError, MissingTool, UsageError

BUSY_SECONDS = 30.0
"""How long a writer waits for another one before it gives up."""

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -65536",  # KiB
)

_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}


def database_url(url_or_path: str | Path, root: Path | None = None) -> URL:
    """The URL of a database named by path or URL; `root` is where a relative SQLite path begins.

    Raises UsageError for what is neither SQLite nor PostgreSQL.
    """
    name = str(url_or_path)
    if "://" not in name:
        return URL.create("sqlite", database=str((root or Path()) / Path(name).expanduser()))
    try:
        url = make_url(name)
    except (ArgumentError, ValueError) as e:
        raise UsageError("the database URL cannot be read", "write it as postgresql://USER@HOST/NAME") from e
    scheme = url.drivername.partition("+")[0]
    if scheme not in _DRIVERS:
        raise UsageError(
            f"hafs stores in SQLite or PostgreSQL, not in {scheme!r}", "give a path or a postgresql:// URL"
        )
    if scheme == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UsageError("a workspace database in memory would be lost", "give a path")
        return database_url(url.database, root)
    return url.set(drivername=_DRIVERS[scheme])


def connect(url: URL) -> Engine:
    """An engine for `url`, not connected yet; raises MissingTool without the PostgreSQL driver."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(url)
    except (ModuleNotFoundError, NoSuchModuleError) as e:
        raise MissingTool("the PostgreSQL driver is not installed", "pip install 'hafs[postgres]'") from e


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_sqlite, not by the driver
    until = time.monotonic() + BUSY_SECONDS
    for pragma in _PRAGMAS:
        while True:
            try:
                connection.execute(pragma).close()
                break
            except sqlite3.OperationalError as e:  # of two that turn WAL on, one fails without waiting
                if "locked" not in str(e) or time.monotonic() > until:
                    raise
                time.sleep(0.01)


def _begin_sqlite(conn: Connection) -> None:
    conn.exec_driver_sql("BEGIN IMMEDIATE" if conn.get_execution_options().get("hafs_write") else "BEGIN")


@contextmanager
def transaction(engine: Engine, where: str, *, write: bool = False) -> Iterator[Connection]:
    """A connection in a transaction, committed when the block ends well; failures become HafsError."""
    with explained(where), engine.connect().execution_options(hafs_write=write) as conn, conn.begin():
        yield conn


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn the database errors of the block into HafsError with what happened and what to do."""
    try:
        yield
    except DBAPIError as e:
        if isinstance(e, IntegrityError) and "foreign key" in _message(e).lower():
            raise DataError(
                f"rows name a prompt, candidate, run or group that is not in {where}",
                "add what they refer to first: prompts, then candidates, then scores and rankings",
            ) from e
        raise _explain(_message(e), where) from e


def _message(error: DBAPIError) -> str:
    return str(error.orig).strip().partition("\n")[0]


_AGAIN = "then run the same command again: what was stored before is unchanged"
_FAILURES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("is full", "disk i/o error", "no space left", "could not extend file"),
        "could not write {where}: the disk is full or a size limit is reached ({message})",
        f"free space, {_AGAIN}",
    ),
    (
        ("readonly", "read-only", "permission denied"),
        "could not write {where}: it is read-only for this user ({message})",
        "make the directory and the file writable, or use another workspace",
    ),
    (
        ("unable to open database file",),
        "could not open {where}: its directory is missing or this user may not read and write there",
        "`hafs init DIR` makes a workspace; check the directory's permissions",
    ),
    (
        ("is locked",),
        "{where} is locked: another process has been writing to it for more than {busy:g} s",
        f"wait for it or stop it, {_AGAIN}",
    ),
    (
        ("not a database", "malformed"),
        "{where} is damaged or is no hafs database ({message})",
        "move the file away, then restore a copy or import the exported JSON lines into a new workspace",
    ),
    (
        ("connection", "could not translate host", "password", "does not exist", "timeout"),
        "the database server did not let hafs in at {where}: {message}",
        "start the server or correct `url` under [store] in hafs.toml",
    ),
)


def _on_read_only_disk(where: str) -> bool:
    """Whether `where` is a file on a disk that nobody can write: SQLite says "unable to open" to that."""
    folder = Path(where).parent
    return "://" not in where and folder.is_dir() and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _explain(message: str, where: str) -> HafsError:
    if _on_read_only_disk(where):
        return HafsError(
            f"{where} is on a read-only disk ({message})",
            "mount it writable, or copy the workspace to a disk that can be written",
        )
    for signs, what, fix in _FAILURES:
        if any(sign in message.lower() for sign in signs):
            return HafsError(what.format(where=where, message=message, busy=BUSY_SECONDS), fix)
    return HafsError(f"the database {where} answered: {message}", "check that it is a hafs database and whole")
