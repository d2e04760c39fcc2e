"""Judging a selection of candidates: every question of a protocol to every judge of a panel, under one budget.

Questions stream from the store and verdicts into it; killed and repeated, a run asks only what is left.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from hafs.errors import HafsError, UsageError
from hafs.judge import protocols
from hafs.judge.clients import ReplayClient
from hafs.judge.consistency import Reliability
from hafs.judge.prices import FREE, Price, Prices
from hafs.judge.probe import set_up
from hafs.judge.protocols import Ask
from hafs.judge.run import batches
from hafs.judge.run.budget import Budget
from hafs.judge.run.calling import Caller, Manner, Stopped, Tally, VerdictWriter
from hafs.judge.run.ledger import Ledger
from hafs.judge.work import JudgeWork, Selection, WorkPage
from hafs.servers.address import is_local
from hafs.servers.client import Client
from hafs.servers.errors import EndpointDown
from hafs.store import Store
from hafs.types import Progress, content_id, silent


@dataclass
class JudgeResult:
    """One judge's part of a run: what was done and how far it can be taken at its word.

    `unreadable` counts the verdicts that say nothing because the reply could not be read, by reason; `max_tokens` is
    where replies were cut.
    """

    judge: str
    protocol: str
    tally: Tally
    reliability: Reliability = field(default_factory=Reliability)
    unreadable: Counter[str] = field(default_factory=Counter)
    max_tokens: int = 0

    @property
    def nothing_read(self) -> bool:
        """Whether there were replies and not one could be read."""
        said = self.reliability.verdicts
        return bool(said["malformed"]) and said["malformed"] == sum(said.values())

    @property
    def coverage(self) -> float | None:
        """The share of all questions with a verdict that ranks or ties; failures and unasked ones count as missing."""
        verdicts = self.reliability.verdicts
        missing = sum(self.tally.failed.values()) + self.tally.unasked
        total = sum(verdicts.values()) + missing
        return (verdicts["ranked"] + verdicts["tie"]) / total if total else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return {
            "judge": self.judge,
            "protocol": self.protocol,
            **self.reliability.to_dict(),
            "coverage": self.coverage,
            "unreadable": dict(self.unreadable),
            **self.tally.to_dict(),
        }


def price_of(client: Client, prices: Prices) -> Price | None:
    """The price of a client's model: the table's, nothing where it is local, None where it is unknown."""
    if isinstance(client, ReplayClient):
        return FREE
    return prices.of(client.model) or (FREE if is_local(client.endpoint) else None)


def check_prices(clients: Sequence[Client], prices: Prices) -> None:
    """Raises UsageError when a judge has no price, without which a budget cannot be kept."""
    for client in clients:
        if price_of(client, prices) is None:
            raise UsageError(
                f"{client.model} has no price, so a budget cannot be kept",
                f'add it to prices.toml beside hafs.toml: [models] "{client.model}" = {{ price = [INPUT, OUTPUT] }}',
            )


@dataclass(frozen=True)
class Judging:
    """A run: the protocol, which candidates, how; `batch` sends batches at half price, polled every `poll` seconds."""

    protocol: protocols.Protocol
    selection: Selection
    manner: Manner = field(default_factory=Manner)
    budget: float | None = None
    batch: bool = False
    poll: float = 30.0


def judge(
    store: Store,
    clients: Sequence[Client],
    prices: Prices,
    judging: Judging,
    progress: Progress = silent,
    elsewhere: Elsewhere | None = None,
) -> list[JudgeResult]:
    """Ask every judge what is left to ask and store the verdicts; the clients are closed. The asking may be done
    `elsewhere`, by workers that open clients of their own.

    Raises UsageError for a budget with an unpriced judge. An endpoint that is down or a budget that is used does not
    raise: the result says in `stopped` why, and everything answered is kept.
    """
    if judging.budget is not None:
        check_prices(clients, prices)
    asked = sorted({c.model for c in clients if not isinstance(c, ReplayClient)})
    alone = bool(asked) and elsewhere is None  # workers elsewhere have a claim of their own
    with store.claimed(content_id("judge", asked)) if alone else nullcontext():  # two would pay for each question twice
        return asyncio.run(_judge(store, clients, prices, judging, progress, elsewhere))


class Elsewhere(Protocol):
    """Has the questions of a run asked by others, whose tallies it adds to those of the callers."""

    def begin(self, store: Store, run_id: str) -> None:
        """Make sure that nobody else is about this run."""
        ...

    async def ask(self, callers: Sequence[Caller], prices: Prices, judging: Judging, progress: Progress) -> None:
        """Have everything asked that is left; what the callers spent counts towards the budget."""
        ...


async def _judge(
    store: Store,
    clients: Sequence[Client],
    prices: Prices,
    judging: Judging,
    progress: Progress,
    elsewhere: Elsewhere | None,
) -> list[JudgeResult]:
    ledger = Ledger(store)
    names = [c.model for c in clients]
    what = {
        "judges": sorted(names),
        "protocol": judging.protocol.id,
        "seed": judging.protocol.seed,
        "shuffles": judging.protocol.shuffles,
    }
    run_id = store.start_run("judge", what, {"prompts": sorted(judging.selection.prompt_ids)})
    if elsewhere is not None:
        elsewhere.begin(store, run_id)
    budget = Budget(judging.budget, ledger.spent(run_id) if judging.budget is not None else 0.0)
    writer = VerdictWriter(store, ledger)
    callers = [Caller(c, price_of(c, prices), budget, writer, run_id, judging.manner) for c in clients]
    try:
        runs = [JudgeRun(caller, store, ledger, judging, progress) for caller in callers]
        if elsewhere is None:
            await together(run.all() for run in runs)
        else:  # here the endpoints are asked only what they take
            nothing = replace(judging, selection=replace(judging.selection, prompt_ids=()))
            await together(JudgeRun(caller, store, ledger, nothing, silent).all() for caller in callers)
            await writer.flush()
            await elsewhere.ask(callers, prices, judging, progress)
    finally:
        try:
            await writer.close()
        finally:
            for client in clients:
                with suppress(Exception):
                    await client.close()
    results = [run.result() for run in runs]
    short = any(r.tally.stopped or r.tally.failed or r.tally.unasked for r in results)
    store.finish_run(run_id, "failed" if short else "finished", {r.judge: r.to_dict() for r in results})
    return results


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first failure ends the others and is raised."""
    tasks = [asyncio.ensure_future(w) for w in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class JudgeRun:
    """The run of one judge."""

    def __init__(
        self, caller: Caller, store: Store, ledger: Ledger, judging: Judging, progress: Progress = silent
    ) -> None:
        self.caller, self.judging, self.progress = caller, judging, progress
        self.work = JudgeWork(store, ledger, caller.judge, judging.protocol, judging.selection)
        self.tally = caller.tally
        self._queue: asyncio.Queue[Ask | None] = asyncio.Queue(4 * judging.manner.concurrency)
        self._left: dict[str, int] = {}
        self._prompts = 0

    async def all(self) -> None:
        """Ask everything that is left."""
        started = time.monotonic()
        try:
            with suppress(Stopped):
                if self.judging.batch:
                    await batches.run(self.caller, self.work, self.judging.poll, self._page_done, self.progress)
                else:
                    await self._directly()
        except HafsError as e:
            self.caller.stop = self.caller.stop or e
        self.tally.seconds = time.monotonic() - started
        if self.caller.stop:
            self.tally.stopped = str(self.caller.stop)

    async def _directly(self) -> None:
        waiting = sum(len(b.asks) for b in self.work.ledger.open_batches(self.caller.judge))
        if waiting and not isinstance(self.caller.client, ReplayClient):
            raise EndpointDown(
                f"{waiting} questions to {self.caller.judge} are in a batch under way", "the same command with --batch"
            )
        await set_up(self.caller, self.work.ledger)
        workers = [self._worker() for _ in range(self.judging.manner.concurrency)]
        await together([self._produce(), *workers])

    async def _produce(self) -> None:
        pages = self.work.pages()
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            await self._page_done(page)
            for ask in page.asks:
                self._left[ask.prompt_id] = self._left.get(ask.prompt_id, 0) + 1
            for ask in page.asks:
                await self._queue.put(ask)
        for _ in range(self.judging.manner.concurrency):
            await self._queue.put(None)

    async def _page_done(self, page: WorkPage) -> None:
        """Store what the ledger answered and count the prompts that need no asking."""
        self.tally.decided += page.decided
        self.tally.from_ledger += len(page.verdicts)
        self.tally.skipped += page.skipped
        for verdict in page.verdicts:
            await self.caller.writer.put(verdict)
        self._prompts += page.prompts - len({a.prompt_id for a in page.asks})
        self._report()

    async def _worker(self) -> None:
        while (ask := await self._queue.get()) is not None:
            try:
                verdict = await self.caller.ask(ask)
            except Stopped:
                self.tally.unasked += 1
                continue
            self.tally.asked += 1
            if verdict is not None:
                await self.caller.writer.put(verdict)
            self._left[ask.prompt_id] -= 1
            if not self._left[ask.prompt_id]:
                del self._left[ask.prompt_id]
                self._prompts += 1
                self._report()

    def _report(self) -> None:
        figures = {"cost": self.tally.cost, "failed": float(sum(self.tally.failed.values()))}
        total = len(self.judging.selection.prompt_ids)
        self.progress(self.caller.judge, min(self._prompts, total), total, figures)

    def result(self) -> JudgeResult:
        """What came of it, the reliability read back from the store."""
        result = JudgeResult(self.caller.judge, self.judging.protocol.id, self.tally)
        result.max_tokens = self.judging.manner.max_tokens
        for verdicts in self.work.verdicts():
            result.reliability.add(verdicts)
            result.unreadable.update(v.reason for v in verdicts if v.outcome == "malformed")
        return result


def probes(store: Store, clients: Sequence[Client], prices: Prices, manner: Manner) -> Iterator[dict[str, Any]]:
    """Probe each client's endpoint anew: its model, address, and abilities or what went wrong."""
    for client in clients:
        yield asyncio.run(_probe(store, client, prices, manner))


async def _probe(store: Store, client: Client, prices: Prices, manner: Manner) -> dict[str, Any]:
    ledger = Ledger(store)
    writer = VerdictWriter(store, ledger)
    caller = Caller(client, price_of(client, prices), Budget(), writer, "", replace(manner, concurrency=1))
    about: dict[str, Any] = {"judge": client.model, "endpoint": client.endpoint}
    try:
        return {**about, "abilities": await set_up(caller, ledger, again=True)}
    except (EndpointDown, Stopped) as e:
        return {**about, "abilities": None, "problem": str(caller.stop or e)}
    finally:
        await writer.close()
        await client.close()
