"""A limit on dollars that holds with many calls in flight: the worst case is set aside before a call is sent, and what
it really cost replaces it afterwards. Spent and set aside together never pass the limit.
"""

from __future__ import annotations

import asyncio

from hafs.cluster import Shared
from hafs.errors import HafsError


class BudgetSpent(HafsError):
    """The next call might pass the limit and nothing that is under way can give money back."""


class Budget:
    """Dollars: `limit` (None for none), `spent` so far (earlier runs of the same work included), `reserved` in flight.

    For one event loop. One may be shared by several judges.
    """

    def __init__(self, limit: float | None = None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self.reserved = 0.0
        self._flying = 0
        self._changed = asyncio.Condition()

    @property
    def left(self) -> float:
        """Dollars that may still be set aside; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.spent - self.reserved

    async def reserve(self, worst: float) -> None:
        """Set `worst` dollars aside, waiting for calls in flight where they might free enough.

        Raises BudgetSpent when it does not fit and nothing is in flight.
        """
        async with self._changed:
            while worst > self.left:
                if not self._flying:
                    raise BudgetSpent(
                        f"the budget of ${self.limit:.2f} is used: ${self.spent:.2f} spent, and the next call may cost"
                        f" ${worst:.4f}",
                        "raise --budget and run the same command: what was answered is kept",
                    )
                await self._changed.wait()
            self.reserved += worst
            self._flying += 1

    async def settle(self, worst: float, cost: float) -> None:
        """Replace `worst` dollars set aside by what was really spent."""
        async with self._changed:
            self._flying -= 1
            self.reserved = max(0.0, self.reserved - worst) if self._flying else 0.0
            self.spent += cost
            self._changed.notify_all()


class Treasurer:
    """The one budget of a run that several machines ask for; it knows what each of them, by its name, has set aside."""

    def __init__(self, limit: float, spent: float) -> None:
        self._budget = Budget(limit, spent)
        self._held: dict[str, list[float]] = {}

    async def reserve(self, who: str, worst: float) -> None:
        """See `Budget.reserve`."""
        await self._budget.reserve(worst)
        self._held.setdefault(who, []).append(worst)

    async def settle(self, who: str, worst: float, cost: float) -> None:
        """See `Budget.settle`."""
        if worst in (held := self._held.get(who, [])):  # not where it was written off meanwhile
            held.remove(worst)
            await self._budget.settle(worst, cost)

    async def write_off(self, who: str) -> None:
        """Count as spent what a machine that died had set aside, as the ledger does with calls that have no end."""
        for worst in self._held.pop(who, []):
            await self._budget.settle(worst, worst)


class SharedBudget(Budget):
    """A worker's hand on the treasurer's budget."""

    def __init__(self, treasurer: Shared, who: str) -> None:
        super().__init__()
        self._treasurer, self._who = treasurer, who

    async def reserve(self, worst: float) -> None:
        """See `Budget.reserve`."""
        await self._treasurer.ask("reserve", self._who, worst)

    async def settle(self, worst: float, cost: float) -> None:
        """See `Budget.settle`."""
        await self._treasurer.ask("settle", self._who, worst, cost)
