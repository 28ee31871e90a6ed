"""Who waits for one model: since when, until when, and whose turn it is. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

from roundhouse.residency.learned.calibration import Forecast
from roundhouse.residency.learned.durations import USUAL, Answer
from roundhouse.residency.machine.facts import Ticket
from roundhouse.residency.machine.fairness import FairQueue

LONG = 0.5
"""Past this share of its ``max_wait`` a request is let in before those that fairness would prefer."""


@dataclass(slots=True)
class Waiter:
    """A request in the queue: since when, until when (clock seconds), whose, and how much it weighs.

    ``place``: how many were to be let in before it when it came; ``forecast``: how long it was told then to wait;
    ``answer``: how long its answer will take; ``sure_at``: from when on it is one that stays (clock seconds).
    """

    ticket: Ticket
    since: float
    deadline: float
    caller: str = ""
    weight: float = 1.0
    place: int = 0
    forecast: Forecast | None = None
    answer: Answer = USUAL
    sure_at: float = -inf

    @property
    def known(self) -> bool:
        """Whether it was known when it came that it stays."""
        return self.sure_at <= self.since


@dataclass
class Queue:
    """The requests that wait, in the order in which they came; sums over them are kept, not added up anew.

    ``overdue``: those whose deadline has come; ``weight``: of all who wait.
    """

    waiting: OrderedDict[Ticket, Waiter] = field(default_factory=OrderedDict)
    overdue: set[Ticket] = field(default_factory=set)
    weight: float = 0.0
    _since: float = 0.0  # the sum of weight times arrival
    _own_s: float = 0.0  # of the answers to those who wait, in all
    _usual: float = 0.0
    _known: int = 0  # who wait and are known to stay
    _deadlines: list[tuple[float, Ticket]] = field(default_factory=list)
    _order: FairQueue = field(default_factory=FairQueue)

    def add(self, waiter: Waiter) -> None:
        """Add a request, and tell it its place."""
        waiter.place = min(len(self.waiting), self._order.add(waiter.ticket, waiter.caller, waiter.weight))
        self.waiting[waiter.ticket] = waiter
        self.weight += waiter.weight
        self._since += waiter.weight * waiter.since
        self._own_s += waiter.answer.own_s
        self._usual += waiter.answer.usual
        self._known += waiter.known
        heapq.heappush(self._deadlines, (waiter.deadline, waiter.ticket))

    def remove(self, ticket: Ticket) -> None:
        """Take a request out, wherever it stands."""
        it = self.waiting.pop(ticket)
        self.weight -= it.weight
        self._since -= it.weight * it.since
        self._own_s -= it.answer.own_s
        self._usual -= it.answer.usual
        self._known -= it.known
        if not self.waiting:
            self.weight = self._since = self._own_s = self._usual = 0.0  # rounding does not add up
        self.overdue.discard(ticket)

    def next(self, now: float) -> Ticket | None:
        """Whose turn it is: who has waited for long, else by fairness."""
        oldest = next(iter(self.waiting.values()))
        if now - oldest.since > LONG * (oldest.deadline - oldest.since):
            return oldest.ticket
        return self._order.next(self.waiting)

    def waited(self, now: float) -> float:
        """For how long those who wait have waited in all, each by its weight: waiter-seconds."""
        return self.weight * now - self._since

    def expire(self, now: float) -> None:
        """Put every request whose deadline has come into ``overdue``."""
        heap = self._deadlines
        while heap and (heap[0][0] <= now or heap[0][1] not in self.waiting):
            _, ticket = heapq.heappop(heap)
            if ticket in self.waiting:
                self.overdue.add(ticket)

    @property
    def deadline(self) -> float | None:
        """The earliest deadline of a waiting request that is not overdue yet."""
        heap = self._deadlines
        while heap and heap[0][1] not in self.waiting:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    @property
    def first(self) -> Waiter | None:
        """The request that came first."""
        return next(iter(self.waiting.values()), None)

    @property
    def sure_at(self) -> float:
        """From when on it is sure that somebody waits who stays (clock seconds)."""
        first = self.first
        return -inf if self._known or first is None else first.sure_at

    def answer_s(self, usual_s: float) -> float:
        """How long an answer takes to those who wait, on average; ``usual_s``: to somebody of whom nothing is known."""
        return (self._own_s + self._usual * usual_s) / len(self.waiting) if self.waiting else usual_s
