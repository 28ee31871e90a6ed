"""Where every request stands, and every answer it gets: so that each has exactly one. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from roundhouse.residency.codes import Code
from roundhouse.residency.learned.calibration import Calibration
from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.learned.haste import HOLD_S
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.facts import Grant, Order, Refuse, Ticket
from roundhouse.residency.machine.leases import Lease
from roundhouse.residency.machine.queue import Waiter


@dataclass
class Counters:
    """What has happened since this process began; every name is a public metric."""

    switches: int = 0
    starts: int = 0
    stops: int = 0
    sleeps: int = 0
    wakes: int = 0
    granted: int = 0
    refused: int = 0
    gone_waiting: int = 0
    failures: int = 0
    sleep_failures: int = 0
    crashes: int = 0
    forced_drains: int = 0
    backstop_releases: int = 0

    @property
    def transitions(self) -> int:
        """How many were begun."""
        return self.starts + self.stops + self.sleeps + self.wakes


@dataclass
class Tickets:
    """The orders of the fact in hand, and the place of every ticket that waits or holds a lease.

    ``closing``: Roundhouse is being stopped, and nothing is brought onto a device any more.
    """

    counters: Counters = field(default_factory=Counters)
    orders: list[Order] = field(default_factory=list)
    place: dict[Ticket, Engine] = field(default_factory=dict)
    callers: Callers = field(default_factory=Callers)
    calibration: Calibration = field(default_factory=Calibration)
    waiting: int = 0
    waiting_by: dict[str, int] = field(default_factory=dict)
    closing: bool = False

    def enqueue(self, engine: Engine, waiter: Waiter) -> None:
        """Put a request into the engine's queue."""
        key, wait_s = key_of(waiter.caller), waiter.deadline - waiter.since
        waiter.answer = self.callers.answer(waiter.caller, engine.model)
        waiter.sure_at = self.callers.haste.sure_at(key, engine.model, waiter.since, wait_s, engine.bring_s)
        engine.queue.add(waiter)
        self.place[waiter.ticket] = engine
        self.waiting += 1
        self.waiting_by[key] = self.waiting_by.get(key, 0) + 1
        self.callers.asked(waiter.caller, engine.model, waiter.since)

    def dequeue(self, engine: Engine, ticket: Ticket) -> None:
        """Take a waiting request out of the engine's queue; it still has no answer."""
        key = key_of(engine.waiting[ticket].caller)
        engine.dequeue(ticket)
        self.waiting -= 1
        self.waiting_by[key] -= 1
        if not self.waiting_by[key]:
            del self.waiting_by[key]

    def leave(self, engine: Engine, ticket: Ticket, now: float) -> bool:
        """A waiting request is withdrawn; whether it was as soon as it had come."""
        waiter = engine.waiting[ticket]
        self.callers.haste.waited(key_of(waiter.caller), engine.model, now - waiter.since, left=True)
        self.callers.unanswered(waiter.caller)
        self.dequeue(engine, ticket)
        self.counters.gone_waiting += 1
        return now - waiter.since < HOLD_S

    def grant_all(self, engine: Engine, now: float) -> None:
        """Let in who waits for the engine, which answers, as far as it has slots."""
        while engine.waiting and not engine.full:
            ticket = engine.next_waiter(now)
            if ticket is None:
                break
            waiter = engine.waiting[ticket]
            self.dequeue(engine, ticket)
            self.callers.haste.waited(key_of(waiter.caller), engine.model, now - waiter.since, left=False)
            if waiter.forecast is not None:
                self.calibration.learn(waiter.forecast, now - waiter.since, now)
            if not engine.leases:
                engine.busy_since = now
            engine.in_flight.admit(ticket, Lease(waiter.caller, now, waiter.answer))
            engine.used = now
            self.counters.granted += 1
            self.orders.append(Grant(ticket))
        for ticket in list(engine.switches):
            del engine.switches[ticket]
            self.place.pop(ticket, None)
            engine.used = now
            self.orders.append(Grant(ticket))

    def give_back(self, engine: Engine, ticket: Ticket, now: float) -> None:
        """An answer is over."""
        lease = engine.in_flight.release(ticket)
        engine.used = now
        took_s = max(0.0, now - lease.since)
        engine.in_flight.served(took_s)
        self.callers.ended(lease.caller, engine.model, now, took_s)

    def refuse(self, ticket: Ticket, code: Code, message: str, retry_after_s: float | None = None) -> None:
        """Answer a request that has no place."""
        self.counters.refused += 1
        self.orders.append(Refuse(ticket, code, message, retry_after_s))

    def refuse_waiter(self, engine: Engine, ticket: Ticket, code: Code, message: str, retry: float | None) -> None:
        """Answer a request that waits for the engine."""
        self.callers.unanswered(engine.waiting[ticket].caller)
        self.dequeue(engine, ticket)
        self.place.pop(ticket, None)
        self.refuse(ticket, code, message, retry)

    def refuse_all(self, engine: Engine, code: Code, message: str, retry: float | None = None) -> None:
        """Answer everybody who waits for the engine, commands too."""
        for ticket in list(engine.waiting):
            self.refuse_waiter(engine, ticket, code, message, retry)
        for ticket in list(engine.switches):
            del engine.switches[ticket]
            self.place.pop(ticket, None)
            self.refuse(ticket, code, message, retry)

    def drop_leases(self, engine: Engine) -> None:
        """The engine ends: its leases are void, and nobody has to give them back."""
        for ticket, lease in engine.leases.items():
            self.place.pop(ticket, None)
            self.callers.unanswered(lease.caller)
        engine.void()


def key_of(caller: str) -> str:
    """The key's part of a caller, which is a key and a session."""
    return caller.partition("/")[0]
