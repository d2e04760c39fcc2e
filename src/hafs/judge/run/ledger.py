"""The ledger: every attempt to ask a judge, what came back and what it cost, in the workspace's database.

An answered call is kept under the content of its question, so the same question is never sent twice. A failure is a
row too, but never an answer. A call that costs money is written before it is sent, with its worst case as the cost:
whatever kills the program, the ledger never says less than was spent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from hafs.store import Store
from hafs.store.query import matches
from hafs.store.schema import judge_batches, judge_calls, judge_endpoints
from hafs.types import content_id

ANSWERED = "answered"
SENT = "sent"
RECEIVED = "received"
MALFORMED = "malformed"
ENOUGH = 20
"""Calls of a judge after which its own means replace the assumptions of an estimate."""


def new_id() -> str:
    """An id for something that happens once."""
    return uuid.uuid4().hex[:20]


@dataclass(frozen=True)
class Call:
    """One attempt. `status` is "answered", "malformed", "sent" (no word of it yet), "received" (not read yet) or the
    kind of its failure.

    `key` is what the answer is kept under, `chars` what was sent, `cost` dollars (the worst case where nobody said),
    `seconds` from sending to the whole reply, `started` seconds since 1970 (UTC), `raw` the reply or the error's text.
    """

    key: str
    judge: str
    endpoint: str
    protocol: str
    prompt_id: str
    run_id: str = ""
    attempt: int = 1
    status: str = SENT
    reason: str = ""
    chars: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    seconds: float | None = None
    started: float = field(default_factory=time.time)
    batch_id: str = ""
    raw: str = ""
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class LedgerBatch:
    """A batch of questions at a vendor. `status` is "intent" (perhaps submitted), "submitted" or "done".

    `asks` says of each question, by key, its prompt, protocol, candidates shown and characters; `reserved` is the worst
    that all of them can cost in dollars.
    """

    run_id: str
    judge: str
    endpoint: str
    asks: Mapping[str, Sequence[Any]]
    remote_id: str = ""
    status: str = "intent"
    reserved: float = 0.0
    created: float = field(default_factory=time.time)
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class Means:
    """What a judge's answered calls were on average: tokens sent a character, tokens of a reply, seconds."""

    calls: int
    tokens_per_char: float
    output_tokens: float
    seconds: float


