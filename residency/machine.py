"""The machine that decides what is on each device: facts in, orders out. Pure.

No clock, no I/O: ``handle(fact, now)`` returns the orders that follow, and ``wake_at()`` says when it
wants a ``Ticked`` if nothing else happens before. After every fact the same ``_decide`` looks at the
fact's device; there is no second place that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from roundhouse.residency import policy
from roundhouse.residency.engine import Engine, Waiter
from roundhouse.residency.facts import (
    Adopted,
    Alarm,
    Asked,
    Code,
    Exited,
    Fact,
    Failed,
    Gone,
    Grant,
    Held,
    Order,
    Prepare,
    Ready,
    Refuse,
    ShutdownCommanded,
    Start,
    Started,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticked,
    Ticket,
    UnloadCommanded,
)
from roundhouse.residency.states import State
from roundhouse.residency.track import Bounds, Counters, Track

SETTLE_S = 3.0
"""After adopting an engine nobody is switched away from for this long: holders of leases of the residency
process that died reconnect (they try every half second) and say what they still hold."""

RETRY_UNKNOWN_S = 10.0
"""``Retry-After`` while nothing has been measured yet: a small engine's cold start."""


@dataclass
class Machine:
    """All devices and all models. One owner of this state: whoever calls ``handle``."""

    engines: dict[str, Engine]
    tracks: dict[str, Track]
    bounds: Bounds = field(default_factory=Bounds)
    counters: Counters = field(default_factory=Counters)
    closing: bool = False
    waiting: int = 0
    _place: dict[Ticket, Engine] = field(default_factory=dict)
    _shutdowns: list[Ticket] = field(default_factory=list)
    _unloads: dict[Ticket, int] = field(default_factory=dict)
    _orders: list[Order] = field(default_factory=list)

    @classmethod
    def of(cls, models: Mapping[str, str], devices: Sequence[str], bounds: Bounds | None = None) -> Machine:
        """A machine for ``models`` (name -> device) on ``devices``."""
        return cls(
            engines={name: Engine(name, device) for name, device in models.items()},
            tracks={device: Track(device) for device in devices},
            bounds=bounds or Bounds(),
        )

    # --- the two entrances -------------------------------------------------------------------

    def handle(self, fact: Fact, now: float) -> list[Order]:
        """Take in what happened and return what is to be done, in this order.

        Raises:
            IllegalMove: the fact cannot be true in the present state (a bug of the caller).
        """
        self._orders = []
        match fact:
            case Asked():
                self._asked(fact, now)
            case Held():
                self._held(fact)
            case Gone():
                self._gone(fact, now)
            case SwitchCommanded():
                self._switch(fact, now)
            case UnloadCommanded():
                self._unload(fact, now)
            case ShutdownCommanded():
                self._shutdown(fact, now)
            case Ticked():
                for device in self.tracks:
                    self._decide(device, now)
            case _:
                self._engine_fact(fact, now)
                self._decide(self.engines[fact.model].device, now)
        if self.closing and self._shutdowns and not any(e.state.occupies for e in self.engines.values()):
            self._orders += [Grant(ticket) for ticket in self._shutdowns]
            self._shutdowns = []
        return self._orders

    def wake_at(self) -> float | None:
        """When (clock seconds) a ``Ticked`` is due; ``None`` if only a fact can change anything."""
        times = [t for e in self.engines.values() if (t := e.deadline) is not None]
        for track in self.tracks.values():
            times += [track.gate, track.drain_deadline]
            if track.settle_until:
                times.append(track.settle_until)
        soonest = min(times, default=inf)
        return None if soonest == inf else soonest

    # --- requests ----------------------------------------------------------------------------

    def _asked(self, fact: Asked, now: float) -> None:
        engine = self.engines.get(fact.model)
        if engine is None:
            self._refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
        elif self.closing:
            self._refuse(fact.ticket, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
        elif not fact.may_switch and engine.state is not State.READY:
            self._refuse(
                fact.ticket,
                Code.WOULD_SWITCH,
                f"{fact.model} is {engine.state}, not resident",
                self.retry_after(engine, now),
            )
        elif engine.state is State.FAILED and now < engine.failed_until:
            self._refuse(fact.ticket, Code.FAILED, engine.failure, engine.failed_until - now)
        elif self.waiting >= self.bounds.max_waiting:
            self._refuse(
                fact.ticket,
                Code.QUEUE_FULL,
                f"{self.waiting} requests are waiting for a model already",
                self.retry_after(engine, now),
            )
        else:
            wait = self.bounds.max_wait_s if fact.max_wait_s is None else fact.max_wait_s
            engine.enqueue(Waiter(fact.ticket, now, now + wait))
            self._place[fact.ticket] = engine
            self.waiting += 1
            self._decide(engine.device, now)

    def _held(self, fact: Held) -> None:
        engine = self.engines.get(fact.model)
        if engine is not None and engine.state.serves:
            engine.leases.add(fact.ticket)
            self._place[fact.ticket] = engine

    def _gone(self, fact: Gone, now: float) -> None:
        engine = self._place.pop(fact.ticket, None)
        if engine is None:
            self._command_gone(fact.ticket, now)
            return
        if fact.ticket in engine.waiting:
            engine.dequeue(fact.ticket)
            self.waiting -= 1
            self.counters.gone_waiting += 1
        engine.switches.pop(fact.ticket, None)
        engine.leases.discard(fact.ticket)
        self._decide(engine.device, now)

    # --- commands ----------------------------------------------------------------------------

    def _switch(self, fact: SwitchCommanded, now: float) -> None:
        engine = self.engines.get(fact.model)
        if engine is None:
            self._refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
        elif self.closing:
            self._refuse(fact.ticket, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
        elif engine.state is State.READY:
            self._orders.append(Grant(fact.ticket))
        else:
            engine.forgive()
            if engine.state is State.FAILED:
                engine.go(State.STOPPED, now, "switch ordered")
            engine.switches[fact.ticket] = now
            self._place[fact.ticket] = engine
            self._decide(engine.device, now)

    def _unload(self, fact: UnloadCommanded, now: float) -> None:
        if fact.model is not None and fact.model not in self.engines:
            self._refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
            return
        engines = self.engines.values() if fact.model is None else [self.engines[fact.model]]
        loaded = [e for e in engines if e.state.occupies]
        for engine in engines:
            if engine.state is State.FAILED:
                engine.forgive()
                engine.go(State.STOPPED, now, "unload ordered")
        self._unloads[fact.ticket] = len(loaded)
        for engine in loaded:
            engine.unloads[fact.ticket] = fact.force
        self._settle_unloads(fact.ticket)
        for engine in loaded:
            self._hurry(engine, fact.force)
            self._decide(engine.device, now)

    def _command_gone(self, ticket: Ticket, now: float) -> None:
        """Who ordered an unload left before it was over: the drain is called off. A shutdown goes on."""
        if self._unloads.pop(ticket, None) is not None:
            for engine in self.engines.values():
                if engine.unloads.pop(ticket, None) is not None:
                    self._decide(engine.device, now)
        if ticket in self._shutdowns:
            self._shutdowns.remove(ticket)

    def _settle_unloads(self, ticket: Ticket) -> None:
        if self._unloads.get(ticket) == 0:
            del self._unloads[ticket]
            self._orders.append(Grant(ticket))

    def _shutdown(self, fact: ShutdownCommanded, now: float) -> None:
        self.closing = True
        self._shutdowns.append(fact.ticket)
        for engine in self.engines.values():
            self._refuse_all(engine, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
            if engine.state.occupies:
                engine.unloads[fact.ticket] = fact.force
                self._hurry(engine, fact.force)
        for device in self.tracks:
            self._decide(device, now)

    def _hurry(self, engine: Engine, force: bool) -> None:
        """An orderly stop is under way already and is now to end at once."""
        if force and engine.state is State.STOPPING:
            self._orders.append(Stop(engine.model, True, "forced"))

    # --- engines -----------------------------------------------------------------------------

    def _engine_fact(self, fact: Adopted | Started | Ready | Failed | Exited | Stopped, now: float) -> None:
        engine = self.engines[fact.model]
        track = self.tracks[engine.device]
        match fact:
            case Started(pid=pid):
                engine.pid = pid
            case Adopted(pid=pid):
                engine.go(State.READY, now, "adopted")
                engine.pid, track.resident, track.settle_until = pid, engine.model, now + SETTLE_S
            case Ready(pid=pid):
                engine.measured.learn("start_s", now - engine.since)
                engine.go(State.READY, now, "answers")
                engine.forgive()
                engine.pid = pid
                track.target = track.switching_since = None
                self._grant_all(engine)
            case Failed(text=text, retryable=retryable):
                self._failed(engine, now, text, retryable)
            case Exited(text=text):
                self.counters.crashes += 1
                self._orders.append(Alarm(f"engine {engine.model} ended by itself while {engine.state}: {text}"))
                self._drop_leases(engine)
                self._stop(engine, now, force=True, reason="its process ended")
            case Stopped():
                engine.measured.learn("stop_s", now - engine.since)
                engine.go(State.STOPPED, now, "nothing of it is left")
                self._off(engine)

    def _failed(self, engine: Engine, now: float, text: str, retryable: bool) -> None:
        self.counters.failures += 1
        engine.fail(now, text)
        if retryable and engine.failures == 1 and engine.wanted and not engine.unloads:
            engine.go(State.STOPPED, now, "killed from outside, tried once more")
        else:
            engine.go(State.FAILED, now, text)
            self._refuse_all(engine, Code.FAILED, text, engine.failed_until - now)
        self._off(engine)

    def _off(self, engine: Engine) -> None:
        """The device is empty: the engine's process and all of its memory are gone."""
        engine.pid = None
        self.tracks[engine.device].drain_deadline = inf
        for ticket in list(engine.unloads):
            del engine.unloads[ticket]
            if ticket in self._unloads:
                self._unloads[ticket] -= 1
                self._settle_unloads(ticket)

    def _drop_leases(self, engine: Engine) -> None:
        for ticket in engine.leases:
            self._place.pop(ticket, None)
        engine.leases.clear()

    # --- the one place that decides -------------------------------------------------------------

    def _decide(self, device: str, now: float) -> None:
        track = self.tracks[device]
        mine = [e for e in self.engines.values() if e.device == device]
        for engine in mine:
            engine.expire(now)
        occupant = next((e for e in mine if e.state.occupies), None)
        track.gate = inf
        if occupant is None:
            self._bring_next(track, mine, now)
        elif occupant.state is State.STARTING:
            if occupant.unloads or not occupant.wanted:
                self._stop(occupant, now, force=True, reason="nobody waits for it any more")
        elif occupant.state.serves:
            self._decide_resident(track, occupant, mine, now)
        self._refuse_overdue(track, mine, now)

    def _bring_next(self, track: Track, mine: Iterable[Engine], now: float) -> None:
        demands = self._demands(mine)
        if not demands or self.closing:
            track.target = track.switching_since = None
            return
        engine = self.engines[policy.next_demand(demands).model]
        if track.switching_since is None:
            track.switching_since, track.came_from = now, None
        track.target = engine.model
        if track.resident != engine.model:
            self.counters.switches += 1
        track.resident, track.prepared, engine.cold = engine.model, None, False
        self.counters.starts += 1
        engine.go(State.STARTING, now, "wanted")
        self._orders.append(Start(engine.model))

    def _decide_resident(self, track: Track, resident: Engine, mine: Iterable[Engine], now: float) -> None:
        if now < track.settle_until and not resident.unloads:
            self._grant_all(resident)
            return
        track.settle_until = 0.0
        demands = self._demands(e for e in mine if e is not resident)
        decision = policy.decide(now, demands, shut=resident.state is State.DRAINING)
        unloading = bool(resident.unloads)
        if decision.open and not unloading:
            if resident.state is State.DRAINING:
                resident.go(State.READY, now, "nobody waits for another model any more")
                track.target, track.switching_since, track.drain_deadline = None, None, inf
            track.gate = decision.wake_at
            self._grant_all(resident)
            if resident.leases or not demands:
                self._prepare(track, decision.target)
                if not resident.leases:
                    self._prepare(track, policy.likely_next([e.model for e in mine if e.cold and e is not resident]))
                return
        elif resident.state is State.READY:
            resident.go(State.DRAINING, now, decision.reason)
            track.drain_deadline = now + self.bounds.drain_timeout_s
        if track.switching_since is None:
            track.switching_since, track.came_from = now, resident.model
        track.target, track.reason = decision.target, decision.reason
        forced = any(resident.unloads.values())
        late = now >= track.drain_deadline
        if late and resident.leases:
            self.counters.forced_drains += 1
            self._orders.append(
                Alarm(
                    f"{resident.model} was not dry after {self.bounds.drain_timeout_s:.0f} s: "
                    f"{len(resident.leases)} answers are cut"
                )
            )
        if forced or late or not resident.leases:
            self._stop(resident, now, force=forced or late, reason=decision.reason)
        else:
            self._prepare(track, decision.target)

    def _prepare(self, track: Track, target: str | None) -> None:
        """The resident is still needed: what the next model needs nothing of the device for is done meanwhile."""
        if target is not None and target != track.prepared:
            self.engines[target].cold = False
            self._orders.append(Prepare(target))
        track.prepared = target

    def _demands(self, engines: Iterable[Engine]) -> list[policy.Demand]:
        demands = []
        for engine in engines:
            oldest = engine.oldest
            if oldest is None:
                continue
            deadline = engine.deadline
            if engine.overdue:
                deadline = oldest
            demands.append(
                policy.Demand(
                    engine.model,
                    oldest,
                    inf if deadline is None else deadline,
                    engine.measured.start_s or 0.0,
                    bool(engine.switches),
                )
            )
        return demands

    def _stop(self, engine: Engine, now: float, *, force: bool, reason: str) -> None:
        self._drop_leases(engine)
        engine.go(State.STOPPING, now, reason)
        self.tracks[engine.device].drain_deadline = inf
        self.counters.stops += 1
        self._orders.append(Stop(engine.model, force, reason))

    # --- answers -----------------------------------------------------------------------------

    def _grant_all(self, engine: Engine) -> None:
        for ticket in list(engine.waiting):
            engine.dequeue(ticket)
            engine.leases.add(ticket)
            self.waiting -= 1
            self.counters.granted += 1
            self._orders.append(Grant(ticket))
        for ticket in list(engine.switches):
            del engine.switches[ticket]
            self._place.pop(ticket, None)
            self._orders.append(Grant(ticket))

    def _refuse(self, ticket: Ticket, code: Code, message: str, retry_after_s: float | None = None) -> None:
        self.counters.refused += 1
        self._orders.append(Refuse(ticket, code, message, retry_after_s))

    def _refuse_waiter(self, engine: Engine, ticket: Ticket, code: Code, message: str, retry: float | None) -> None:
        engine.dequeue(ticket)
        self.waiting -= 1
        self._place.pop(ticket, None)
        self._refuse(ticket, code, message, retry)

    def _refuse_all(self, engine: Engine, code: Code, message: str, retry: float | None = None) -> None:
        for ticket in list(engine.waiting):
            self._refuse_waiter(engine, ticket, code, message, retry)
        for ticket in list(engine.switches):
            del engine.switches[ticket]
            self._place.pop(ticket, None)
            self._refuse(ticket, code, message, retry)

    def _refuse_overdue(self, track: Track, mine: Iterable[Engine], now: float) -> None:
        """Refuse who has waited ``max_wait``, unless the switch to their model is under way."""
        for engine in mine:
            if not engine.overdue or engine.state is State.STARTING or track.target == engine.model:
                continue
            retry = self.retry_after(engine, now)
            for ticket in sorted(engine.overdue):
                waited = now - engine.waiting[ticket].since
                message = f"{engine.model} could not be brought onto {engine.device} within {waited:.0f} s"
                self._refuse_waiter(engine, ticket, Code.LOADING_TIMEOUT, message, retry)

    # --- estimates -----------------------------------------------------------------------------

    def estimate(self, engine: Engine, now: float) -> float | None:
        """Seconds until ``engine`` can be ready, drains apart; ``None`` when nothing was measured yet."""
        if engine.state.serves:
            return 0.0
        cost = engine.measured.start_s
        if cost is None:
            return None
        if engine.state is State.STARTING:
            return max(0.0, engine.since + cost - now)
        mine = [e for e in self.engines.values() if e.device == engine.device and e is not engine]
        return cost + sum(self.estimate(e, now) or 0.0 for e in mine if e.state is State.STARTING)

    def retry_after(self, engine: Engine, now: float) -> float:
        """An honest ``Retry-After`` in whole seconds, from what was measured."""
        seconds = self.estimate(engine, now)
        return float(max(1, ceil(RETRY_UNKNOWN_S if seconds is None else seconds)))
