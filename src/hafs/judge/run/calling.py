"""One question to one judge until it is answered or given up: attempts, waits, one repair of an unreadable reply.

Every attempt is set aside in the budget before it is sent and written in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hafs.errors import HafsError
from hafs.judge.answers import Unreadable, read
from hafs.judge.clients import NOT_RECORDED, ReplayClient
from hafs.judge.prices import FREE, Price, most_tokens
from hafs.judge.protocols import Ask, Reading
from hafs.judge.run.budget import Budget, BudgetSpent
from hafs.judge.run.ledger import ANSWERED, MALFORMED, RECEIVED, Call, Ledger
from hafs.judge.work import REFUSED
from hafs.servers.client import GREEDY, Client, Messages, Reply, Sampling
from hafs.servers.errors import PERHAPS_PAID, RETRIABLE, CallFailed, EndpointDown
from hafs.servers.limits import Breaker, Limiter, backoff
from hafs.store import Store
from hafs.types import Verdict

T = TypeVar("T")


@dataclass
class Tally:
    """What a judge's run did: questions asked now, decided before, answered from the ledger; attempts and their cost.

    `priced` says whether the price is known, `free` that it was taken as nothing, since the server is local.
    `failed` are questions without a verdict by the kind of the last failure, `unasked` those that were not reached,
    `trouble` attempts by kind of failure, `stopped` why the run ended early.
    """

    asked: int = 0
    decided: int = 0
    from_ledger: int = 0
    skipped: int = 0
    attempts: int = 0
    unasked: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    priced: bool = True
    free: bool = False
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    trouble: Counter[str] = field(default_factory=Counter)
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return {**vars(self), "failed": dict(self.failed), "trouble": dict(self.trouble)}

    def add(self, part: Tally) -> None:
        """Count a part of the run that was done elsewhere; attempts and their cost are the ledger's to say."""
        for name in ("asked", "decided", "from_ledger", "skipped", "unasked"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.failed += part.failed
        self.trouble += part.trouble
        self.stopped = self.stopped or part.stopped


LINGER = 0.05
"""Seconds that what cost nothing waits for company before it is written: a commit costs more than its rows."""


class VerdictWriter:
    """Writes calls and verdicts in the order they come, many in one transaction.

    A call that cost money is written at once, with whatever came before it; the rest, which can be had again for
    nothing, within `LINGER` seconds.
    """

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._queue: asyncio.Queue[tuple[Any, asyncio.Future[None] | None] | None] = asyncio.Queue(512)
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._error: BaseException | None = None
        self._hurry = asyncio.Event()
        self._task = asyncio.ensure_future(self._run())

    async def put(self, item: Call | Verdict) -> None:
        """Have it written soon. Raises what an earlier writing raised."""
        if self._error:
            raise self._error
        await self._queue.put((item, None))
        if isinstance(item, Call) and item.cost:
            self._hurry.set()

    async def written(self, item: Call | Verdict) -> None:
        """Have it written, and wait until it is."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((item, done))
        self._hurry.set()
        await done

    async def flush(self) -> None:
        """Wait until everything put so far is written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._queue.put((None, done))
        self._hurry.set()
        await done

    async def close(self) -> None:
        """Write what is left. Raises what a writing raised."""
        await self._queue.put(None)
        self._hurry.set()
        await self._task
        self._thread.shutdown()
        if self._error:
            raise self._error

    async def _run(self) -> None:
        last = False
        while not last:
            batch = [await self._queue.get()]
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER):
                    await self._hurry.wait()
            self._hurry.clear()
            with suppress(asyncio.QueueEmpty):
                while len(batch) < 500:
                    batch.append(self._queue.get_nowait())
            last = batch[-1] is None
            await self._commit([entry for entry in batch if entry is not None])

    async def _commit(self, batch: list[tuple[Any, asyncio.Future[None] | None]]) -> None:
        items = [item for item, _ in batch]
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, items)
        except Exception as e:
            self._error = self._error or e
        for _, done in batch:
            if done is not None and not done.done():
                done.set_exception(self._error) if self._error else done.set_result(None)

    def _write(self, items: list[Any]) -> None:
        calls = list({i.id: i for i in items if isinstance(i, Call)}.values())  # the newest state of each
        verdicts = [i for i in items if isinstance(i, Verdict)]
        _each_if_not_all(self._ledger.put, calls)
        _each_if_not_all(self._store.add_verdicts, verdicts)


