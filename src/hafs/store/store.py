"""The workspace store: everything hafs made and what it was made from, each row once.

Rows are the dataclasses of `hafs.types` plus `Run`. Ids come from content, so adding a row again does nothing
and a repeated verb finds its earlier work. Writes go in batches of one transaction each: whatever stops the
program, whole batches are there and nothing else. Reads stream in the order of the prompts' ids, whatever the
size of the workspace.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, and_, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from hafs.data import Columns
from hafs.errors import DataError, UsageError
from hafs.files.jsonl import write_jsonl
from hafs.store import schema
from hafs.store.claims import claimed, joined
from hafs.store.desk import Desk
from hafs.store.engine import connect, database_url, transaction
from hafs.store.files import Imported, Parent, read_rows, value_problem
from hafs.store.reading import Reader
from hafs.store.rows import KINDS, Run, check_kind, to_row
from hafs.types import Annotation, Candidate, PreferenceGroup, Prompt, Ranking, Score, Verdict

BATCH = 2000
"""Rows in one write transaction."""

STATUSES = ("running", "finished", "failed")


def _completed(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the default of each that is not there, at every depth that `defaults` has."""
    inner = {k: _completed(v, defaults[k]) for k, v in config.items() if isinstance(v, Mapping) and k in defaults}
    return {**json.loads(json.dumps(defaults)), **config, **inner}


@dataclass(frozen=True)
class Once:
    """A piece of work in a store (`Store.once`). `done` is its record where it was finished before."""

    store: Store
    id: str
    done: Run | None

    def finish(
        self,
        metrics: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        *,
        model: str = "",
        whole: bool = True,
    ) -> None:
        """Keep what came of it; what is not `whole` is tried again next time."""
        self.store.finish_run(self.id, "finished" if whole else "failed", metrics, outputs, model)

    def renew(self) -> Run:
        """The record of finished work, which is from now on the newest of its kind."""
        assert self.done is not None
        self.store.finish_run(self.id, "finished", self.done.metrics, self.done.outputs, self.done.model)
        return self.done


def open_store(url_or_path: str | Path) -> Store:
    """Open the database at a path or URL (SQLite or PostgreSQL), making its tables where they are missing.

    Raises UsageError for a URL that hafs cannot use, MissingTool without the PostgreSQL driver, and HafsError
    when the database cannot be opened, is damaged, or was made by a newer hafs.
    """
    url = database_url(url_or_path)
    where = str(url.database) if url.get_backend_name() == "sqlite" else url.render_as_string()
    engine = connect(url)
    try:
        with transaction(engine, where) as conn:
            version = schema.schema_version(conn)
        if version != schema.MIGRATIONS[-1][0]:
            with transaction(engine, where, write=True) as conn:
                schema.migrate(conn, where)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, where)


