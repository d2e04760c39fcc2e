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
from dataclasses import replace
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    and_,
    exists,
    func,
    select,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from hafs.errors import DataError, UsageError
from hafs.jsonl import write_jsonl
from hafs.store import schema
from hafs.store.desk import Desk
from hafs.store.engine import connect, database_url, transaction
from hafs.store.files import Imported, Parent, read_rows, value_problem
from hafs.store.query import Matching, by_scorer, in_prompts, matches
from hafs.store.rows import KINDS, Run, columns, to_row
from hafs.types import Annotation, Answer, Candidate, PreferenceGroup, Prompt, Ranking, Score, Verdict

BATCH = 2000
"""Rows in one write transaction."""

_DECODER = json.JSONDecoder()

STATUSES = ("running", "finished", "failed")

Answers = tuple[Prompt, list[tuple[Candidate, Score | None]]]
"""A prompt with its candidates and what one scorer says of each; None where it has said nothing."""


class CandidateFilters(TypedDict, total=False):
    """Filters by what a candidate is: its prompt's id, split and family, its model's hash, its source."""

    prompt_ids: Matching
    split: Matching
    family: Matching
    model: Matching
    source: Matching


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


class Store:
    """An open workspace database; use it as a context manager, or call `close`.

    In every reading method a filter is one value or a collection of values; None means no filter. Readers are
    iterators that hold a connection until they are exhausted or closed; writing meanwhile is fine.
    """

    def __init__(self, engine: Engine, where: str) -> None:
        self._engine = engine
        self.url = engine.url.render_as_string(hide_password=False)
        self._dialect = engine.dialect.name
        self.where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

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

    def add_scores(self, scores: Iterable[Score]) -> int:
        """Add scores; returns how many were new or put a value where there was none.

        A value is never replaced. Raises DataError for a value that is not finite or an unknown candidate.
        """
        table = schema.scores
        insert = self._insert(table)
        statement = insert.on_conflict_do_update(
            index_elements=["id"],
            set_={c.name: insert.excluded[c.name] for c in table.c if c.name != "id"},
            where=table.c.value.is_(None) & insert.excluded.value.is_not(None),
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

    def add_groups(
        self, groups: Iterable[PreferenceGroup], run: str | None = None, ids: list[str] | None = None
    ) -> int:
        """Add preference groups; returns how many were new. `run` is the id of the run that made them.

        `ids` gets the groups' ids, in their order. Raises DataError when there is no such run.
        """
        insert = self._insert(schema.groups).on_conflict_do_nothing()
        link = self._insert(schema.run_groups).on_conflict_do_nothing()
        added = 0
        for rows in _row_batches("groups", groups):
            with self._writing() as conn:
                added += _count(conn, insert, rows)
                if run is not None:
                    conn.execute(link, [{"run_id": run, "group_id": row["id"]} for row in rows])
            if ids is not None:
                ids += [row["id"] for row in rows]
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

    # ---- reading

    def prompts(
        self,
        *,
        ids: Matching = None,
        split: Matching = None,
        family: Matching = None,
        category: Matching = None,
        source: Matching = None,
    ) -> Iterator[Prompt]:
        """Prompts in the order of their ids."""
        t = schema.prompts.c
        of = ((t.id, ids), (t.split, split), (t.family, family), (t.category, category), (t.source, source))
        return self._stream("prompts", self._select("prompts", of).order_by(t.id))

    def count_prompts(self, *, prompt_ids: Matching = None, split: Matching = None, family: Matching = None) -> int:
        """How many prompts there are of these."""
        t = schema.prompts.c
        query = select(func.count()).where(*self._all((t.id, prompt_ids), (t.split, split), (t.family, family)))
        with self._reading() as conn:
            return int(conn.execute(query.select_from(schema.prompts)).scalar_one())

    def candidates(self, *, ids: Matching = None, **filters: Unpack[CandidateFilters]) -> Iterator[Candidate]:
        """Candidates by prompt, then by seed and index."""
        query = self._select("candidates", ((schema.candidates.c.id, ids),))
        return self._stream("candidates", self._of_candidates(query, filters))

    def scores(
        self,
        *,
        ids: Matching = None,
        candidate_ids: Matching = None,
        prompt_ids: Matching = None,
        scorer: Matching = None,
        version: Matching = None,
        model: Matching = None,
        split: Matching = None,
        family: Matching = None,
        scored: bool | None = None,
    ) -> Iterator[Score]:
        """Scores in the order of `candidates`; `scored` True or False keeps those with or without a value."""
        t, c = schema.scores.c, schema.candidates.c
        wanted = ((t.id, ids), (t.candidate_id, candidate_ids), (c.prompt_id, prompt_ids), (t.scorer, scorer),
                  (t.version, version), (c.model, model))  # fmt: skip
        query = self._select("scores", wanted).join(schema.candidates, t.candidate_id == c.id)
        query = query.where(*in_prompts(c.prompt_id, split, family, self._dialect))
        if scored is not None:
            query = query.where(t.value.is_not(None) if scored else t.value.is_(None))
        return self._stream("scores", query.order_by(c.prompt_id, c.seed, c.idx, c.id, t.id))

    def rankings(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        source: Matching = None,
        split: Matching = None,
        family: Matching = None,
    ) -> Iterator[Ranking]:
        """Rankings by prompt."""
        t = schema.rankings.c
        query = self._select("rankings", ((t.id, ids), (t.prompt_id, prompt_ids), (t.source, source)))
        query = query.where(*in_prompts(t.prompt_id, split, family, self._dialect))
        return self._stream("rankings", query.order_by(t.prompt_id, t.id))

    def verdicts(
        self, *, ids: Matching = None, prompt_ids: Matching = None, judge: Matching = None, protocol: Matching = None
    ) -> Iterator[Verdict]:
        """A judge's verdicts, by prompt."""
        t = schema.verdicts.c
        wanted = ((t.id, ids), (t.prompt_id, prompt_ids), (t.judge, judge), (t.protocol, protocol))
        return self._stream("verdicts", self._select("verdicts", wanted).order_by(t.prompt_id, t.judge, t.id))

    def annotations(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        annotator: Matching = None,
        mode: Matching = None,
        undone: bool = False,
    ) -> Iterator[Annotation]:
        """What people said, in the order they said it; `undone` brings what was taken back too."""
        t = schema.annotated.c
        wanted = ((t.id, ids), (t.prompt_id, prompt_ids), (t.annotator, annotator), (t.mode, mode))
        query = self._select("annotations", wanted)
        query = query if undone else query.where(t.undone.is_(None))
        return self._stream("annotations", query.order_by(t.submitted, t.id))

    def groups(
        self,
        *,
        ids: Matching = None,
        prompt_ids: Matching = None,
        split: Matching = None,
        family: Matching = None,
        run: Matching = None,
    ) -> Iterator[PreferenceGroup]:
        """Preference groups by prompt; `run` keeps those that this run made."""
        t, link = schema.groups.c, schema.run_groups.c
        query = self._select("groups", ((t.id, ids), (t.prompt_id, prompt_ids), (t.split, split), (t.family, family)))
        if run is not None:
            made = select(link.group_id).where(*matches(link.run_id, run, self._dialect))
            query = query.where(t.id.in_(made))
        return self._stream("groups", query.order_by(t.prompt_id, t.id))

    def runs(self, *, ids: Matching = None, kind: Matching = None) -> Iterator[Run]:
        """Runs, the newest first."""
        t = schema.runs.c
        query = self._select("runs", ((t.id, ids), (t.kind, kind)))
        return self._stream("runs", query.order_by(t.started.desc(), t.id))

    def answers(
        self,
        scorer: str,
        version: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        **filters: Unpack[CandidateFilters],
    ) -> Iterator[Answers]:
        """Each prompt with its candidates and their scores by one scorer, in the order of the prompts' ids.

        Where `version` or `arguments` is not given, it is what the scorer had when it last scored here:
        scores of different versions or arguments are never mixed. Prompts without candidates come with an
        empty list. Raises UsageError when the scorer has scored nothing.
        """
        version, arguments = self._latest(scorer, version, arguments)
        t, c = schema.scores.c, schema.candidates.c
        query = select(*columns("candidates"), *columns("scores")).select_from(schema.candidates)
        given = and_(t.candidate_id == c.id, *by_scorer(scorer, version, arguments))
        n = len(columns("candidates"))
        for prompt, rows in self._by_prompt(query.outerjoin(schema.scores, given), filters):
            yield prompt, [(Candidate(*r[:n]), None if r[n] is None else Score(*r[n:])) for r in rows]

    def ranked_answers(
        self, scorer: str, version: str, arguments: Mapping[str, Any], between: tuple[str, str] = ("", ""),
        **filters: Unpack[CandidateFilters],
    ) -> Iterator[tuple[Prompt, list[Answer]]]:  # fmt: skip
        """What `answers` gives, with only what groups are made of; several times as fast.

        A prompt comes without category, source and what checks it; the order of its answers is not defined. `between`
        keeps to prompts with an id from the first (included) to the second (not included; "" for no end).
        """
        p, c, t = schema.prompts.c, schema.candidates.c, schema.scores.c
        asked = (p.id, p.text, p.system, p.family, p.split, p.reference_texts)
        raw = (type_coerce(column, Text) for column in (*asked, c.id, c.text, t.sort_key))
        query: Any = select(*raw, t.value, t.tolerance, t.passed).select_from(schema.prompts)
        theirs = self._all((c.model, filters.get("model")), (c.source, filters.get("source")))
        query = query.outerjoin(schema.candidates, and_(c.prompt_id == p.id, *theirs))
        query = query.outerjoin(schema.scores, and_(t.candidate_id == c.id, *by_scorer(scorer, version, arguments)))
        named = ((p.id, filters.get("prompt_ids")), (p.split, filters.get("split")), (p.family, filters.get("family")))
        query = query.where(*self._all(*named), p.id >= between[0]).order_by(p.id)
        if between[1]:
            query = query.where(p.id < between[1])
        with self._reading() as conn:
            for _, rows in groupby(self._rows(conn, query), key=itemgetter(0)):
                found: list[Answer] = []
                for row in rows:
                    *prompt, id, text, key, value, tolerance, passed = row
                    if value is not None:
                        ranks = tuple(_DECODER.raw_decode(key)[0]) or (value,)
                        found.append(Answer(id, schema.unescape_text(text), value, ranks, tolerance, passed))
                    elif id is not None:
                        found.append(Answer(id, schema.unescape_text(text)))
                text, system, family, split = map(schema.unescape_text, prompt[1:5])
                known = schema.references(json.loads(prompt[5]))
                yield Prompt(text, system, family, split=split, references=known), found

    def to_score(
        self, scorer: str, version: str, arguments: Mapping[str, Any], **filters: Unpack[CandidateFilters]
    ) -> Iterator[tuple[Prompt, Candidate]]:
        """The candidates, with their prompts, that this scorer has given no value: new and unscored ones."""
        t, c = schema.scores.c, schema.candidates.c
        given = (t.candidate_id == c.id, t.value.is_not(None), *by_scorer(scorer, version, arguments))
        query = select(*columns("candidates")).where(~exists(select(1).where(*given)))
        for prompt, rows in self._by_prompt(query, filters):
            yield from ((prompt, Candidate(*row)) for row in rows)

    def token_ids(self, candidate_ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """The exact ids that were sampled for these candidates, where they are known, by candidate id."""
        t = schema.candidate_tokens
        query = select(t.c.candidate_id, t.c.token_ids)
        with self._reading() as conn:
            conditions = matches(t.c.candidate_id, list(candidate_ids), self._dialect)
            return {row.candidate_id: row.token_ids for row in conn.execute(query.where(*conditions))}

    def get_prompt(self, id: str) -> Prompt | None:
        """The prompt with this id, or None."""
        return next(self.prompts(ids=id), None)

    def get_candidate(self, id: str) -> Candidate | None:
        """The candidate with this id, or None."""
        return next(self.candidates(ids=id), None)

    def get_score(self, id: str) -> Score | None:
        """The score with this id, or None."""
        return next(self.scores(ids=id), None)

    def get_ranking(self, id: str) -> Ranking | None:
        """The ranking with this id, or None."""
        return next(self.rankings(ids=id), None)

    def get_group(self, id: str) -> PreferenceGroup | None:
        """The preference group with this id, or None."""
        return next(self.groups(ids=id), None)

    def get_run(self, id: str) -> Run | None:
        """The run with this id, or None."""
        return next(self.runs(ids=id), None)

    def ids(self, kind: str, beginning: str) -> list[str]:
        """The ids of a kind's rows that begin so, in order; at most 100."""
        _check_kind(kind)
        t = KINDS[kind].table.c
        query = select(t.id).where(t.id.startswith(beginning, autoescape=True)).order_by(t.id).limit(100)
        with self._reading() as conn:
            return list(conn.execute(query).scalars())

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

    # ---- the whole

    def counts(self) -> dict[str, int]:
        """How many rows of each kind there are; `unscored` counts the scores without a value."""
        queries = {name: select(func.count()).select_from(kind.table) for name, kind in KINDS.items()}
        queries["unscored"] = select(func.count()).where(schema.scores.c.value.is_(None))
        with self._reading() as conn:
            return {name: int(conn.execute(query).scalar_one()) for name, query in queries.items()}

    def scorers(self) -> list[dict[str, Any]]:
        """For each scorer and version: the number of candidates scored, left unscored, and passed."""
        t = schema.scores.c
        figures = {
            "scored": func.count(t.value),
            "unscored": func.count() - func.count(t.value),
            "passed": func.count().filter(t.passed.is_(True)),
        }
        query = select(t.scorer, t.version, *(f.label(name) for name, f in figures.items()))
        with self._reading() as conn:
            found = conn.execute(query.group_by(t.scorer, t.version).order_by(t.scorer, t.version))
            return [dict(row) for row in found.mappings()]

    def export_jsonl(self, kind: str, path: str | Path, **filters: Any) -> int:
        """Write the rows of a kind ("prompts", "candidates", "scores", "rankings", "groups", "runs").

        `filters` are those of the reading method of that name. Returns how many rows were written.
        """
        _check_kind(kind)
        return write_jsonl(path, getattr(self, kind)(**filters))

    def import_jsonl(self, kind: str, path: str | Path) -> Imported:
        """Add the rows of a JSON lines file; lines that cannot be used are named by number, the rest kept.

        Raises UsageError when there is no such file, DataError when no line of it is usable.
        """
        _check_kind(kind)
        loaded = read_rows(path, kind, self._parent(kind))
        added = getattr(self, f"add_{kind}")(loaded.rows)
        return Imported(len(loaded.rows), added, loaded.bad)

    def connection(self, write: bool = False) -> AbstractContextManager[Connection]:
        """A connection in a transaction of its own, for tables that a single feature reads and writes itself."""
        return transaction(self._engine, self.where, write=write)

    # ---- inside

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self.where, write=True)

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self.where)

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

    def _select(self, kind: str, wanted: Iterable[tuple[Any, Matching]]) -> Select[Any]:
        return select(*columns(kind)).where(*self._all(*wanted))

    def _all(self, *wanted: tuple[Any, Matching]) -> list[ColumnElement[bool]]:
        """The conditions that each column is what is wanted of it."""
        return [c for column, value in wanted for c in matches(column, value, self._dialect)]

    def _rows(self, conn: Connection, query: Select[Any]) -> Iterator[Any]:
        return iter(conn.execute(query, execution_options={"stream_results": True, "yield_per": 500}))

    def _stream(self, kind: str, query: Select[Any]) -> Iterator[Any]:
        with self._reading() as conn:
            for row in self._rows(conn, query):
                yield KINDS[kind].cls(*row)

    def _of_candidates(self, query: Select[Any], filters: CandidateFilters) -> Select[Any]:
        """`query` of candidates kept to what `filters` say, ordered by prompt, seed and index."""
        c = schema.candidates.c
        conditions = in_prompts(c.prompt_id, filters.get("split"), filters.get("family"), self._dialect)
        conditions += matches(c.prompt_id, filters.get("prompt_ids"), self._dialect)
        conditions += matches(c.model, filters.get("model"), self._dialect)
        conditions += matches(c.source, filters.get("source"), self._dialect)
        return query.where(*conditions).order_by(c.prompt_id, c.seed, c.idx, c.id)

    def _by_prompt(self, query: Select[Any], filters: CandidateFilters) -> Iterator[tuple[Prompt, list[Any]]]:
        """Every prompt with the rows of `query` that are its; a row begins with the prompt's id.

        Two reads in the same order are merged, so a prompt is read once however many candidates it has.
        """
        t = schema.prompts.c
        split, family = filters.get("split"), filters.get("family")
        wanted = ((t.id, filters.get("prompt_ids")), (t.split, split), (t.family, family))
        prompts = select(*columns("prompts"), t.id).where(*self._all(*wanted)).order_by(t.id)
        with self._reading() as conn:
            rows = self._rows(conn, self._of_candidates(query, filters))
            groups = groupby(rows, key=lambda row: row[0])
            id, members = next(groups, ("", iter(())))
            for *fields, prompt_id in self._rows(conn, prompts):
                while id and id < prompt_id:
                    id, members = next(groups, ("", iter(())))
                yield Prompt(*fields), list(members) if id == prompt_id else []

    def _latest(
        self, scorer: str, version: str | None, arguments: Mapping[str, Any] | None
    ) -> tuple[str, Mapping[str, Any]]:
        if version is not None and arguments is not None:
            return version, arguments
        t = schema.scores.c
        query = select(t.version, t.arguments).where(*by_scorer(scorer, version, arguments))
        with self._reading() as conn:
            found = conn.execute(query.order_by(t.added.desc()).limit(1)).first()
        if found is None:
            name = scorer if version is None else f"{scorer}@{version}"
            raise UsageError(f"{self.where} has no scores by {name}", f"hafs score --scorer {scorer}")
        return found[0], found[1]

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


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"a workspace has no {kind!r}", f"use one of: {', '.join(KINDS)}")