def _each_if_not_all(write: Callable[[list[Any]], Any], rows: list[Any]) -> None:
    """Write rows together; where that fails, each alone, so that one the database refuses costs no other. Raises what
    the first that failed raised."""
    if not rows:
        return
    try:
        write(rows)
    except Exception:
        failed = None
        for row in rows:
            try:
                write([row])
            except Exception as e:
                failed = failed or e
        if failed:
            raise failed from None


CUT = "it was cut off at the limit of tokens"


class Stopped(Exception):
    """The run of this judge is over; nothing more is sent."""


@dataclass(frozen=True)
class Manner:
    """How calls are made: how many at once, seconds for one, tokens of a reply at most, attempts at one question."""

    concurrency: int = 16
    timeout: float = 120.0
    max_tokens: int = 1024
    attempts: int = 8


class Caller:
    """A judge that can be asked: a client with its limits, price, budget and ledger. For one event loop."""

    def __init__(
        self, client: Client, price: Price | None, budget: Budget, writer: VerdictWriter, run_id: str, manner: Manner
    ) -> None:
        self.client, self.price, self.budget, self.writer = client, price, budget, writer
        self.run_id, self.manner = run_id, manner
        self.tally = self.new_tally()
        self.limiter = Limiter(manner.concurrency)
        self.breaker = Breaker(client.endpoint, max(10, 2 * manner.concurrency))
        self.stop: HafsError | None = None

    @property
    def judge(self) -> str:
        """The judge's name in verdicts."""
        return self.client.model

    def new_tally(self) -> Tally:
        """A tally in which nothing is counted yet."""
        return Tally(priced=self.price is not None, free=self.price == FREE)

    async def ask(self, ask: Ask) -> Verdict | None:
        """The verdict on a question; None when no reply came. Raises Stopped once the run is over."""
        if isinstance(self.client, ReplayClient):
            self.tally.failed[NOT_RECORDED] += 1
            return None
        about = Call(ask.key(self.judge), self.judge, self.client.endpoint, ask.protocol, ask.prompt_id, self.run_id)
        messages: Messages = [("user", ask.text)]
        verdict = None
        try:
            for _ in (1, 2):
                reply, reading = await self.call(
                    about, ask.system, messages, ask.schema, lambda reply: judged(ask, reply)
                )
                verdict = ask.verdict(self.judge, reading)
                if reading.outcome != "malformed":
                    break
                messages = repair(ask, reply.text, reading.reason)
        except CallFailed as e:
            if verdict is None:
                self.tally.failed[e.kind] += 1
        except Stopped:
            if verdict is None:
                raise
        return verdict

    async def call(
        self,
        about: Call,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        judge: Callable[[Reply], tuple[str, str, T]],
        sampling: Sampling = GREEDY,
        attempts: int | None = None,
    ) -> tuple[Reply, T]:
        """Attempts until one is replied to; returns the reply and what `judge` reads in it.

        `judge` also says how the reply is written down: (status, reason, what it reads).

        Raises CallFailed when it is given up, Stopped once the run is over.
        """
        last = attempts or self.manner.attempts
        for n in range(1, last + 1):
            if self.stop:
                raise Stopped
            try:
                return await self._attempt(replace_call(about, n), system, messages, schema, judge, sampling)
            except BudgetSpent as e:
                self.stop = self.stop or e
                raise Stopped from e
            except CallFailed as e:
                try:
                    self.breaker.bad(e)
                except EndpointDown as down:
                    self.stop = self.stop or down
                    raise Stopped from e
                if e.kind not in RETRIABLE or n == last:
                    raise
                await asyncio.sleep(backoff(n, e.retry_after))
        raise AssertionError("unreachable")

    async def _attempt(
        self,
        call: Call,
        system: str,
        messages: Messages,
        schema: Mapping[str, Any] | None,
        judge: Callable[[Reply], tuple[str, str, T]],
        sampling: Sampling,
    ) -> tuple[Reply, T]:
        texts = (system, *(text for _, text in messages))
        worst = self.worst(*texts, str(schema or ""))
        await self.budget.reserve(worst)
        cost = worst
        call = replace(call, chars=sum(map(len, texts)), cost=worst if self.price else None)
        try:
            async with self.limiter:
                if worst:
                    await self.writer.written(call)
                self.tally.attempts += 1
                started = time.time()
                begun = time.monotonic()
                try:
                    reply = await self.client.send(
                        system, messages, schema, self.manner.max_tokens, self.manner.timeout, sampling
                    )
                except CallFailed as e:
                    cost = worst if e.kind in PERHAPS_PAID else 0.0
                    await self._failed(replace(call, started=started, seconds=time.monotonic() - begun), e, cost)
                    raise
                call = replace(call, started=started, seconds=time.monotonic() - begun)
            self.limiter.good()
            self.breaker.good()
            cost = self._cost(reply, worst)
            self._count(reply, cost)
            call = replace(
                call,
                status=RECEIVED,
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                cost=cost if self.price else None,
                raw=reply.text,
            )
            if cost:
                await self.writer.put(call)  # what was paid for is kept before anybody tries to understand it
            status, reason, reading = judge(reply)
            await self.writer.put(replace(call, status=status, reason=reason))
            return reply, reading
        finally:
            await self.budget.settle(worst, cost)

    async def _failed(self, call: Call, e: CallFailed, cost: float) -> None:
        self.tally.trouble[e.kind] += 1
        self.tally.cost += cost
        if e.kind in ("rate_limit", "server", "timeout"):
            self.limiter.pushed_back(e.retry_after)
        paid = cost if self.price else None
        await self.writer.put(replace(call, status=e.kind, reason=e.message[:200], cost=paid, raw=e.message))

    def worst(self, *texts: str) -> float:
        """The most that a call with these texts can cost, in dollars; 0 without a price."""
        return self.price.cost(most_tokens(*texts), self.manner.max_tokens) if self.price else 0.0

    def _cost(self, reply: Reply, worst: float) -> float:
        if self.price is None:
            return 0.0
        if reply.input_tokens is None or reply.output_tokens is None:
            return worst
        return self.price.cost(reply.input_tokens, reply.output_tokens)

    def _count(self, reply: Reply, cost: float) -> None:
        self.tally.input_tokens += reply.input_tokens or 0
        self.tally.output_tokens += reply.output_tokens or 0
        self.tally.cost += cost


def judged(ask: Ask, reply: Reply) -> tuple[str, str, Reading]:
    """What a reply is: (status in the ledger, reason there, the reading). Only what can be read is an answer."""
    if reply.stop == "refusal":
        return ANSWERED, REFUSED, Reading("abstain", reason=f"the judge {REFUSED}")
    try:
        if reply.stop == "length":
            raise Unreadable(CUT)
        return ANSWERED, "", read(ask, reply.text)
    except Unreadable as e:
        return MALFORMED, str(e), Reading("malformed", reason=str(e))


def repair(ask: Ask, reply: str, why: str) -> Messages:
    """The conversation in which a reply that could not be read is asked for once more."""
    again = f"That could not be read: {why}. Reply again, with the JSON object alone."
    return [("user", ask.text), ("assistant", reply.strip() or "(nothing)"), ("user", again)]


def replace_call(about: Call, attempt: int) -> Call:
    """The row of another attempt at the same question."""
    return Call(about.key, about.judge, about.endpoint, about.protocol, about.prompt_id, about.run_id, attempt)
