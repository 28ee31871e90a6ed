"""What the machine knows of one model: its engine's state, who waits for it, who has a lease. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from roundhouse.residency.facts import Ticket
from roundhouse.residency.states import State, move

HISTORY = 8
"""Moves kept per engine, for the message of an illegal one."""

BACKOFF_FIRST_S = 5.0
BACKOFF_MAX_S = 300.0
"""After a failed start requests are refused for 5, 10, 20 ... at most 300 s: long enough not to hammer a
broken engine, short enough for a person who has mended it (``switch`` takes the back-off away at once)."""

SMOOTHING = 0.5
"""Weight of the newest measured duration against those before: a changed machine shows after two or three."""


@dataclass(slots=True)
class Waiter:
    """A request in the queue: since when, until when (clock seconds)."""

    ticket: Ticket
    since: float
    deadline: float


@dataclass
class Measured:
    """Durations seen so far, in seconds; ``None`` before the first."""

    start_s: float | None = None
    stop_s: float | None = None

    def learn(self, name: str, seconds: float) -> None:
        """Mix a new duration into ``name`` ("start_s" or "stop_s")."""
        old = getattr(self, name)
        setattr(self, name, seconds if old is None else old + SMOOTHING * (seconds - old))


@dataclass
class Engine:
    """One model on one device. Only the machine changes it."""

    model: str
    device: str
    state: State = State.STOPPED
    pid: int | None = None
    cold: bool = True  # neither started nor prepared since this process began
    since: float = 0.0
    waiting: OrderedDict[Ticket, Waiter] = field(default_factory=OrderedDict)
    overdue: set[Ticket] = field(default_factory=set)
    leases: set[Ticket] = field(default_factory=set)
    switches: OrderedDict[Ticket, float] = field(default_factory=OrderedDict)
    unloads: dict[Ticket, bool] = field(default_factory=dict)
    failures: int = 0
    failed_until: float = 0.0
    failure: str = ""
    measured: Measured = field(default_factory=Measured)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _deadlines: list[tuple[float, Ticket]] = field(default_factory=list)

    def go(self, target: State, now: float, why: str) -> None:
        """Move to ``target``. Raises IllegalMove, and changes nothing, if the table forbids it."""
        source = self.state
        self.state = move(self.model, source, target, list(self.history))
        self.history.append(f"{source}->{target} ({why})")
        self.since = now

    # --- the queue ---------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Add a request at the end."""
        self.waiting[waiter.ticket] = waiter
        heapq.heappush(self._deadlines, (waiter.deadline, waiter.ticket))

    def dequeue(self, ticket: Ticket) -> None:
        """Take a request out, wherever it stands."""
        del self.waiting[ticket]
        self.overdue.discard(ticket)

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
    def oldest(self) -> float | None:
        """Since when somebody, a request or a command, has been waiting for this model."""
        first = next(iter(self.waiting.values()), None)
        since = [] if first is None else [first.since]
        since += list(self.switches.values())[:1]
        return min(since, default=None)

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for this model to become ready."""
        return bool(self.waiting or self.switches)

    # --- failures ----------------------------------------------------------------------------

    def fail(self, now: float, text: str) -> None:
        """Count a failed start and set the back-off."""
        self.failures += 1
        self.failure = text
        self.failed_until = now + min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (self.failures - 1))

    def forgive(self) -> None:
        """Forget past failures."""
        self.failures, self.failure, self.failed_until = 0, "", 0.0

    def __repr__(self) -> str:
        return (
            f"<engine {self.model} {self.state} on {self.device}, "
            f"{len(self.leases)} leases, {len(self.waiting)} waiting, pid {self.pid}>"
        )
