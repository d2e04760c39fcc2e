"""Candidates by the page: any filters together, in the order of prompts and ids, as fast at the end as at the start.

A page begins after the last row of the one before (keyset), so no row is counted past. The candidates are gone through
in the order of an index until the page is full. What a filter finds rarely is looked for first, by an index of its own,
so a page costs about one pass at most, also where nothing is found.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Select, Text, exists, func, or_, select, tuple_, type_coerce

from hafs.errors import UsageError
from hafs.store import schema
from hafs.store.query import matches
from hafs.store.store import Store
from hafs.types import Candidate, Prompt, Score

PAGE = 50
OUTCOMES = ("passed", "failed", "graded", "unscored")
"""Of an answer: passed or failed a check, has a value without either, has none."""
FEW = 5_000
"""Candidates up to which a filter's set is made before the list is gone through."""
LONGEST = 1_000
"""Characters of a text that is looked for."""
SHOWN = 160
"""Characters of a text in a row."""


@dataclass(frozen=True)
class CandidateQuery:
    """Which candidates; an empty field filters nothing. `prompt_ids` and lengths (in characters) bound them further.

    `mark` keeps to the candidates with such a mark, or whose prompt has one.
    """

    family: str = ""
    split: str = ""
    source: str = ""
    model: str = ""
    outcome: str = ""
    cause: str = ""
    text: str = ""
    mark: str = ""
    shortest: int = 0
    longest: int = 0
    after: str = ""
    prompt_ids: Sequence[str] | None = None


@dataclass(frozen=True)
class CandidateRow:
    """A line of the list: the beginnings of both texts, and what the newest score says."""

    id: str
    prompt_id: str
    prompt: str
    text: str
    family: str
    split: str
    model: str
    model_name: str
    outcome: str
    cause: str
    length: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return asdict(self)


@dataclass(frozen=True)
class CandidatePage:
    """Rows, and the place after which the next page begins ("" at the end)."""

    rows: tuple[CandidateRow, ...]
    after: str = ""


def browse(store: Store, query: CandidateQuery, page: int = PAGE) -> CandidatePage:
    """One page of the candidates that `query` asks for. Raises UsageError for what it cannot ask."""
    if query.outcome not in ("", *OUTCOMES):
        raise UsageError(f"an outcome cannot be {query.outcome!r}", f"use one of: {', '.join(OUTCOMES)}")
    if len(query.text) > LONGEST:
        raise UsageError(f"a text to look for has at most {LONGEST:,} characters", "look for a part of it")
    with store.connection() as conn:
        found = conn.execute(browsing(conn, query).limit(page + 1)).all()
        ids = [row.id for row in found[:page]]
        rows = _rows(conn, ids)
    after = f"{found[page - 1].prompt_id}.{found[page - 1].id}" if len(found) > page else ""
    return CandidatePage(tuple(rows[id] for id in ids), after)


def browsing(conn: Connection, query: CandidateQuery) -> Select[Any]:
    """The ids that `query` asks for, as a statement: one pass over an index, which ends when the page is full."""
    c, p = schema.candidates.c, schema.prompts.c
    few = _few(conn, query)
    place: Any = c.prompt_id if few is None else _filtered(c.prompt_id)  # a few are sorted, more come in order
    statement = select(c.prompt_id, c.id).order_by(place, c.id)
    if few is not None:
        statement = statement.where(*matches(c.id, few, conn.dialect.name))
    if query.after:
        prompt, _, id = query.after.partition(".")
        statement = statement.where(tuple_(place, c.id) > tuple_(prompt, id))
    if query.model:
        statement = statement.where(_filtered(c.model) == query.model)
    if query.shortest:
        statement = statement.where(func.length(c.text) >= query.shortest)
    if query.longest:
        statement = statement.where(func.length(c.text) <= query.longest)
    about = ((p.family, query.family), (p.split, query.split), (p.source, query.source))
    if wanted := [column == value for column, value in about if value]:
        statement = statement.where(place.in_(select(p.id).where(*wanted)))
    if query.prompt_ids is not None:
        statement = statement.where(*matches(place, list(query.prompt_ids), conn.dialect.name))
    if query.outcome or query.cause:
        statement = statement.where(_by_outcome(query))
    if query.text:
        statement = statement.where(_by_text(conn, query.text))
    return statement.where(_by_mark(query.mark)) if query.mark else statement


def _filtered(column: Any) -> Any:
    """The column as an expression, which no planner takes for the way in: rows come in the order of the page."""
    return column.concat("")


def _few(conn: Connection, query: CandidateQuery) -> list[str] | None:
    """The candidates that a filter which finds few of them finds; None where each finds many."""
    t, c, p = schema.scores.c, schema.candidates.c, schema.prompts.c
    if query.cause or query.outcome not in ("", "unscored"):
        found = select(t.candidate_id).where(*_said(query)).distinct().limit(FEW)
        if len(ids := list(conn.execute(found).scalars())) < FEW:
            return ids
    if query.text:
        ids = list(conn.execute(select(c.id).where(_holds(conn, c.text, query.text)).limit(FEW)).scalars())
        if len(ids) < FEW:
            asked = select(p.id).where(_holds(conn, p.text, query.text))
            ids += conn.execute(select(c.id).where(c.prompt_id.in_(asked)).limit(FEW)).scalars()
            return ids if len(ids) < FEW else None
    return None


