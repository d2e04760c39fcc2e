"""Leases: who has which prompt in hand. A `Desk` is the leases and answers of annotators in one exclusive transaction.

Whatever is decided from the leases (who gets which prompt) is decided while nobody else can decide, so no prompt is
given to two people, and an answer and its lease change together or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, Table, select, text, update

from hafs.store import schema
from hafs.store.rows import columns, to_row
from hafs.types import Annotation, Candidate

_LOCK = 0x6465736B  # "desk": the advisory lock that makes blocks exclusive on PostgreSQL; SQLite has one writer anyway


@dataclass(frozen=True)
class Lease:
    """A prompt's candidates in an annotator's hands. `id` is a secret that the answer comes back with.

    `shown` are the candidates in the order shown, `serial` the annotator's how-manieth look (0 first). `granted` is
    when it was given or given back by an undo, `expires` when it may be given to somebody else (seconds since 1970).
    `draft` is what a face wants to find again, `previous` the answer that was taken back. `annotation` is the id of
    the answer, `released` when it went to somebody else.
    """

    id: str
    prompt_id: str
    annotator: str
    mode: str
    shown: tuple[str, ...]
    serial: int
    granted: float
    expires: float
    draft: Mapping[str, Any] = field(default_factory=dict)
    previous: Mapping[str, Any] = field(default_factory=dict)
    annotation: str | None = None
    released: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Neither answered nor given to somebody else."""
        return self.annotation is None and self.released is None


class Desk:
    """The leases and answers as they are now; see `Store.desk`."""

    def __init__(self, conn: Connection, insert: Callable[[Table], Any]) -> None:
        self._conn = conn
        self._insert = insert
        if conn.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})

    def leases(self, mode: str) -> list[Lease]:
        """Every lease of a mode, in the order they were first granted."""
        t = schema.leases.c
        return [Lease(*row) for row in self._conn.execute(self._leases().where(t.mode == mode).order_by(t.added, t.id))]

    def lease(self, id: str) -> Lease | None:
        """The lease with this id, or None."""
        row = self._conn.execute(self._leases().where(schema.leases.c.id == id)).first()
        return None if row is None else Lease(*row)

    def add_lease(self, lease: Lease) -> None:
        """Give somebody a prompt."""
        row = {f.name: getattr(lease, f.name) for f in fields(lease)}
        self._conn.execute(schema.leases.insert().values(**row, added=time.time()))

    def change_lease(self, id: str, **values: Any) -> None:
        """Put new values into a lease."""
        self._conn.execute(update(schema.leases).where(schema.leases.c.id == id).values(**values))

    def annotation(self, id: str) -> Annotation | None:
        """The answer with this id, or None."""
        row = self._conn.execute(select(*columns("annotations")).where(schema.annotated.c.id == id)).first()
        return None if row is None else Annotation(*row)

    def add_annotation(self, annotation: Annotation) -> None:
        """Keep an answer."""
        self._conn.execute(schema.annotated.insert().values(**to_row("annotations", annotation, time.time())))

    def undo_annotation(self, id: str, when: float) -> None:
        """Take an answer back; it stays as a row that counts for nothing."""
        self._conn.execute(update(schema.annotated).where(schema.annotated.c.id == id).values(undone=when))

    def add_candidates(self, candidates: Sequence[Candidate]) -> None:
        """Keep answers that people wrote."""
        for candidate in candidates:
            row = to_row("candidates", candidate, time.time())
            self._conn.execute(self._insert(schema.candidates).on_conflict_do_nothing().values(**row))

    def _leases(self) -> Any:
        return select(*(schema.leases.c[f.name] for f in fields(Lease)))
