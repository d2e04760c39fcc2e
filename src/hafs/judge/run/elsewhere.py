"""A judge's run by the workers of a cluster: each asks about a part of the prompts, all out of one budget.

The ledger stays the single truth: a part that is done again, since its worker died, asks only what nobody has answered;
attempts and costs are counted there, and what a worker that died had set aside stays spent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from hafs.cluster import Crew, Shared, worker_id
from hafs.errors import HafsError, UsageError
from hafs.judge.clients import open_client
from hafs.judge.prices import Prices
from hafs.judge.run.budget import Budget, SharedBudget, Treasurer
from hafs.judge.run.calling import Caller, Tally, VerdictWriter
from hafs.judge.run.ledger import Ledger
from hafs.judge.run.runner import JudgeRun, Judging, price_of, together
from hafs.judge.work import PAGE
from hafs.store import Store, open_store
from hafs.types import Progress


class CrewOfJudges:
    """Has a run's questions asked by a crew; `specs` and `base_url` are the judges as they were named."""

    def __init__(self, crew: Crew, specs: Sequence[str], base_url: str | None = None) -> None:
        self._crew, self._specs, self._base_url = crew, tuple(specs), base_url
        self._store: Store | None = None
        self._run_id = ""

    def begin(self, store: Store, run_id: str) -> None:
        """Claim the run, waiting for workers that another command has left."""
        self._store, self._run_id = store, run_id
        self._crew.claim(run_id, lambda: store.claimed(run_id, workers=True))

    async def ask(self, callers: Sequence[Caller], prices: Prices, judging: Judging, progress: Progress) -> None:
        """See `runner.Elsewhere`."""
        assert self._store is not None
        if judging.batch:
            raise UsageError("a batch is one file for the vendor: there is nothing to share out", "without --cluster")
        ledger = Ledger(self._store)
        before = [ledger.totals(self._run_id, c.judge) for c in callers]
        started, stopped = time.monotonic(), ""
        if not all(c.stop for c in callers):
            try:
                await asyncio.to_thread(self._share_out, callers, prices, judging, progress)
            except HafsError as e:
                stopped = str(e)
        for caller, earlier in zip(callers, before, strict=True):
            now = ledger.totals(self._run_id, caller.judge)
            attempts, tokens_in, tokens_out, cost = (b - a for a, b in zip(earlier, now, strict=True))
            tally = caller.tally
            tally.attempts += int(attempts)
            tally.input_tokens += int(tokens_in)
            tally.output_tokens += int(tokens_out)
            tally.cost += cost
            tally.seconds += time.monotonic() - started
            tally.stopped = tally.stopped or stopped

    def _share_out(self, callers: Sequence[Caller], prices: Prices, judging: Judging, progress: Progress) -> None:
        assert self._store is not None
        ids = sorted(judging.selection.prompt_ids)
        workers = min(self._crew.room(accelerated=False), judging.manner.concurrency)
        size = self._crew.share_of(len(ids), PAGE, accelerated=False)
        parts = [ids[i : i + size] for i in range(0, len(ids), size)]
        treasurer = None
        if judging.budget is not None:
            treasurer = self._crew.share(Treasurer, judging.budget, callers[0].budget.spent)
        mine = replace(
            judging,
            selection=replace(judging.selection, prompt_ids=()),
            manner=replace(judging.manner, concurrency=max(1, judging.manner.concurrency // workers)),
        )
        job = JudgingPart(self._store.url, self._specs, self._base_url, prices, mine, self._run_id, treasurer)

        def mourn(worker: str) -> None:
            if treasurer is not None:
                treasurer.tell("write_off", worker)

        done = 0
        for part, tallies in self._crew.map(job, parts, min(len(parts), workers), mourn):
            done += len(part)
            for caller, tally in zip(callers, tallies, strict=True):
                caller.tally.add(tally)
                progress(caller.judge, done, len(ids), {"failed": float(sum(caller.tally.failed.values()))})


@dataclass(frozen=True)
class JudgingPart:
    """A worker's part in judging: the database, the judges as they were named, what to ask, out of which budget."""

    database: str
    specs: tuple[str, ...]
    base_url: str | None
    prices: Prices
    judging: Judging
    run_id: str
    treasurer: Shared | None

    accelerated = False

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[str]], list[Tally]]]:
        """Open the clients and join the run; yields what asks about the prompts of these ids."""
        with open_store(self.database) as store, store.joined(self.run_id), asyncio.Runner() as runner:
            ledger = Ledger(store)
            budget = Budget() if self.treasurer is None else SharedBudget(self.treasurer, worker_id())
            clients = [open_client(spec, self.base_url) for spec in self.specs]
            writer = runner.run(_writer(store, ledger))
            callers = [
                Caller(c, price_of(c, self.prices), budget, writer, self.run_id, self.judging.manner) for c in clients
            ]

            async def asked(ids: Sequence[str]) -> list[Tally]:
                part = replace(self.judging, selection=replace(self.judging.selection, prompt_ids=ids))
                for caller in callers:
                    caller.tally = caller.new_tally()
                await together(JudgeRun(caller, store, ledger, part).all() for caller in callers)
                await writer.flush()
                return [caller.tally for caller in callers]

            async def close() -> None:
                await writer.close()
                for client in clients:
                    with suppress(Exception):
                        await client.close()

            try:
                yield lambda ids: runner.run(asked(ids))
            finally:
                runner.run(close())


async def _writer(store: Store, ledger: Ledger) -> VerdictWriter:
    """The writer, made where its loop runs."""
    return VerdictWriter(store, ledger)