def _said(query: CandidateQuery) -> list[ColumnElement[bool]]:
    """What a score says."""
    t = schema.scores.c
    wanted: list[ColumnElement[bool]] = [t.value.is_not(None)]
    if query.outcome in ("passed", "failed"):
        wanted.append(t.passed.is_(query.outcome == "passed"))
    elif query.outcome == "graded":
        wanted.append(t.passed.is_(None))
    return [*wanted, t.cause == query.cause] if query.cause else wanted


def _by_outcome(query: CandidateQuery) -> ColumnElement[bool]:
    t, id = schema.scores.c, schema.candidates.c.id
    if query.outcome == "unscored":
        return ~exists(select(1).where(t.candidate_id == id, t.value.is_not(None)))
    return exists(select(1).where(t.candidate_id == id, *_said(query)))


def _by_text(conn: Connection, text: str) -> ColumnElement[bool]:
    """Those that hold it, or whose prompt does."""
    c, p = schema.candidates.c, schema.prompts.c
    return or_(_holds(conn, c.text, text), c.prompt_id.in_(select(p.id).where(_holds(conn, p.text, text))))


def _holds(conn: Connection, column: Any, text: str) -> ColumnElement[bool]:
    """That a text holds another, in letters of either case (on SQLite: of the English alphabet)."""
    wanted = schema.escape_text(text)
    if conn.dialect.name == "postgresql":
        return cast("ColumnElement[bool]", column.icontains(wanted, autoescape=True))
    pattern = re.sub(r"([%_\\])", r"\\\1", wanted)
    # LIKE skips to the first letter of what is looked for: three times as fast as instr(lower(text), …)
    return type_coerce(column, Text).like(f"%{pattern}%", escape="\\")


def _by_mark(kind: str) -> ColumnElement[bool]:
    c, m = schema.candidates.c, schema.marks.c
    standing = (m.kind == kind, m.undone.is_(None))
    single = select(m.candidate_id).where(*standing, m.candidate_id != "")
    whole = select(m.prompt_id).where(*standing, m.candidate_id == "")
    return or_(_filtered(c.id).in_(single), c.prompt_id.in_(whole))


def newest(store: Store, n: int) -> list[CandidateRow]:
    """The candidates that were made last, the newest first."""
    t = schema.candidates.c
    with store.connection() as conn:
        ids = list(conn.execute(select(t.id).order_by(t.added.desc(), t.id.desc()).limit(n)).scalars())
        rows = _rows(conn, ids)
    return [rows[id] for id in ids]


def _rows(conn: Connection, ids: Sequence[str]) -> dict[str, CandidateRow]:
    c, p, t = schema.candidates.c, schema.prompts.c, schema.scores.c
    said: dict[str, tuple[str, str]] = {}
    of = select(t.candidate_id, t.value, t.passed, t.cause).where(t.candidate_id.in_(ids)).order_by(t.added)
    for id, value, passed, cause in conn.execute(of):
        if value is not None:
            said[id] = ("graded" if passed is None else "passed" if passed else "failed", cause)
    columns = (c.id, c.prompt_id, p.text, c.text, p.family, p.split, c.model, c.model_name)
    query = select(*columns).join(schema.prompts, c.prompt_id == p.id).where(c.id.in_(ids))
    found = {}
    for id, prompt_id, prompt, text, family, split, model, name in conn.execute(query):
        texts = (prompt[:SHOWN], text[:SHOWN])
        outcome, cause = said.get(id, ("unscored", ""))
        found[id] = CandidateRow(id, prompt_id, *texts, family, split, model, name, outcome, cause, len(text))
    return found


def choices(store: Store) -> dict[str, list[tuple[str, str]]]:
    """What the filters can be set to, each with what it is called: families, splits, sources, models, causes."""
    c, p, t = schema.candidates.c, schema.prompts.c, schema.scores.c

    def plain(conn: Connection, column: Any) -> list[tuple[str, str]]:
        values = conn.execute(select(column).distinct().order_by(column)).scalars()
        return [(v, v) for v in values if v]

    with store.connection() as conn:
        models = conn.execute(select(c.model, func.max(c.model_name)).group_by(c.model).order_by(c.model)).all()
        return {
            "family": plain(conn, p.family),
            "split": plain(conn, p.split),
            "source": plain(conn, p.source),
            "model": [(model, name or model) for model, name in models if model],
            "cause": plain(conn, t.cause),
        }


@dataclass(frozen=True)
class PromptStory:
    """A prompt with its answers and all scores of each."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    scores: dict[str, list[Score]]


def story(store: Store, prompt_id: str) -> PromptStory:
    """What there is of one prompt. Raises UsageError when it is not in the store."""
    prompt = store.get_prompt(prompt_id)
    if prompt is None:
        raise UsageError(f"there is no prompt {prompt_id}", "`hafs data export prompts FILE` writes the ids")
    candidates = tuple(store.candidates(prompt_ids=prompt_id))
    scores: dict[str, list[Score]] = {c.id: [] for c in candidates}
    for score in store.scores(prompt_ids=prompt_id):
        scores[score.candidate_id].append(score)
    return PromptStory(prompt, candidates, scores)
