"""How fast a judge is asked: concurrency that follows the endpoint's complaints, pauses it asks for, and giving up.

Additive increase, multiplicative decrease, as TCP does (Chiu and Jain 1989): each complaint halves the calls in flight,
each full round of good replies adds one.
"""

from __future__ import annotations

import asyncio
import random
import time

from hafs.servers.address import key_hint
from hafs.servers.errors import CallFailed, EndpointDown

LONGEST_PAUSE = 900.0
"""Seconds that an endpoint may ask to wait before the run stops instead."""
_BASE, _CAP = 0.5, 60.0


class Limiter:
    """At most `most` calls in flight, fewer after complaints; used as `async with limiter`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.flying = 0
        self._resume = 0.0
        self._halved = 0.0
        self._free = asyncio.Condition()

    async def __aenter__(self) -> None:
        async with self._free:
            while True:
                wait = self._resume - time.monotonic()
                if wait > 0:
                    try:
                        await asyncio.wait_for(self._free.wait(), wait)
                    except TimeoutError:
                        continue
                elif self.flying >= max(1, int(self.limit)):
                    await self._free.wait()
                else:
                    self.flying += 1
                    return

    async def __aexit__(self, *failure: object) -> None:
        async with self._free:
            self.flying -= 1
            self._free.notify_all()

    def good(self) -> None:
        """A reply came: one more at a time after a whole round of them."""
        self.limit = min(float(self.most), self.limit + 1.0 / max(1.0, self.limit))

    def pushed_back(self, retry_after: float | None) -> None:
        """The endpoint complained: half as many, once for the calls that were in flight together, and wait if told."""
        now = time.monotonic()
        if now > self._halved:
            self.limit = max(1.0, self.limit / 2)
            self._halved = now + 1.0
        if retry_after:
            self._resume = max(self._resume, now + retry_after)


def backoff(attempt: int, retry_after: float | None = None) -> float:
    """Seconds to wait after the `attempt`-th failure: exponential with full jitter (Brooker 2015), on top of what the
    endpoint asks for."""
    return (retry_after or 0.0) + random.uniform(0.0, min(_CAP, _BASE * 2.0**attempt))


class Breaker:
    """Stops a run whose endpoint is plainly down: so many failures in a row, whatever was asked."""

    def __init__(self, endpoint: str, threshold: int) -> None:
        self.endpoint = endpoint
        self.threshold = threshold
        self._row = 0

    def good(self) -> None:
        """It answered."""
        self._row = 0

    def bad(self, failed: CallFailed) -> None:
        """It did not. Raises EndpointDown after too many in a row, for a refused key, and for a very long wait."""
        fix = "see that it runs, then run the same command again: what was answered is kept"
        if failed.kind == "auth":
            raise EndpointDown(
                f"{self.endpoint} refuses: {failed.message}", f"{key_hint(self.endpoint)} with a key that may do it"
            )
        if (failed.retry_after or 0.0) > LONGEST_PAUSE:
            raise EndpointDown(f"{self.endpoint} asks to wait {failed.retry_after:.0f} s", "run the command again then")
        if failed.kind == "rate_limit":
            return
        self._row += 1
        if self._row >= self.threshold:
            raise EndpointDown(f"{self.endpoint} failed {self._row} times in a row: {failed.message}", fix)
