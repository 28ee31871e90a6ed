"""The machine that decides what is on each device: facts in, orders out. Pure.

No clock, no I/O: ``handle(fact, now)`` returns the orders that follow, and ``wake_at()`` says when it
wants a ``Ticked`` if nothing else happens before. After every fact the same ``Device.decide`` looks at the
fact's device; there is no second place that decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from roundhouse.footprint.need import Footprint
from roundhouse.residency.codes import Code
from roundhouse.residency.learned.calibration import Calibration, Forecast
from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.machine.bounds import Bounds, Ram
from roundhouse.residency.machine.device import Device
from roundhouse.residency.machine.engine import Engine, Options
from roundhouse.residency.machine.estimate import retry_after
from roundhouse.residency.machine.facts import (
    Adopted,
    Alarm,
    Asked,
    Exited,
    Fact,
    Failed,
    Gone,
    Grant,
    Held,
    Order,
    Ready,
    Seen,
    ShutdownCommanded,
    Slept,
    Started,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticked,
    Ticket,
    UnloadCommanded,
    Woke,
)
from roundhouse.residency.machine.leases import Lease, Leases
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.measured import Measured
from roundhouse.residency.machine.queue import Waiter
from roundhouse.residency.machine.states import State
from roundhouse.residency.machine.tickets import Counters, Tickets, key_of

SETTLE_S = 3.0
"""After adopting an engine nobody is switched away from for this long: holders of leases of the residency
process that died reconnect (they try every half second) and say what they still hold."""


@dataclass(frozen=True)
class Model:
    """What the machine has to know of a model beforehand."""

    device: str
    options: Options = field(default_factory=Options)
    footprint: Footprint | None = None
    measured: Measured = field(default_factory=Measured)
    service_s: float | None = None


@dataclass
class Machine:
    """All devices and all models. One owner of this state: whoever calls ``handle``."""

    engines: dict[str, Engine]
    devices: dict[str, Device]
    bounds: Bounds
    tickets: Tickets
    _shutdowns: list[Ticket] = field(default_factory=list)
    _unloads: dict[Ticket, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        models: Mapping[str, str | Model],
        devices: Sequence[str] | Mapping[str, Ledger],
        bounds: Bounds | None = None,
        ram_budget: int | None = None,
        callers: Callers | None = None,
        calibration: Calibration | None = None,
    ) -> Machine:
        """A machine for ``models`` (name -> its device, or all that is known) on ``devices``."""
        known = {name: it if isinstance(it, Model) else Model(it) for name, it in models.items()}
        engines = {
            name: Engine(
                name,
                it.device,
                it.options,
                it.footprint,
                it.measured,
                recalled=it.options.pinned or it.options.preload,
                in_flight=Leases(service_s=it.service_s),
            )
            for name, it in known.items()
        }
        ledgers = devices if isinstance(devices, Mapping) else {device: Ledger() for device in devices}
        tickets = Tickets(callers=callers or Callers(), calibration=calibration or Calibration())
        bounds = bounds or Bounds()
        ram = Ram(ram_budget, list(engines.values()))
        on = {
            device: Device(device, [e for e in engines.values() if e.device == device], tickets, bounds, ram, ledger)
            for device, ledger in ledgers.items()
        }
        return cls(engines, on, bounds, tickets)

    @property
    def counters(self) -> Counters:
        """What has happened so far."""
        return self.tickets.counters

    @property
    def waiting(self) -> int:
        """How many requests wait, for whatever model."""
        return self.tickets.waiting

    @property
    def closing(self) -> bool:
        """Whether a shutdown was ordered."""
        return self.tickets.closing

    # --- the two entrances -------------------------------------------------------------------

    def handle(self, fact: Fact, now: float) -> list[Order]:
        """Take in what happened and return what is to be done, in this order.

        Raises:
            IllegalMove: the fact cannot be true in the present state (a bug of the caller).
        """
        self.tickets.orders = []
        match fact:
            case Asked():
                self._asked(fact, now)
            case Held():
                self._held(fact, now)
            case Gone():
                self._gone(fact, now)
            case SwitchCommanded():
                self._switch(fact, now)
            case UnloadCommanded():
                self._unload(fact, now)
            case ShutdownCommanded():
                self._shutdown(fact, now)
            case Seen(device=name, foreign=foreign):
                self.devices[name].ledger.foreign = foreign
                self.devices[name].decide(now)
            case Ticked():
                for device in self.devices.values():
                    device.decide(now)
            case _:
                self._engine_fact(fact, now)
                self._decide(self.engines[fact.model], now)
        if self.closing and self._shutdowns and not any(e.state.occupies for e in self.engines.values()):
            self.tickets.orders += [Grant(ticket) for ticket in self._shutdowns]
            self._shutdowns = []
        return self.tickets.orders

    def wake_at(self) -> float | None:
        """When (clock seconds) a ``Ticked`` is due; ``None`` if only a fact can change anything."""
        soonest = min((device.wake_at for device in self.devices.values()), default=inf)
        for engine in self.engines.values():
            if engine.waiting and (deadline := engine.queue.deadline) is not None and deadline < soonest:
                soonest = deadline
        return None if soonest == inf else soonest

    def forecast(self, engine: Engine, now: float) -> Forecast:
        """How long a request for ``engine`` that comes now would wait."""
        return self.devices[engine.device].forecast(engine, now, self.bounds.max_wait_s)

    def _decide(self, engine: Engine, now: float) -> None:
        self.devices[engine.device].decide(now)

    # --- requests ----------------------------------------------------------------------------

    def _asked(self, fact: Asked, now: float) -> None:
        engine = self.engines.get(fact.model)
        if engine is None:
            self.tickets.refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
        elif self.closing:
            self.tickets.refuse(fact.ticket, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
        elif not fact.may_switch and engine.state is not State.READY:
            self._refuse_now(fact, engine, Code.WOULD_SWITCH, f"{fact.model} is {engine.state}, not resident", now)
        elif engine.state is State.FAILED and now < engine.health.failed_until:
            self.tickets.refuse(fact.ticket, Code.FAILED, engine.health.failure, engine.health.failed_until - now)
        elif self.tickets.waiting_by.get(key_of(fact.caller), 0) >= self.bounds.max_waiting_per_key:
            text = f"{self.bounds.max_waiting_per_key} requests of this key are waiting already"
            self._refuse_now(fact, engine, Code.QUEUE_FULL, text, now)
        elif self.waiting >= self.bounds.max_waiting:
            text = f"{self.waiting} requests are waiting for a model already"
            self._refuse_now(fact, engine, Code.QUEUE_FULL, text, now)
        else:
            wait = self.bounds.max_wait_s if fact.max_wait_s is None else fact.max_wait_s
            engine.dismissed = False
            waiter = Waiter(fact.ticket, now, now + wait, fact.caller, fact.weight)
            self.tickets.enqueue(engine, waiter)
            self.devices[engine.device].asked(fact.model, now)
            self._decide(engine, now)
            if fact.ticket in engine.waiting:
                waiter.forecast = self.devices[engine.device].forecast(engine, now, wait, waiter.place)

    def _refuse_now(self, fact: Asked, engine: Engine, code: Code, why: str, now: float) -> None:
        """Refuse a request that would have to wait, and say for how long."""
        forecast = self.forecast(engine, now)
        self.tickets.refuse(fact.ticket, code, f"{why}; the wait would be {forecast}", retry_after(forecast))

    def _held(self, fact: Held, now: float) -> None:
        engine = self.engines.get(fact.model)
        if engine is not None and engine.state.serves and not engine.broken:
            answer = self.tickets.callers.answer(fact.caller, fact.model)
            engine.in_flight.admit(fact.ticket, Lease(fact.caller, now, answer))
            self.tickets.place[fact.ticket] = engine

    def _gone(self, fact: Gone, now: float) -> None:
        self.counters.backstop_releases += fact.missed
        engine = self.tickets.place.pop(fact.ticket, None)
        if engine is None:
            self._command_gone(fact.ticket, now)
            return
        if fact.ticket in engine.waiting:
            at_once = self.tickets.leave(engine, fact.ticket, now)
            if at_once and not engine.asked_for:
                self.devices[engine.device].called_off(engine, now)
        engine.switches.pop(fact.ticket, None)
        if fact.ticket in engine.leases:
            self.tickets.give_back(engine, fact.ticket, now)
        self._decide(engine, now)

    # --- commands ----------------------------------------------------------------------------

    def _switch(self, fact: SwitchCommanded, now: float) -> None:
        engine = self.engines.get(fact.model)
        if engine is None:
            self.tickets.refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
        elif self.closing:
            self.tickets.refuse(fact.ticket, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
        elif engine.state is State.READY:
            self.tickets.orders.append(Grant(fact.ticket))
        else:
            engine.health.forgive()
            engine.dismissed = False
            if engine.state is State.FAILED:
                engine.go(State.STOPPED, now, "switch ordered")
            engine.switches[fact.ticket] = now
            self.tickets.place[fact.ticket] = engine
            self._decide(engine, now)

    def _unload(self, fact: UnloadCommanded, now: float) -> None:
        if fact.model is not None and fact.model not in self.engines:
            self.tickets.refuse(fact.ticket, Code.UNKNOWN, f"no model {fact.model!r} with a launcher")
            return
        engines = self.engines.values() if fact.model is None else [self.engines[fact.model]]
        loaded = [e for e in engines if e.state.occupies]
        for engine in engines:
            engine.dismissed, engine.recalled, engine.begun = True, False, False
            if engine.state is State.FAILED:
                engine.health.forgive()
                engine.go(State.STOPPED, now, "unload ordered")
        self._unloads[fact.ticket] = len(loaded)
        for engine in loaded:
            engine.unloads[fact.ticket] = fact.force
        self._settle_unloads(fact.ticket)
        for engine in loaded:
            self._hurry(engine, fact.force, now)
            self._decide(engine, now)

    def _command_gone(self, ticket: Ticket, now: float) -> None:
        """Who ordered an unload left before it was over: the drain is called off. A shutdown goes on."""
        if self._unloads.pop(ticket, None) is not None:
            for engine in self.engines.values():
                if engine.unloads.pop(ticket, None) is not None:
                    self._decide(engine, now)
        if ticket in self._shutdowns:
            self._shutdowns.remove(ticket)

    def _settle_unloads(self, ticket: Ticket) -> None:
        if self._unloads.get(ticket) == 0:
            del self._unloads[ticket]
            self.tickets.orders.append(Grant(ticket))

    def _shutdown(self, fact: ShutdownCommanded, now: float) -> None:
        self.tickets.closing = True
        self._shutdowns.append(fact.ticket)
        for engine in self.engines.values():
            self.tickets.refuse_all(engine, Code.SHUTTING_DOWN, "Roundhouse is shutting down")
            engine.recalled = engine.begun = False
            if engine.state.occupies:
                engine.unloads[fact.ticket] = fact.force
                self._hurry(engine, fact.force, now)
        for device in self.devices.values():
            device.decide(now)

    def _hurry(self, engine: Engine, force: bool, now: float) -> None:
        """It is to end at once, and is on its way out already, or half asleep."""
        if force and engine.state is State.STOPPING:
            self.tickets.orders.append(Stop(engine.model, True, "forced"))
        elif force and engine.state in (State.SLEEPING, State.WAKING):
            self.devices[engine.device].stop(engine, now, force=True, reason="forced")

    # --- engines -----------------------------------------------------------------------------

    def _engine_fact(
        self, fact: Adopted | Started | Ready | Slept | Woke | Failed | Exited | Stopped, now: float
    ) -> None:
        engine = self.engines[fact.model]
        device = self.devices[engine.device]
        match fact:
            case Started(pid=pid):
                engine.pid = pid
            case Adopted(pid=pid, level=level):
                self._adopted(engine, device, pid, level, now)
            case Ready(pid=pid, awake=awake):
                engine.measured.learn("start_s", now - engine.since)
                engine.holds(awake)
                engine.pid = pid
                self._answers(engine, device, now)
            case Woke():
                engine.measured.learn_level("wake_s", engine.level, now - engine.since)
                self._answers(engine, device, now)
                engine.level = 0
                engine.health.woke()
            case Slept(level=level, residual=residual):
                engine.measured.learn_level("sleep_s", level, now - engine.since)
                engine.go(State.ASLEEP, now, f"level {level}")
                engine.pins = engine.pins or level == 1
                engine.slept(residual)
            case Failed(text=text) if engine.state in (State.SLEEPING, State.WAKING):
                self.counters.sleep_failures += 1
                engine.health.distrust(now, text)
                self.tickets.orders.append(Alarm(f"{text}; it is stopped, and will be for a while instead of sleeping"))
                device.stop(engine, now, force=True, reason="it did not sleep or wake")
            case Failed(text=text, retryable=retryable):
                self._failed(engine, now, text, retryable)
            case Exited(text=text):
                self.counters.crashes += 1
                self.tickets.orders.append(Alarm(f"engine {engine.model} ended by itself while {engine.state}: {text}"))
                self._broken(engine, device, now)
            case Stopped():
                engine.measured.learn("stop_s", now - engine.since)
                engine.go(State.STOPPED, now, "nothing of it is left")
                self._off(engine)

    def _broken(self, engine: Engine, device: Device, now: float) -> None:
        """Its process is gone. What is left of it goes as soon as nothing else moves on the device."""
        self.tickets.drop_leases(engine)
        engine.broken = True
        if engine.state.moves:
            device.stop(engine, now, force=True, reason="its process ended")
        elif engine.state is State.READY:
            engine.go(State.DRAINING, now, "its process ended")

    def _adopted(self, engine: Engine, device: Device, pid: int, level: int | None, now: float) -> None:
        engine.go(State.READY if level is None else State.ASLEEP, now, "adopted")
        engine.pid, engine.level, engine.used, engine.cold = pid, level or 0, now, False
        engine.pins, engine.recalled = level == 1, False
        if level is None:
            device.adopted(engine.model, now + SETTLE_S)

    def _answers(self, engine: Engine, device: Device, now: float) -> None:
        engine.go(State.READY, now, "answers")
        engine.health.forgive()
        engine.recalled = False
        engine.used = now
        if engine.options.slots is not None:
            engine.collated = set(engine.waiting)
        device.arrived(now)
        self.tickets.grant_all(engine, now)

    def _failed(self, engine: Engine, now: float, text: str, retryable: bool) -> None:
        self.counters.failures += 1
        engine.health.fail(now, text)
        engine.begun = False
        if retryable and engine.health.failures == 1 and engine.wanted and not engine.unloads:
            engine.go(State.STOPPED, now, "killed from outside, tried once more")
        else:
            engine.go(State.FAILED, now, text)
            engine.recalled = False
            self.tickets.refuse_all(engine, Code.FAILED, text, engine.health.failed_until - now)
        self._off(engine)

    def _off(self, engine: Engine) -> None:
        """Nothing of the engine is left: no process, and none of its memory."""
        engine.pid, engine.level, engine.first_residual = None, 0, None
        engine.pins = engine.worn = engine.broken = False
        for ticket in list(engine.unloads):
            del engine.unloads[ticket]
            if ticket in self._unloads:
                self._unloads[ticket] -= 1
                self._settle_unloads(ticket)
