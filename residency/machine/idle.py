"""What a device does when nobody waits for it: who rests, who comes back, who comes before it is asked for. Pure."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from roundhouse.footprint.need import Footprint
from roundhouse.residency.learned import foresight
from roundhouse.residency.learned.foresight import Foresight
from roundhouse.residency.machine import policy
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.ledger import Leave
from roundhouse.residency.machine.states import State

if TYPE_CHECKING:
    from roundhouse.residency.machine.device import Device

DEFAULT_AFTER_S = 60.0
"""The default model comes back when the others have had nothing to do for so long: longer than an agent thinks."""

QUIET_S = 60.0
"""Nobody is taken off for what is only foreseen within so long of its last request, in seconds: a person who reads an
answer has not gone, and guesses are wrong now and then. The default model leaves others as much."""


class Idle:
    """The idle hours of one device: ``device``, which calls ``decide``."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.foresight = Foresight()

    def decide(self, now: float) -> None:
        """Order what is to be done, if anything is."""
        if (
            self.device.tickets.closing
            or self._give_way(now)
            or self._rest(now)
            or self._recall(now)
            or self._foresee(now)
        ):
            return
        if not any(e.leases or e.state is State.DRAINING for e in self.device.engines):
            cold = [e.model for e in self.device.engines if e.cold and not e.state.occupies]
            likely = policy.likely_next(cold) if any(e.state.serves for e in self.device.engines) else None
            if likely is not None:
                self.device.prepare(likely)

    def _give_way(self, now: float) -> bool:
        """Other programs need more of the device than is free: idle engines give theirs back."""
        holders = self.device.holders(now)
        if not self.device.ledger.over(holders):
            return False
        idle = [holder for holder in holders if not (holder.fixed or self.device.engine(holder.model).leases)]
        busy = sum(self.device.ledger.held(holder) for holder in holders if holder not in idle)
        leaves = self.device.ledger.room_for(Footprint(busy), idle)
        if leaves is None:  # not enough, but all that there is
            leaves = [Leave(holder.model, 0) for holder in idle]
        for leave in leaves:
            self.device.leave(
                self.device.engine(leave.model), leave.level, now, force=False, reason="others need its memory"
            )
            return True
        return False

    def _rest(self, now: float) -> bool:
        """Whether an engine goes down a rung because it had nothing to do for long, or because it leaks."""
        for engine in self.device.engines:
            it = engine.options
            if engine.state is State.ASLEEP and engine.worn:
                self.device.leave(engine, 0, now, force=False, reason="it kept more memory with every sleep")
                return True
            if it.pinned or engine.leases or not (engine.state is State.READY or engine.state is State.ASLEEP):
                continue
            idle = now - engine.idle_since
            if it.idle_stop_s is not None and idle >= it.idle_stop_s:
                self.device.leave(engine, 0, now, force=False, reason=f"idle for {idle:.0f} s")
                return True
            awake = engine.state is State.READY
            level = self.device.level_of(engine, now) if awake and it.idle_sleep_s is not None else 0
            if level and it.idle_sleep_s is not None and idle >= it.idle_sleep_s:
                self.device.leave(engine, level, now, force=False, reason=f"idle for {idle:.0f} s")
                return True
            self.device.wake_by(engine.idle_since + (it.idle_stop_s or inf), now)
            if level:
                self.device.wake_by(engine.idle_since + (it.idle_sleep_s or inf), now)
        return False

    def _recall(self, now: float) -> bool:
        """Whether a model that belongs here comes back: a pinned one at once, the default when all is quiet."""
        for engine in self.device.engines:
            if engine.state.serves or engine.dismissed or not (engine.options.pinned or engine.options.default):
                continue
            at = engine.failed_until if engine.state is State.FAILED else now
            if not engine.options.pinned:
                others = [e for e in self.device.engines if e.state.serves]
                if any(e.leases for e in others):
                    continue
                at = max([at, *(e.idle_since + DEFAULT_AFTER_S for e in others)])
            self.device.wake_by(at, now)
            leaves = (
                self.device.ledger.room_for(engine.footprint, self.device.holders(now, engine)) if now >= at else None
            )
            if leaves is not None and not any(self.device.engine(leave.model).leases for leave in leaves):
                engine.recalled = True
                self.device.make_way(engine, leaves, [self.device.demand(engine, now)], now)
                return True
        return False

    def _foresee(self, now: float) -> bool:
        """Whether a model comes because somebody is about to ask for it, and nobody else for who is there."""
        there = [e for e in self.device.engines if e.state.serves]
        if not self.device.bounds.foresight or not there or not self.foresight.allowed(now):
            return False
        if any(e.leases or e.bring_s is None for e in there):
            return False
        callers, may = (
            self.device.tickets.callers,
            [e for e in self.device.engines if e in there or self._may_come(e, now)],
        )
        costs = {e.model: e.bring_s for e in may if e.bring_s is not None}
        nexts = [it for it in callers.nexts(now, policy.MOST) if it.model in costs]
        surprises = {model: callers.surprises(model, now) for model in costs}
        found = foresight.guess(costs, (e.model for e in there), nexts, surprises)
        if found is None:
            self.device.wake_by(min((it.until for it in nexts), default=inf), now)
            return False
        engine = self.device.engine(found.model)
        leaves = self.device.ledger.room_for(engine.footprint, self.device.holders(now, engine))
        if leaves is None:
            return False
        at = max((self.device.engine(leave.model).used + QUIET_S for leave in leaves), default=now)
        if now < at:
            self.device.wake_by(at, now)
            return False
        self.foresight.model, engine.recalled = found.model, True
        decision = policy.Decision(policy.Kind.FORESIGHT, found.model, inf, found.reason)
        self.device.decisions.note(decision)  # also where nobody has to leave
        self.device.make_way(engine, leaves, [self.device.demand(engine, now)], now, decision)
        return True

    @staticmethod
    def _may_come(engine: Engine, now: float) -> bool:
        return not (engine.state.serves or engine.dismissed or engine.broken or now < engine.failed_until)