class Store(Reader):
    """An open workspace database; use it as a context manager, or call `close`."""

    def __init__(self, engine: Engine, where: str) -> None:
        super().__init__(engine, where)
        self.url = engine.url.render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def claimed(self, what: str, workers: bool = False) -> AbstractContextManager[None]:
        """Hold the claim on a piece of work by its name, waiting for another process that has it.

        With `workers` others do the work: each has `joined` it.
        """
        return claimed(self._engine, self.where, what, workers)

    def joined(self, what: str) -> AbstractContextManager[None]:
        """Be a worker of the process that holds the claim on a piece of work."""
        return joined(self._engine, self.where, what)

    # ---- adding

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add prompts; returns how many were new. One that is there stays as it was first added."""
        return self._add("prompts", prompts)

    def add_candidates(
        self, candidates: Iterable[Candidate], token_ids: Mapping[str, Sequence[int]] | None = None
    ) -> int:
        """Add candidates; returns how many were new. A log-probability that is no number becomes missing.

        `token_ids` are the exact ids that were sampled, by candidate id, where they are known; they are written in
        the same transaction. Raises DataError when a prompt of theirs is not in the store.
        """
        insert = self._insert(schema.candidates).on_conflict_do_nothing()
        tokens = self._insert(schema.candidate_tokens).on_conflict_do_nothing()
        added = 0
        for rows in _row_batches("candidates", map(_known_logprob, candidates)):
            with self._writing() as conn:
                added += _count(conn, insert, rows)
                ids = [(row["id"], (token_ids or {}).get(row["id"])) for row in rows]
                if known := [{"candidate_id": id, "token_ids": list(found)} for id, found in ids if found]:
                    conn.execute(tokens, known)
        return added

    def add_scores(self, scores: Iterable[Score], replace: bool = False) -> int:
        """Add scores; returns how many were new or put a value where there was none.

        A value is not replaced, but by another value with `replace`. Raises DataError for a value that is not finite or
        an unknown candidate.
        """
        table = schema.scores
        insert = self._insert(table)
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={c.name: insert.excluded[c.name] for c in table.c if c.name != "id"},
            where=insert.excluded.value.is_not(None) & (true() if replace else table.c.value.is_(None)),
        )
        return self._add("scores", map(_checked, scores), statement)

    def add_rankings(self, rankings: Iterable[Ranking]) -> int:
        """Add rankings; returns how many were new. Raises DataError when a prompt is not in the store."""
        return self._add("rankings", rankings)

    def add_verdicts(self, verdicts: Iterable[Verdict]) -> int:
        """Add a judge's verdicts; returns how many were new or read where the earlier one was malformed.

        A verdict that could be read is never replaced. Raises DataError when a prompt is not in the store.
        """
        return self._add("verdicts", verdicts, _put_verdict(self._dialect))

    def add_annotations(self, annotations: Iterable[Annotation]) -> int:
        """Add what people said; returns how many were new. Raises DataError when a prompt is not in the store."""
        return self._add("annotations", annotations)

    def undo_annotation(self, id: str) -> bool:
        """Take an annotation back; it stays as a row that counts for nothing. False when there is none to undo."""
        t = schema.annotated
        statement = update(t).where(t.c.id == id, t.c.undone.is_(None)).values(undone=time.time())
        with self._writing() as conn:
            return bool(conn.execute(statement).rowcount)

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """The leases and answers of annotators, for this block alone: nobody else's block runs at the same time.

        All that is done in the block is one transaction: it is kept whole, or not at all when an exception leaves it.
        """
        with self._writing() as conn:
            yield Desk(conn, self._insert)

    def add_groups(self, groups: Iterable[PreferenceGroup], run: str | None = None) -> int:
        """Add preference groups; returns how many were new. `run` is the id of the run that made them.

        Raises DataError when there is no such run.
        """
        insert = self._insert(schema.groups).on_conflict_do_nothing()
        link = self._insert(schema.run_groups).on_conflict_do_nothing()
        added = 0
        for rows in _row_batches("groups", groups):
            with self._writing() as conn:
                added += _count(conn, insert, rows)
                if run is not None:
                    conn.execute(link, [{"run_id": run, "group_id": row["id"]} for row in rows])
        return added

    def encoded(self, kind: str, items: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
        """Rows of `items` as the database takes them, as many at a time as a transaction does: for `add_encoded`."""
        return _row_batches(kind, items)

    def add_encoded(self, kind: str, rows: Sequence[dict[str, Any]]) -> int:
        """Add rows that `encoded` made, maybe in another process, in one transaction; returns how many were new."""
        if not rows:
            return 0
        with self._writing() as conn:
            return _count(conn, self._insert(KINDS[kind].table).on_conflict_do_nothing(), list(rows))

    def link_groups(self, run: str, ids: Iterable[str]) -> None:
        """Note that a run made groups which are in the store. Raises DataError when there is no such run or group."""
        link = self._insert(schema.run_groups).on_conflict_do_nothing()
        it = iter(ids)
        while batch := list(islice(it, BATCH)):
            with self._writing() as conn:
                conn.execute(link, [{"run_id": run, "group_id": id} for id in batch])

    def add_runs(self, runs: Iterable[Run]) -> int:
        """Add records of runs made elsewhere; returns how many were new."""
        return self._add("runs", runs)

    # ---- runs

    def start_run(self, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> str:
        """Note that a run begins; returns its id, the same for the same kind, config and inputs.

        A run that is finished stays as it is (look at `get_run(id).status` before doing the work again); one
        that failed or was cut off is running again.
        """
        now = time.time()
        run = Run(kind, config, inputs or {}, started=now)
        statement = self._insert(schema.runs).on_conflict_do_update(
            index_elements=["id"],
            set_={"status": "running", "started": now, "finished": None},
            where=schema.runs.c.status != "finished",
        )
        self._add("runs", [run], statement)
        return run.id

    def finish_run(
        self,
        id: str,
        status: str = "finished",
        metrics: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        model: str = "",
    ) -> None:
        """Note how a run ended ("finished" or "failed"), its metrics, what it wrote, and its model's hash.

        Raises UsageError for an unknown run or status.
        """
        if status not in STATUSES:
            raise UsageError(f"a run cannot be {status!r}", f"use one of: {', '.join(STATUSES)}")
        ended = {"metrics": metrics or {}, "outputs": outputs or {}, "model": model, "finished": time.time()}
        statement = update(schema.runs).where(schema.runs.c.id == id).values(status=status, **ended)
        with self._writing() as conn:
            found = conn.execute(statement).rowcount
        if not found:
            raise UsageError(f"there is no run {id} in {self.where}", "start it first")

    def once(
        self,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Once:
        """A piece of work, named by all that it depends on: begun, or found finished (then `done` is its record).

        `defaults` are the default values of settings in `config`: work done before there was a setting had its default.
        """
        known = self.get_run(Run(kind, config, inputs or {}).id)
        if known is None or known.status != "finished":
            known = self._older(kind, config, inputs or {}, defaults) if defaults else None
        if known is not None:
            return Once(self, known.id, known)
        return Once(self, self.start_run(kind, config, inputs), None)

    def _older(
        self, kind: str, config: Mapping[str, Any], inputs: Mapping[str, Any], defaults: Mapping[str, Any]
    ) -> Run | None:
        """The same work, finished before some of the settings were there."""
        wanted = json.loads(json.dumps([config, inputs]))
        same = (r for r in reversed(self.ended(kind)) if [_completed(r.config, defaults), dict(r.inputs)] == wanted)
        return next(same, None)

    def keep_run(
        self,
        kind: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, Any] | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> str:
        """Keep what was done in one go as a finished run, from now on the newest of its kind; returns its id."""
        id = self.start_run(kind, config, inputs)
        self.finish_run(id, "finished", metrics, outputs)
        return id

    # ---- the whole

    def export_jsonl(self, kind: str, path: str | Path, **filters: Any) -> int:
        """Write the rows of a kind ("prompts", "candidates", "scores", "rankings", "groups", "runs").

        `filters` are those of the reading method of that name. Returns how many rows were written.
        """
        check_kind(kind)
        return write_jsonl(path, getattr(self, kind)(**filters))

    def import_rows(self, kind: str, path: str | Path, columns: Columns | None = None) -> Imported:
        """Add the rows of a file; those that cannot be used are named by number, the rest kept.

        Raises UsageError when there is no such file, DataError when no line of it is usable.
        """
        check_kind(kind)
        loaded = read_rows(path, kind, self._parent(kind), columns)
        added = getattr(self, f"add_{kind}")(loaded.rows)
        prompts = loaded.rows if kind == "prompts" else []
        return Imported(len(loaded.rows), added, loaded.bad_rows, loaded.notes, prompts)

    def connection(self, write: bool = False) -> AbstractContextManager[Connection]:
        """A connection in a transaction of its own, for tables that a single feature reads and writes itself."""
        return transaction(self._engine, self.where, write=write)

    # ---- inside

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self.where, write=True)

    def _insert(self, table: Table) -> Any:
        return _insert(table, self._dialect)

    def _add(self, kind: str, items: Iterable[Any], statement: Any = None) -> int:
        if statement is None:
            statement = self._insert(KINDS[kind].table).on_conflict_do_nothing()
        added = 0
        for rows in _row_batches(kind, items):
            with self._writing() as conn:
                added += _count(conn, statement, rows)
        return added

    def _parent(self, kind: str) -> Parent | None:
        """What rows of `kind` belong to, with the ids that are in the store."""
        parents = {
            "scores": "candidates",
            **dict.fromkeys(("candidates", "rankings", "verdicts", "annotations"), "prompts"),
        }
        of = parents.get(kind)
        if of is None:
            return None
        with self._reading() as conn:
            ids = set(conn.execute(select(KINDS[of].table.c.id)).scalars())
        word = of.removesuffix("s")
        return Parent(f"{word}_id", word, ids)


def _insert(table: Table, dialect: str) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


@cache  # to build it takes longer than to run it
def _put_verdict(dialect: str) -> Any:
    """A verdict goes in unless one that could be read is there."""
    table = schema.verdicts
    insert = _insert(table, dialect)
    return insert.on_conflict_do_update(
        index_elements=["id"],
        set_={c.name: insert.excluded[c.name] for c in table.c if c.name != "id"},
        where=and_(table.c.outcome == "malformed", insert.excluded.outcome != "malformed"),
    )


def _row_batches(kind: str, items: Iterable[Any]) -> Iterator[list[dict[str, Any]]]:
    it = iter(items)
    while batch := list(islice(it, BATCH)):
        now = time.time()
        yield [to_row(kind, item, now) for item in batch]


def _count(conn: Connection, statement: Any, rows: list[dict[str, Any]]) -> int:
    """Run an insert for each of `rows`; returns how many rows of the table it made or changed."""
    return conn.execute(statement, rows, execution_options={"preserve_rowcount": True}).rowcount


def _checked(score: Score) -> Score:
    problem = value_problem(score)
    if problem:
        raise DataError(problem, "a scorer that fails must leave the candidate unscored, with the reason")
    return score


def _known_logprob(candidate: Candidate) -> Candidate:
    if candidate.logprob is not None and math.isnan(candidate.logprob):
        return replace(candidate, logprob=None)
    return candidate