class Ledger:
    """The calls, batches and endpoints of a workspace's judges."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, calls: Sequence[Call]) -> None:
        """Write calls, each over an earlier row of the same id."""
        self._upsert(judge_calls, calls)

    def answers(self, keys: Sequence[str]) -> dict[str, Call]:
        """The answered calls among `keys`, by key."""
        t = judge_calls.c
        with self._store.connection() as conn:
            wanted = matches(t.key, list(keys), conn.dialect.name)
            query = select(judge_calls).where(t.status == ANSWERED, *wanted).order_by(t.started)
            return {row["key"]: Call(**row) for row in conn.execute(query).mappings()}

    def unread(self, batch_ids: Sequence[str]) -> dict[str, Call]:
        """The newest call for each question of these batches that was not answered, by key."""
        t = judge_calls.c
        query = select(judge_calls).where(t.batch_id.in_(list(batch_ids)), t.status != ANSWERED).order_by(t.started)
        with self._store.connection() as conn:
            return {row["key"]: Call(**row) for row in conn.execute(query).mappings()}

    def spent(self, run_id: str) -> float:
        """Dollars of a run so far: its calls, and the worst case of its batches that are under way."""
        t, b = judge_calls.c, judge_batches.c
        with self._store.connection() as conn:
            calls = conn.execute(select(func.sum(t.cost)).where(t.run_id == run_id)).scalar()
            held = select(func.sum(b.reserved)).where(b.run_id == run_id, b.status != "done")
            return float(calls or 0.0) + float(conn.execute(held).scalar() or 0.0)

    def totals(self, run_id: str, judge: str) -> tuple[int, int, int, float]:
        """A judge's part of a run so far: attempts, tokens in, tokens out, dollars."""
        t = judge_calls.c
        sums = (func.count(), func.sum(t.input_tokens), func.sum(t.output_tokens), func.sum(t.cost))
        with self._store.connection() as conn:
            found = conn.execute(select(*sums).where(t.run_id == run_id, t.judge == judge)).one()
        attempts, tokens_in, tokens_out, cost = (x or 0 for x in found)
        return int(attempts), int(tokens_in), int(tokens_out), float(cost)

    def means(self, judge: str, protocol: str) -> Means | None:
        """The averages of a judge's answered calls under a protocol; None below `ENOUGH` with a token count."""
        t = judge_calls.c
        query = select(
            func.count(), func.sum(t.input_tokens), func.sum(t.chars), func.avg(t.output_tokens), func.avg(t.seconds)
        ).where(t.judge == judge, t.protocol == protocol, t.status == ANSWERED, t.input_tokens > 0, t.chars > 0)
        with self._store.connection() as conn:
            n, tokens, chars, reply, seconds = conn.execute(query).one()
        if n < ENOUGH or reply is None:
            return None
        return Means(n, float(tokens) / float(chars), float(reply), float(seconds or 0.0))

    # ---- batches

    def put_batch(self, batch: LedgerBatch) -> None:
        """Write a batch over its earlier row."""
        self._upsert(judge_batches, [batch])

    def close_batch(self, batch: LedgerBatch, calls: Sequence[Call]) -> None:
        """Write the calls of a batch and that it is done, both or neither."""
        with self._store.connection(write=True) as conn:
            if calls:
                conn.execute(_statement(judge_calls, conn.dialect.name), [dict(vars(c)) for c in calls])
            conn.execute(update(judge_batches).where(judge_batches.c.id == batch.id).values(status="done"))

    def drop_batch(self, batch: LedgerBatch) -> None:
        """Forget a batch that was never submitted."""
        with self._store.connection(write=True) as conn:
            conn.execute(delete(judge_batches).where(judge_batches.c.id == batch.id))

    def open_batches(self, judge: str) -> list[LedgerBatch]:
        """The batches of a judge that are not done, the oldest first."""
        t = judge_batches.c
        with self._store.connection() as conn:
            found = conn.execute(
                select(judge_batches).where(t.judge == judge, t.status != "done").order_by(t.created, t.id)
            )
            return [LedgerBatch(**row) for row in found.mappings()]

    def known_remotes(self) -> set[str]:
        """The vendors' ids of all batches that are ours beyond doubt."""
        with self._store.connection() as conn:
            return {r for r in conn.execute(select(judge_batches.c.remote_id)).scalars() if r}

    # ---- endpoints

    def abilities(self, endpoint: str, model: str) -> dict[str, bool] | None:
        """What a probe found out about a model at an endpoint; None before any."""
        with self._store.connection() as conn:
            query = select(judge_endpoints.c.abilities).where(judge_endpoints.c.id == _endpoint_id(endpoint, model))
            return conn.execute(query).scalar()

    def remember(self, endpoint: str, model: str, abilities: Mapping[str, bool]) -> None:
        """Keep what a probe found out."""
        row = {
            "id": _endpoint_id(endpoint, model),
            "endpoint": endpoint,
            "model": model,
            "abilities": dict(abilities),
            "probed": time.time(),
        }
        with self._store.connection(write=True) as conn:
            conn.execute(_statement(judge_endpoints, conn.dialect.name), [row])

    # ---- figures

    def spending(self) -> list[dict[str, Any]]:
        """For each judge and day (UTC): attempts, answers, tokens in and out, dollars, mean seconds of an answer.

        `unpriced` counts the answers whose price nobody knew, which are not in the dollars.
        """
        t = judge_calls.c
        day = func.floor(t.started / 86400)
        figures = {
            "attempts": func.count(),
            "answered": func.count().filter(t.status == ANSWERED),
            "unpriced": func.count().filter(t.status == ANSWERED, t.cost.is_(None)),
            "input_tokens": func.sum(t.input_tokens),
            "output_tokens": func.sum(t.output_tokens),
            "cost": func.sum(t.cost),
            "seconds": func.avg(t.seconds).filter(t.status == ANSWERED),
        }
        query = select(t.judge, day.label("day"), *(f.label(n) for n, f in figures.items())).group_by(t.judge, day)
        with self._store.connection() as conn:
            rows = [dict(r) for r in conn.execute(query.order_by(day, t.judge)).mappings()]
        for r in rows:
            r["day"] = time.strftime("%Y-%m-%d", time.gmtime(float(r["day"]) * 86400))
            r |= {n: int(r[n] or 0) for n in ("input_tokens", "output_tokens")}
            r |= {n: float(r[n] or 0.0) for n in ("cost", "seconds")}
        return rows

    def failures(self) -> list[dict[str, Any]]:
        """For each judge and kind of failure: how often, and the newest reason."""
        t = judge_calls.c
        query = (
            select(t.judge, t.status, func.count().label("times"), func.max(t.started).label("last"))
            .where(t.status != ANSWERED)
            .group_by(t.judge, t.status)
            .order_by(t.judge, func.count().desc())
        )
        with self._store.connection() as conn:
            rows = [dict(r) for r in conn.execute(query).mappings()]
            for r in rows:
                of = (t.judge == r["judge"], t.status == r["status"], t.started == r.pop("last"))
                r["reason"] = conn.execute(select(t.reason).where(*of).limit(1)).scalar() or ""
        return rows

    def _upsert(self, table: Table, items: Iterable[Any]) -> None:
        rows = [dict(vars(item)) for item in items]
        if rows:
            with self._store.connection(write=True) as conn:
                conn.execute(_statement(table, conn.dialect.name), rows)


@cache  # to build it takes longer than to run it
def _statement(table: Table, dialect: str) -> Any:
    insert = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    changed = {c.name: insert.excluded[c.name] for c in table.c if c.name != "id"}
    return insert.on_conflict_do_update(index_elements=["id"], set_=changed)


def _endpoint_id(endpoint: str, model: str) -> str:
    return content_id("endpoint", endpoint, model)
