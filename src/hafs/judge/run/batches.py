"""Batches: many questions in one submission at half price, answered within a day, and safe to be killed at any moment.

The steps are: the intent is written (with the worst cost) → the batch is submitted → its id is written → it is polled →
its results, told apart by custom id, and that it is done are written in one transaction. What a kill leaves behind:

- an intent without an id: the vendor is asked for its batches, and ours is the one that carries the intent's id. OpenAI
  keeps it in the metadata; Anthropic has none, so the batch is found by its time and size and proven by the custom ids
  of its results. Where there is none it was never submitted, and the questions are free to be asked;
- an id without results: it is polled on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hafs.judge.prices import most_tokens
from hafs.judge.probe import set_up
from hafs.judge.protocols import Ask, Reading
from hafs.judge.run.budget import BudgetSpent
from hafs.judge.run.calling import Caller, judged, repair
from hafs.judge.run.ledger import MALFORMED, Batch, Call, Ledger, new_id
from hafs.judge.work import Page, Work
from hafs.servers.batch import Vendor, open_vendor
from hafs.servers.client import Messages, Reply
from hafs.servers.errors import RETRIABLE, CallFailed, EndpointDown
from hafs.servers.limits import backoff
from hafs.types import Progress

CHUNK = 2000
"""Questions in one batch: vendors take more, but a batch is held in memory while it is submitted."""
GRACE = 60.0
"""Seconds after an intent in which a batch may still turn up at the vendor."""

Item = tuple[Ask, Messages]
"""A question with its conversation: one turn, or three where an unreadable reply is to be repaired."""
PageDone = Callable[[Page], Awaitable[None]]


@dataclass
class _Batching:
    """The batches of one judge in one run."""

    caller: Caller
    ledger: Ledger
    vendor: Vendor
    poll: float
    progress: Progress
    ids: list[str] = field(default_factory=list)
    _open: list[Batch] = field(default_factory=list)

    async def recover(self) -> None:
        """Take up the batches that an earlier run left under way."""
        for batch in self.ledger.open_batches(self.caller.judge):
            if batch.status == "intent":
                found = await self._find(batch)
                if found is None:
                    self.ledger.drop_batch(batch)
                    self._free(batch, 0.0)
                    continue
                batch = found
            await self._collect(batch, earlier=True)

    async def submit(self, asks: Sequence[Item]) -> int:
        """Submit questions; returns how many the budget leaves out, and then the caller is stopped."""
        rest = list(asks)
        while rest and not self.caller.stop:
            chunk = self._affordable(rest[:CHUNK])
            if chunk:
                self._open.append(await self._submit(chunk))
                rest = rest[len(chunk) :]
        return len(rest)

    async def collect(self) -> None:
        """Wait for everything that was submitted and write what became of it."""
        while self._open:
            await self._collect(self._open[0])
            del self._open[0]

    def _affordable(self, asks: Sequence[Item]) -> list[Item]:
        """As many of `asks` as the budget allows, at least one or none; none stops the caller."""
        chunk, worst, left = [], 0.0, self.caller.budget.left
        for ask in asks:
            worst += self._worst(ask)
            if worst > left:
                break
            chunk.append(ask)
        if not chunk:
            limit = self.caller.budget.limit or 0.0
            self.caller.stop = BudgetSpent(
                f"the budget of ${limit:.2f} does not allow another question",
                "raise --budget and run the same command: what was answered is kept",
            )
        return chunk

    def _worst(self, item: Item) -> float:
        price = self.caller.price
        if price is None:
            return 0.0
        ask, messages = item
        tokens = most_tokens(ask.system, *(text for _, text in messages), str(ask.schema))
        return price.cost(tokens, self.caller.manner.max_tokens, batch=True)

    async def _submit(self, items: Sequence[Item]) -> Batch:
        caller = self.caller
        worst = sum(map(self._worst, items))
        await caller.budget.reserve(worst)
        batch = Batch(
            caller.run_id,
            caller.judge,
            caller.client.endpoint,
            {ask.key(caller.judge): [ask.prompt_id, ask.protocol, list(ask.shown), ask.chars] for ask, _ in items},
            reserved=worst,
            id=new_id(),
        )
        client: Any = caller.client
        requests = [
            (
                f"{batch.id}-{ask.key(caller.judge)}",
                client.body(ask.system, messages, ask.schema, caller.manner.max_tokens),
            )
            for ask, messages in items
        ]
        self.ledger.put_batch(batch)
        for n in range(1, caller.manner.attempts + 1):
            try:
                batch = replace(batch, remote_id=await self.vendor.submit(batch.id, requests), status="submitted")
            except CallFailed as e:
                caller.tally.trouble[e.kind] += 1
                if e.kind not in RETRIABLE or n == caller.manner.attempts:
                    self.ledger.drop_batch(batch)
                    await caller.budget.settle(worst, 0.0)
                    raise EndpointDown(f"{batch.endpoint} takes no batch: {e.message}", "hafs judge probe") from e
                if e.kind in ("timeout", "cut", "server") and (found := await self._find(batch)) is not None:
                    batch = found
                    break
                await asyncio.sleep(backoff(n, e.retry_after))
            else:
                self.ledger.put_batch(batch)
                break
        caller.tally.attempts += len(items)
        return batch

    async def _find(self, batch: Batch) -> Batch | None:
        """An intent's batch at the vendor, its id written down; None when it is certain that there is none."""
        grace = min(GRACE, 2 * self.poll)
        while True:
            asked = time.time()
            remote, maybe = await self._patiently(lambda: self.vendor.find(batch, self.ledger.known_remotes()))
            if remote:
                found = replace(batch, remote_id=remote, status="submitted")
                self.ledger.put_batch(found)
                return found
            if not maybe and asked > batch.created + grace:
                return None
            await asyncio.sleep(self.poll if maybe else min(self.poll, grace))

    async def _collect(self, batch: Batch, earlier: bool = False) -> None:
        """Wait for a batch and write what became of its questions."""
        while True:
            ended, through = await self._patiently(lambda: self.vendor.state(batch.remote_id))
            self.progress(f"{self.caller.judge} batch", through, len(batch.asks), {})
            if ended:
                break
            await asyncio.sleep(self.poll)
        calls = await self._patiently(lambda: self._calls(batch))
        self.ledger.close_batch(batch, calls)
        self.ids.append(batch.id)
        cost = sum(c.cost or 0.0 for c in calls)
        self.caller.tally.cost += cost
        if earlier:
            self._free(batch, cost)
        else:
            await self.caller.budget.settle(batch.reserved, cost)

    def _free(self, batch: Batch, cost: float) -> None:
        """An earlier run's worst case, which the budget counts as spent, becomes what it was."""
        if batch.run_id == self.caller.run_id and self.caller.budget.limit is not None:
            self.caller.budget.spent += cost - batch.reserved

    async def _calls(self, batch: Batch) -> list[Call]:
        calls: dict[str, Call] = {}
        async for custom_id, result in self.vendor.results(batch.remote_id):
            intent, _, key = custom_id.partition("-")
            if intent == batch.id and key in batch.asks:
                calls[key] = self._call(batch, key, result)
        lost = CallFailed("lost", "the batch ended without a word of it that can be read")
        return [calls.get(key) or self._call(batch, key, lost) for key in batch.asks]

    def _call(self, batch: Batch, key: str, result: Reply | CallFailed) -> Call:
        prompt_id, protocol, shown, chars = batch.asks[key]
        price, tally = self.caller.price, self.caller.tally
        call = Call(key, batch.judge, batch.endpoint, protocol, prompt_id, batch.run_id, chars=chars, batch_id=batch.id)
        if isinstance(result, CallFailed):
            tally.trouble[result.kind] += 1
            return replace(call, status=result.kind, reason=result.message[:200], raw=result.message, cost=0.0)
        status, reason, _ = judged(Ask(prompt_id, protocol, tuple(shown), 0, "", "", {}, ""), result)
        tally.input_tokens += result.input_tokens or 0
        tally.output_tokens += result.output_tokens or 0
        cost = price.cost(result.input_tokens or 0, result.output_tokens or 0, batch=True) if price else None
        return replace(
            call,
            status=status,
            reason=reason,
            raw=result.text,
            cost=cost,
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
        )

    async def _patiently(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Await `work()`, again after failures that pass. Raises EndpointDown when they do not."""
        for n in range(1, self.caller.manner.attempts + 1):
            try:
                return await work()
            except CallFailed as e:
                self.caller.tally.trouble[e.kind] += 1
                if e.kind not in RETRIABLE or n == self.caller.manner.attempts:
                    fix = "run the same command again: the batch goes on"
                    raise EndpointDown(f"{self.caller.client.endpoint} does not answer: {e.message}", fix) from e
                await asyncio.sleep(backoff(n, e.retry_after))
        raise AssertionError("unreachable")


async def run(caller: Caller, work: Work, poll: float, page_done: PageDone, progress: Progress) -> None:
    """Ask everything that is left in batches: first what was never asked, then a repair of what could not be read.

    What a batch left without an answer (errored, expired) is counted as failed, and asked again by the next run.
    """
    batching = _Batching(caller, work.ledger, open_vendor(caller.client, caller.manner.timeout), poll, progress)
    await batching.recover()
    first: list[Item] = []
    unasked = 0
    ready = False
    async for page in _pages(work):
        await page_done(page)
        if page.asks and not ready:
            await set_up(caller, work.ledger)
            ready = True
        first += [(ask, [("user", ask.text)]) for ask in page.asks]
        if len(first) >= CHUNK:
            unasked += await batching.submit(first)
            first = []
    unasked += await batching.submit(first)
    caller.tally.unasked += unasked
    await batching.collect()
    if batching.ids:
        await _settle(caller, work, batching, again=True)
        await _settle(caller, work, batching, again=False)


async def _settle(caller: Caller, work: Work, batching: _Batching, again: bool) -> None:
    """Make verdicts of what the batches brought; what could not be read is asked `again`, or said to be so."""
    unread = work.ledger.unread(batching.ids)
    repairs: list[Item] = []
    async for page in _pages(work):
        for verdict in page.verdicts:
            caller.tally.asked += 1
            await caller.writer.put(verdict)
        for ask in page.asks:
            call = unread.get(ask.key(caller.judge))
            if call is None:
                continue
            if call.status == MALFORMED and again:
                repairs.append((ask, repair(ask, call.raw, call.reason)))
            elif not again:
                caller.tally.asked += 1
                if call.status == MALFORMED:
                    await caller.writer.put(ask.verdict(caller.judge, Reading("malformed", reason=call.reason)))
                else:
                    caller.tally.failed[call.status] += 1
    await caller.writer.flush()
    if repairs:
        await batching.submit(repairs)
        await batching.collect()


async def _pages(work: Work) -> AsyncIterator[Page]:
    pages = work.pages()
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        yield page
