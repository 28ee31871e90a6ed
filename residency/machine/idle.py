"""What a device does when nobody waits for it: who rests, who comes back, who comes before it is asked for. Pure.

The rules say what they want (``Rest``, ``Bring``, ``ReadAhead``); the device does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from roundhouse.footprint.need import Footprint
from roundhouse.residency.learned import foresight
from roundhouse.residency.learned.foresight import Foresight
from roundhouse.residency.machine import policy
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.ledger import Holder, Leave, Ledger
from roundhouse.residency.machine.states import State
from roundhouse.residency.machine.tickets import Tickets

DEFAULT_AFTER_S = 60.0
"""The default model comes back when the others have had nothing to do for so long: longer than an agent thinks."""

QUIET_S = 60.0
"""Nobody is taken off for what is only foreseen within so long of its last request, in seconds: a person who reads an
answer has not gone, and guesses are wrong now and then. The default model leaves others as much."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The engine goes to sleep at ``level``, or with 0 is stopped."""

    engine: Engine
    level: int
    reason: str


@dataclass(frozen=True, slots=True)
class Bring:
    """The engine comes, for which ``leaves`` have to go; ``decision``: why, where it was foreseen."""

    engine: Engine
    leaves: Sequence[Leave]
    decision: policy.Decision | None = None


@dataclass(frozen=True, slots=True)
class ReadAhead:
    """What the model's start needs, and the device does not, is done ahead."""

    model: str


Wish = Rest | Bring | ReadAhead


class IdleDevice(Protocol):
    """What the rules have to know of a device; ``wake_by``: when to ask them again at the latest."""

    engines: list[Engine]
    ledger: Ledger
    bounds: Bounds
    tickets: Tickets

    def holders(self, now: float, beside: Engine | None = None) -> list[Holder]: ...

    def level_of(self, engine: Engine, now: float) -> int: ...

    def wake_by(self, at: float, now: float) -> None: ...

    def engine(self, model: str) -> Engine: ...


class Idle:
    """The rules for the idle hours of one ``device``."""

    def __init__(self, device: IdleDevice) -> None:
        self.device = device
        self.foresight = Foresight()

    def decide(self, now: float) -> Wish | None:
        """What is to be done, if anything is; the first rule that wants something counts."""
        if self.device.tickets.closing:
            return None
        return self._give_way(now) or self._rest(now) or self._recall(now) or self._foresee(now) or self._read_ahead()

    def _read_ahead(self) -> ReadAhead | None:
        """While nobody is answered, the weights of a model that has not been there yet are read."""
        device = self.device
        if any(e.leases or e.state is State.DRAINING for e in device.engines):
            return None
        cold = [e.model for e in device.engines if e.cold and not e.state.occupies]
        likely = policy.likely_next(cold) if any(e.state.serves for e in device.engines) else None
        return ReadAhead(likely) if likely is not None else None

    def _give_way(self, now: float) -> Rest | None:
        """Other programs need more of the device than is free: idle engines give theirs back."""
        device, holders = self.device, self.device.holders(now)
        if not device.ledger.over(holders):
            return None
        idle = [holder for holder in holders if not (holder.fixed or device.engine(holder.model).leases)]
        busy = sum(device.ledger.held(holder) for holder in holders if holder not in idle)
        leaves = device.ledger.room_for(Footprint(busy), idle)
        if leaves is None:  # not enough, but all that there is
            leaves = [Leave(holder.model, 0) for holder in idle]
        if not leaves:
            return None
        return Rest(device.engine(leaves[0].model), leaves[0].level, "others need its memory")

    def _rest(self, now: float) -> Rest | None:
        """An engine goes down a rung because it had nothing to do for long, or because it leaks."""
        device = self.device
        for engine in device.engines:
            it = engine.options
            if engine.state is State.ASLEEP and engine.worn:
                return Rest(engine, 0, "it kept more memory with every sleep")
            if it.pinned or engine.leases or not (engine.state is State.READY or engine.state is State.ASLEEP):
                continue
            idle = now - engine.idle_since
            if it.idle_stop_s is not None and idle >= it.idle_stop_s:
                return Rest(engine, 0, f"idle for {idle:.0f} s")
            awake = engine.state is State.READY
            level = device.level_of(engine, now) if awake and it.idle_sleep_s is not None else 0
            if level and it.idle_sleep_s is not None and idle >= it.idle_sleep_s:
                return Rest(engine, level, f"idle for {idle:.0f} s")
            device.wake_by(engine.idle_since + (it.idle_stop_s or inf), now)
            if level:
                device.wake_by(engine.idle_since + (it.idle_sleep_s or inf), now)
        return None

    def _recall(self, now: float) -> Bring | None:
        """A model that belongs here comes back: a pinned one at once, the default when all is quiet."""
        device = self.device
        for engine in device.engines:
            if engine.state.serves or engine.dismissed or not (engine.options.pinned or engine.options.default):
                continue
            at = engine.health.failed_until if engine.state is State.FAILED else now
            if not engine.options.pinned:
                others = [e for e in device.engines if e.state.serves]
                if any(e.leases for e in others):
                    continue
                at = max([at, *(e.idle_since + DEFAULT_AFTER_S for e in others)])
            device.wake_by(at, now)
            leaves = device.ledger.room_for(engine.footprint, device.holders(now, engine)) if now >= at else None
            if leaves is not None and not any(device.engine(leave.model).leases for leave in leaves):
                return Bring(engine, leaves)
        return None

    def _foresee(self, now: float) -> Bring | None:
        """A model comes because somebody is about to ask for it, and nobody else for who is there."""
        device = self.device
        there = [e for e in device.engines if e.state.serves]
        if not device.bounds.foresight or not there or not self.foresight.allowed(now):
            return None
        if any(e.leases or e.bring_s is None for e in there):
            return None
        callers, may = device.tickets.callers, [e for e in device.engines if e in there or self._may_come(e, now)]
        costs = {e.model: e.bring_s for e in may if e.bring_s is not None}
        nexts = [it for it in callers.nexts(now, policy.MOST) if it.model in costs]
        surprises = {model: callers.surprises(model, now) for model in costs}
        found = foresight.guess(costs, (e.model for e in there), nexts, surprises)
        if found is None:
            device.wake_by(min((it.until for it in nexts), default=inf), now)
            return None
        engine = device.engine(found.model)
        leaves = device.ledger.room_for(engine.footprint, device.holders(now, engine))
        if leaves is None:
            return None
        at = max((device.engine(leave.model).used + QUIET_S for leave in leaves), default=now)
        if now < at:
            device.wake_by(at, now)
            return None
        self.foresight.model = found.model
        return Bring(engine, leaves, policy.Decision(policy.Kind.FORESIGHT, found.model, inf, found.reason))

    @staticmethod
    def _may_come(engine: Engine, now: float) -> bool:
        return not (engine.state.serves or engine.dismissed or engine.broken or now < engine.health.failed_until)
