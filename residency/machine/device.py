"""One device: the one place that decides what happens on it. Pure.

After every fact ``decide`` looks at the device anew: who answers, what moves, who waits, what fits beside what.
At most one engine of a device is in a transition at any time, whatever the cause: vLLM measures the memory of the
whole device while it starts, sleeps and wakes, and crashes if it changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf

from roundhouse.footprint.need import GIB
from roundhouse.residency.codes import Code
from roundhouse.residency.learned.calibration import Forecast
from roundhouse.residency.learned.haste import HOLD_S
from roundhouse.residency.learned.pauses import Return
from roundhouse.residency.machine import ledger, policy
from roundhouse.residency.machine.account import Account
from roundhouse.residency.machine.bounds import Bounds, Ram
from roundhouse.residency.machine.decisions import DecisionLog
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.estimate import UNMEASURED_S, Outlook, retry_after
from roundhouse.residency.machine.facts import Alarm, Prepare, Sleep, Start, Stop, Wake
from roundhouse.residency.machine.idle import Bring, Idle, ReadAhead, Rest
from roundhouse.residency.machine.ledger import Holder, Leave, Ledger
from roundhouse.residency.machine.states import State
from roundhouse.residency.machine.switch import Switch
from roundhouse.residency.machine.tickets import Tickets

LOOK_S = 0.02
"""While it answers, whether a resident stays is looked at so often, and not at each of the hundreds of requests that
may come and go in that time: weighing who comes back costs half a millisecond."""

FULL_RETRY_S = 30.0
"""``Retry-After`` for a model that does not fit because of what others use of the device now."""


@dataclass
class Device:
    """A device, its engines, the switch under way, and the account of those who wait for others."""

    name: str
    engines: list[Engine]
    tickets: Tickets
    bounds: Bounds
    ram: Ram
    ledger: Ledger = field(default_factory=Ledger)
    switch: Switch = field(default_factory=Switch)
    account: Account = field(default_factory=Account)
    settle_until: float = 0.0
    decisions: DecisionLog = field(default_factory=DecisionLog)
    wake_at: float = inf
    stays_until: float = 0.0  # when the gate of who answers shuts, or who lingers leaves, as decided last
    lingers: bool = False  # a dry resident idles for callers who are expected back
    _looked: tuple[float, list[str], policy.Decision] | None = None

    def __post_init__(self) -> None:
        self.outlook, self.idle = Outlook(self), Idle(self)

    # --- the one place that decides ---------------------------------------------------------------

    def decide(self, now: float) -> None:
        """Order what is to be done on this device now; ``wake_at`` is when to ask again if nothing happens."""
        self.wake_at, self.lingers, self.stays_until = inf, False, now
        self.account.charge(sum(e.queue.weight + len(e.switches) for e in self.engines if not e.state.serves), now)
        for engine in self.engines:
            engine.queue.expire(now)
            if engine.state is State.READY and engine.unloads:
                engine.go(State.DRAINING, now, "unload ordered")
            elif engine.state is State.READY or engine.collated:
                self.tickets.grant_all(engine, now)
        moving = self.moving
        if moving is not None:
            self._reconsider(moving, now)
        elif now < self.settle_until and not any(engine.unloads or engine.broken for engine in self.engines):
            self.wake_by(self.settle_until, now)
        else:
            self._next(now)
        for engine in self.engines:
            if engine.state is State.DRAINING:
                self.wake_by(engine.since + self.bounds.drain_timeout_s, now)
        self._refuse_overdue(now)

    def arrived(self, now: float) -> None:
        """The engine that was to come answers: a new account begins."""
        self.switch.arrived()
        self.account.begin(now)
        self.decisions.over()
        self._looked = None

    def adopted(self, model: str, settle_until: float) -> None:
        """An engine of an earlier process answers: nobody is switched away from before ``settle_until``."""
        self.switch.brought, self.settle_until = model, settle_until

    def asked(self, model: str, now: float) -> None:
        """A request came for the model: whatever else was foreseen is not brought on any more."""
        foreseen = self.idle.foresight.model
        if foreseen is not None and foreseen != model:
            it = self.engine(foreseen)
            it.recalled = it.begun = False
        self.idle.foresight.asked(model, now)

    def called_off(self, engine: Engine, now: float) -> None:
        """The last who waited for the engine left as soon as it had come: who has just left for it comes back.

        Its like were known to stay, else nobody would have left. Where nobody can come back the start goes on.
        """
        switch = self.switch
        if not engine.begun or switch.came_from is None or now - (switch.since or now) >= HOLD_S:
            return
        left = self.engine(switch.came_from)
        if not (left.state.serves or left.dismissed or left.state is State.FAILED):
            engine.begun, left.recalled = False, True

    @property
    def target(self) -> str | None:
        """The model that the device is being cleared for."""
        return self.switch.target

    @property
    def visit_s(self) -> float | None:
        """For how long others were waited for lately until one left, in seconds."""
        return self.account.visit_s

    @property
    def moving(self) -> Engine | None:
        """The engine that is in a transition."""
        return next((engine for engine in self.engines if engine.state.moves), None)

    def wake_by(self, at: float, now: float) -> None:
        """Look at the device again at ``at`` (clock seconds) at the latest; what has passed does not count."""
        if now < at < self.wake_at:
            self.wake_at = at

    def _reconsider(self, moving: Engine, now: float) -> None:
        """A transition goes on to its end, but a start that nobody waits for is ended when the device is wanted.

        Until then it goes on: a client that gives up before the start is over comes back, and is to find its model.
        """
        if moving.state is not State.STARTING:
            return
        if not moving.asked_for and any(e.lacks for e in self.engines if e is not moving):
            moving.recalled = moving.begun = False
        if moving.unloads or not moving.wanted:
            self.leave(moving, 0, now, force=True, reason="nobody waits for it, and another model is wanted")

    def _next(self, now: float) -> None:
        if self._clear(now):
            return
        found = self._choose(now)
        if found is None:
            self.switch.called_off()
            self.decisions.over()
            self.reopen(self.engines, now)
            self._spend_idle_time(now)
            return
        engine, leaves, demands = found
        self.make_way(engine, leaves, demands, now)

    def _spend_idle_time(self, now: float) -> None:
        """Nobody waits: do what the rules of idle hours want."""
        match self.idle.decide(now):
            case Rest(engine=engine, level=level, reason=reason):
                self.leave(engine, level, now, force=False, reason=reason)
            case Bring(engine=engine, leaves=leaves, decision=decision):
                engine.recalled = True
                if decision is not None:
                    self.decisions.note(decision)  # also where nobody has to leave
                self.make_way(engine, leaves, [self.demand(engine, now)], now, decision)
            case ReadAhead(model=model):
                self.prepare(model)

    def _clear(self, now: float) -> bool:
        """Whether an engine that has crashed, or that a command takes off the device, has begun to leave."""
        for engine in self.engines:
            if engine.broken:
                self.stop(engine, now, force=True, reason="its process ended")
                return True
        for engine in self.engines:
            if not engine.unloads:
                continue
            if engine.state is State.ASLEEP or (engine.state.serves and self._may_go(engine, now)):
                forced = any(engine.unloads.values()) or bool(engine.leases)
                self.leave(engine, 0, now, force=forced, reason="unload ordered")
                return True
        return False

    def _may_go(self, engine: Engine, now: float) -> bool:
        """Whether it is dry, or has to be cut: by a command, or because it drains for too long."""
        late = engine.state is State.DRAINING and now >= engine.since + self.bounds.drain_timeout_s
        if late and engine.leases:
            self.tickets.counters.forced_drains += 1
            text = f"{engine.model} was not dry after {self.bounds.drain_timeout_s:.0f} s"
            self.tickets.orders.append(Alarm(f"{text}: {len(engine.leases)} answers are cut"))
        return late or engine.dry or any(engine.unloads.values())

    # --- what fits ----------------------------------------------------------------------------------

    def _choose(self, now: float) -> tuple[Engine, list[Leave], list[policy.Demand]] | None:
        """Who is next, and who has to leave for it. Those for whom there can be no room are refused."""
        if self.tickets.closing:
            return None
        there = [e for e in self.engines if not e.state.serves and e.wanted]
        while there:
            asked = [e for e in there if e.asked_for]
            if asked:
                for e in there:
                    e.begun = e.begun and e.asked_for  # what was begun for nobody is over
            asked = asked or there
            demands = [self.demand(e, now) for e in asked if e.model not in self.switch.left]
            demands = demands or [self.demand(e, now) for e in asked]
            engine = self.engine(policy.next_demand(demands, now).model)
            leaves = self.ledger.room_for(engine.footprint, self.holders(now, engine))
            if leaves is not None:
                return engine, leaves, demands
            self.tickets.refuse_all(engine, Code.DOES_NOT_FIT, self._too_big(engine, now), self._full_retry())
            engine.recalled = engine.begun = False
            there.remove(engine)
        return None

    def demand(self, engine: Engine, now: float) -> policy.Demand:
        """What waits for the engine; if nobody asked for it, since ``now`` and for as long as it takes."""
        oldest, deadline = engine.oldest, engine.queue.deadline
        if oldest is None:
            oldest = now
        elif engine.queue.overdue:
            deadline = oldest
        strangers = self.tickets.callers.strangers(engine.model, now)
        return policy.Demand(
            engine.model,
            oldest,
            inf if deadline is None else deadline,
            self.usual_s if engine.bring_s is None else engine.bring_s,
            bool(engine.switches),
            engine.queue.weight + len(engine.switches) or 1.0,
            policy.visit_s(len(engine.waiting), engine.options.slots, engine.answer_s),
            engine.queue.waited(now) if engine.waiting else 0.0,
            strangers,
            engine.busy_share(strangers * (engine.service_s or 0.0)),
            engine.answer_s,
            engine.sure_at,
        )

    def holders(self, now: float, beside: Engine | None = None) -> list[Holder]:
        """Everybody who has memory of this device, ``beside`` apart."""
        return [
            Holder(e.model, e.footprint, not e.rests, e.used, self.level_of(e, now), e.options.pinned)
            for e in self.engines
            if e.state.occupies and e is not beside
        ]

    def level_of(self, engine: Engine, now: float) -> int:
        """How it would leave the device: asleep at a level, or stopped (0)."""
        if engine.worn or engine.unloads or now < engine.health.sleepless_until:
            return 0
        pinned, it = self.ram.pinned_beside(engine), engine.measured.round_trips
        return ledger.level_for(engine.options.levels, engine.footprint, pinned, self.ram.budget, it)

    def _too_big(self, engine: Engine, now: float) -> str:
        text = f"{engine.model} does not fit on {self.name}"
        if engine.footprint is not None and self.ledger.ours is not None:
            text += f": it needs {engine.footprint.awake / GIB:.1f} GiB, models can have {self.ledger.ours / GIB:.1f}"
        if self.ledger.foreign > self.ledger.reserve:
            text += f", other programs use {self.ledger.foreign / GIB:.1f}"
        fixed = ", ".join(h.model for h in self.holders(now, engine) if h.fixed)
        return text + (f", {fixed} is pinned" if fixed else "") + "; see 'roundhouse plan'"

    def _full_retry(self) -> float | None:
        return FULL_RETRY_S if self.ledger.foreign > self.ledger.reserve else None

    # --- a switch -----------------------------------------------------------------------------------

    def make_way(
        self,
        engine: Engine,
        leaves: Sequence[Leave],
        demands: list[policy.Demand],
        now: float,
        decision: policy.Decision | None = None,
    ) -> None:
        """One step on the way of ``engine`` onto the device, for which ``leaves`` have to go.

        ``decision``: what was decided over them, if it was.
        """
        leaving = {leave.model: leave.level for leave in leaves}
        asleep = [e for e in self.engines if e.model in leaving and not e.state.serves]
        awake = [e for e in self.engines if e.model in leaving and e.state.serves]
        self.reopen((e for e in self.engines if e.model not in leaving), now)
        if awake:
            decision = decision or self._looked_at(awake, demands, now)
            self.wake_by(decision.wake_at, now)
            self.decisions.note(decision)
            if decision.stay:
                self.stays_until = decision.wake_at
                self.lingers = all(e.dry for e in awake)
                self.switch.stay()
                self.prepare(engine.model)
                return
            for it in awake:
                if it.state is State.READY:
                    it.go(State.DRAINING, now, self.decisions.reason)
        self.switch.begin(engine.model, awake[0].model if awake else None, now)
        self.decisions.wanted(engine.model)
        for it in (*asleep, *(e for e in awake if self._may_go(e, now))):
            self.switch.left.add(it.model)
            if it in awake:
                self.account.left(now)
            engine.begun = not [e for e in awake if e is not it]  # else the device would be left without a model
            self.leave(it, leaving[it.model], now, force=bool(it.leases), reason=self.decisions.reason)
            return
        if awake:
            self.prepare(engine.model)
        else:
            self._bring(engine, now)

    def _looked_at(self, awake: Sequence[Engine], demands: Sequence[policy.Demand], now: float) -> policy.Decision:
        """Whether those who would have to leave stay; within LOOK_S, if busy or held, what was decided last."""
        models, busy = [e.model for e in awake], not all(e.dry for e in awake)
        commanded = any(d.commanded for d in demands)
        if self._looked is not None and not commanded:
            at, whose, decision = self._looked
            holds = decision.stay or any(e.state is State.DRAINING for e in awake)
            same = whose == models and (busy or decision.kind is policy.Kind.HOLD)
            if same and holds and at < now < min(at + LOOK_S, decision.wake_at):
                self.wake_by(at + LOOK_S, now)
                return decision
        decision = self._stay_or_leave(awake, demands, now)
        self._looked = (now, models, decision) if busy or decision.kind is policy.Kind.HOLD else None
        return decision

    def _stay_or_leave(self, awake: Sequence[Engine], demands: Sequence[policy.Demand], now: float) -> policy.Decision:
        """Ask the policy about those who would have to leave, as if they were one."""
        strangers = [(e, self.tickets.callers.strangers(e.model, now)) for e in awake]
        resident = policy.Resident(
            cost_s=max(self.usual_s if e.measured.start_s is None else e.measured.start_s for e in awake),
            service_s=max(e.service_s or 0.0 for e in awake),
            ready_since=self.account.ready_since,
            contested_since=now if self.account.contested_since is None else self.account.contested_since,
            dry_since=max(e.used for e in awake),
            busy_since=min((e.busy_since for e in awake if e.leases), default=now),
            owed=self.account.owed,
            queued=sum(e.queue.weight for e in awake),
            strangers=sum(rate for _, rate in strangers),
            load=sum(e.busy_share(rate * (e.service_s or 0.0)) for e, rate in strangers),
            taken=max(e.busy_share(len(e.leases)) for e in awake),
            drain_s=max(e.in_flight.drain_s(now) for e in awake),
            busy=not all(e.dry for e in awake),
            shut=any(e.state is State.DRAINING for e in awake),
        )
        returns = [] if resident.shut else self._returns(awake, now)
        return policy.decide(now, resident, demands, returns)

    def _returns(self, engines: Iterable[Engine], now: float) -> list[Return]:
        """Who may come back to ``engines``: those who pause, and those who are being answered."""
        callers, found = self.tickets.callers, list[Return]()
        for engine in engines:
            found += callers.returns(engine.model, now, policy.MOST)
            for lease in islice(engine.leases.values(), policy.MOST):
                found.append(callers.after(lease.caller, engine.model, max(now, engine.in_flight.ends_at(lease))))
        return found

    def _bring(self, engine: Engine, now: float) -> None:
        counters = self.tickets.counters
        counters.switches += self.switch.bring(engine.model)
        engine.cold = False
        if engine.state is State.ASLEEP:
            engine.go(State.WAKING, now, "wanted")
            counters.wakes += 1
            self.tickets.orders.append(Wake(engine.model))
        else:
            engine.begun = True
            engine.go(State.STARTING, now, "wanted")
            counters.starts += 1
            self.tickets.orders.append(Start(engine.model))

    def leave(self, engine: Engine, level: int, now: float, *, force: bool, reason: str) -> None:
        """Put it to sleep at ``level``, or with 0 or ``force`` end it."""
        if level and not force:
            engine.level = level
            engine.go(State.SLEEPING, now, reason)
            self.tickets.counters.sleeps += 1
            self.tickets.orders.append(Sleep(engine.model, level, engine.sleeps_with(), reason))
        else:
            self.stop(engine, now, force=force, reason=reason)

    def stop(self, engine: Engine, now: float, *, force: bool, reason: str) -> None:
        """End the engine, whatever it does."""
        self.tickets.drop_leases(engine)
        if engine.state is not State.ASLEEP:
            engine.level = 0
        engine.go(State.STOPPING, now, reason)
        self.tickets.counters.stops += 1
        self.tickets.orders.append(Stop(engine.model, force, reason))

    def reopen(self, engines: Iterable[Engine], now: float) -> None:
        """Whoever drains and does not have to leave any more lets people in again."""
        for engine in engines:
            if engine.state is State.DRAINING and not (engine.unloads or engine.broken):
                engine.go(State.READY, now, "its place is not needed any more")
                self.tickets.grant_all(engine, now)

    def prepare(self, target: str) -> None:
        """The device is still needed: what the next model needs nothing of it for is done meanwhile."""
        if target != self.switch.prepared:
            self.engine(target).cold = False
            self.tickets.orders.append(Prepare(target))
        self.switch.prepared = target

    # --- time ---------------------------------------------------------------------------------------

    def _refuse_overdue(self, now: float) -> None:
        """Refuse who has waited ``max_wait``, unless the switch to their model is under way."""
        for engine in self.engines:
            if (
                not (engine.queue.overdue and self.bounds.refuse_late)
                or engine.state in (State.STARTING, State.WAKING)
                or self.switch.target == engine.model
            ):
                continue
            forecast = self.forecast(engine, now, self.bounds.max_wait_s)
            again, retry = f"now it would be {forecast}", retry_after(forecast)
            for ticket in sorted(engine.queue.overdue):
                waited = now - engine.waiting[ticket].since
                message = f"{engine.model} could not be brought onto {self.name} within {waited:.0f} s"
                if engine.state is State.READY:
                    message = (
                        f"{engine.model} answers {engine.options.slots} at once and had no slot for {waited:.0f} s"
                    )
                elif way := self._in_the_way(engine, now):
                    message += f": {way}"
                self.tickets.refuse_waiter(engine, ticket, Code.LOADING_TIMEOUT, f"{message}; {again}", retry)

    def _in_the_way(self, engine: Engine, now: float) -> str:
        """Why the engine could not come: what moves, or who answers; empty if it was nobody's turn but others'."""
        if (moving := self.moving) is not None:
            return f"{moving.model} has been {moving.state} for {now - moving.since:.0f} s"
        busy = [
            (it.in_flight.longest.since, it.model)
            for it in self.engines
            if it.in_flight.longest is not None and it is not engine
        ]
        since, model = min(busy, default=(now, ""))
        return f"{model} has been answering a request for {now - since:.0f} s" if model else ""

    def forecast(self, engine: Engine, now: float, bound_s: float, place: int | None = None) -> Forecast:
        """How long a request waits that comes now, or that has ``place`` others of its model before it."""
        guess = self.outlook.guess(engine, len(engine.waiting) if place is None else place, now)
        return self.tickets.calibration.forecast(guess, bound_s)

    def clears_in_s(self, engine: Engine, now: float) -> float:
        """Measured seconds until those who have to leave for the engine have left, drains apart."""
        leaves = self.ledger.room_for(engine.footprint, self.holders(now, engine)) or ()
        going = ((self.engine(leave.model), leave.level) for leave in leaves)
        return sum(e.leave_s(level) for e, level in going if e.state not in (State.SLEEPING, State.STOPPING))

    @property
    def usual_s(self) -> float:
        """What bringing on a model costs that was never seen: as much as the others of the device, on average."""
        seen = [e.measured.start_s for e in self.engines if e.measured.start_s is not None]
        return sum(seen) / len(seen) if seen else UNMEASURED_S

    def booked(self, now: float, but: str | None = None) -> int:
        """What the ledger says that engines, ``but`` one, have of the device; 0 where nothing is known of it."""
        if self.ledger.capacity is None:
            return 0
        return sum(self.ledger.held(holder) for holder in self.holders(now) if holder.model != but)

    def engine(self, model: str) -> Engine:
        """The engine of ``model``, which is on this device."""
        return next(engine for engine in self.engines if engine.model == model)
