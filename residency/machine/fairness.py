"""In which order those who wait for one model are let in, when it has fewer slots than there are who wait. Pure.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) over callers: a request gets a tag when it comes, the virtual time
or, if its caller has others before it, the end of the last of these; who has the smallest tag is next. A request
takes ``1 / weight`` of virtual time, so that batch work gets a share, and never nothing.

The bound: while a request waits that has ``r`` requests of its own caller before it, every other caller is let in at
most ``(r + 1) * its weight / the request's weight + 1`` times. So one caller's 500 requests never stand before
another's single one, and N callers of its own or lower priority cost it at most ``N * (r + 2)`` grants. Only requests
that have waited for more than half of their ``max_wait`` go before (``Engine.next_waiter``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container

from roundhouse.residency.machine.facts import Ticket


class FairQueue:
    """The order of one model's queue. Who has left is skipped when its turn comes."""

    def __init__(self) -> None:
        self._order: list[tuple[float, int, Ticket]] = []
        self._ends: dict[str, float] = {}
        self._now = 0.0
        self._count = 0

    def add(self, ticket: Ticket, caller: str, weight: float) -> int:
        """A request joins the queue. Returns how many are before it, those who have left among them."""
        start = max(self._now, self._ends.get(caller, 0.0))
        self._ends[caller] = start + 1.0 / weight
        self._count += 1
        entry = (start, self._count, ticket)
        place = bisect_right(self._order, entry)
        self._order.insert(place, entry)
        return place

    def next(self, waiting: Container[Ticket]) -> Ticket | None:
        """Take out the next of those that are still ``waiting``."""
        while self._order:
            start, _, ticket = self._order.pop(0)
            if ticket in waiting:
                self._now = start
                return ticket
        self._ends.clear()  # nobody has anything to make up for
        self._now = 0.0
        return None
