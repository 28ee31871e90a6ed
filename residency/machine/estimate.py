"""What is before a request on its device, in measured switches, drains and answers: how long it may wait. Pure.

A guess is a range. Its soonest moment is what has to happen first if everybody leaves as soon as it can; for the latest
the resident stays until its gate shuts, and those whose turn is first stay for as long as models did lately. What
neither can know, who is still to come, ``calibration`` learns from past errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf
from typing import Protocol

from roundhouse.residency.learned.calibration import Forecast, Guess, WaitKind
from roundhouse.residency.machine import policy
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.states import State

COMING = (State.STARTING, State.WAKING)

FRESH_S = 0.02
"""Of hundreds of requests that may come in that time one looks at all models: nobody notices the difference."""

LATE = 0.25
"""An answer that takes longer than answers usually do is taken to go on for this share of the usual."""

OUTRUN = 0.25
"""What takes longer than it usually does goes on for this share of the excess at least, and for all of it once more at
most: of what has lasted so long, and has no scale, half ends before that (Lindy's law). So the guess grows while
nothing happens, where one of what is left of the usual would say 0 s."""

UNMEASURED_S = 10.0
"""What bringing a model on is taken to cost before any was seen on the device: a small engine's cold start."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is before those who wait for one model, in seconds.

    ``cost_s``: bringing it on; ``ahead_s``: the transition under way, who has to leave, and the models whose turn is
    first, with who waits for them; ``answers_s``: the answers that are being given; ``stays_s``: how long those who
    give them may let others in yet; ``visits_s``: how much longer than that those whose turn is first stay, as models
    did lately; ``late_s``: how much longer what has outrun its measure may take than it has to; ``round_s``: until the
    model is back, if it leaves for others.
    """

    cost_s: float
    ahead_s: float
    answers_s: float
    stays_s: float
    visits_s: float
    late_s: float
    round_s: float


class DeviceView(Protocol):
    """What an estimate has to know of a device.

    ``target``: the model that it is being cleared for; ``stays_until``: when those who answer leave, as decided last
    (clock seconds); ``visit_s``: for how long others were waited for lately until one left; ``usual_s``: what bringing
    a model on is taken to cost that was never seen.
    """

    engines: list[Engine]
    stays_until: float

    @property
    def target(self) -> str | None: ...

    @property
    def visit_s(self) -> float | None: ...

    @property
    def usual_s(self) -> float: ...

    def demand(self, engine: Engine, now: float) -> policy.Demand: ...

    def clears_in_s(self, engine: Engine, now: float) -> float: ...


def before(engine: Engine, device: DeviceView, now: float) -> Before:
    """What is before those who wait for ``engine``, which is on ``device``."""
    there = (State.READY, *COMING)
    mine, visit_s = device.demand(engine, now), device.visit_s or 0.0
    others = [device.demand(e, now) for e in device.engines if e.asked_for and e is not engine and e.state not in there]
    first = [d for d in others if _goes_first(d, mine, device.target, now)]
    ahead_s, answers_s = sum(d.work_s for d in first), 0.0
    visits_s, late_s, answers_late_s = sum(max(0.0, visit_s - d.visit_s) for d in first), 0.0, 0.0
    for it in device.engines:
        if it.state in COMING:
            asked = policy.visit_s(len(it.waiting), it.options.slots, it.answer_s)
            soonest, latest = _comes_in_s(it, device.usual_s if it.bring_s is None else it.bring_s, now)
            ahead_s, late_s = ahead_s + soonest, late_s + latest - soonest
            answers_s, visits_s = max(answers_s, asked), visits_s + max(0.0, visit_s - asked)
        elif it.state.moves:
            soonest, latest = left_s(it.move_s, now - it.since)
            ahead_s, late_s = ahead_s + soonest, late_s + latest - soonest
        elif it.state.serves:
            held_s = engine.sure_at - now if engine.state not in there else 0.0
            answers_s = max(answers_s, _answers_s(it, now), held_s)
            answers_late_s = max(answers_late_s, _answers_late_s(it, now))
    if engine.state not in there:
        ahead_s += device.clears_in_s(engine, now)
    late_s += max(0.0, answers_late_s - answers_s)
    round_s = mine.cost_s + sum(d.work_s for d in others) if others else 0.0
    return Before(mine.cost_s, ahead_s, answers_s, device.stays_until - now, visits_s, late_s, round_s)


def _goes_first(it: policy.Demand, mine: policy.Demand, target: str | None, now: float) -> bool:
    if target in (it.model, mine.model):
        return it.model == target
    return policy.next_demand((it, mine), now) is it  # of equals, who was there before


def _answers_s(engine: Engine, now: float) -> float:
    """Until it is dry, if nobody is let in but who is owed an answer."""
    if engine.collated:
        return policy.visit_s(len(engine.collated), engine.options.slots, engine.answer_s)
    return max(LATE * (engine.service_s or 0.0), engine.in_flight.drain_s(now)) if engine.leases else 0.0


def _answers_late_s(engine: Engine, now: float) -> float:
    """How long the answers may take yet that take far longer than answers do: perhaps they hang."""
    lease = engine.in_flight.longest
    if lease is None:
        return 0.0
    usual_s = policy.SPREAD * (engine.in_flight.ends_at(lease) - lease.since)
    return max(0.0, now - lease.since - usual_s) if usual_s else 0.0


def _comes_in_s(engine: Engine, usual_s: float, now: float) -> tuple[float, float]:
    """When an engine that is coming is there: seconds, at the soonest and at the latest."""
    soonest, latest = left_s(usual_s, now - engine.since)
    if engine.state is State.STARTING:  # past that the start has failed, and nobody waits for it any more
        most = max(0.0, engine.since + engine.options.start_timeout_s - now)
        return min(soonest, most), min(latest, most)
    return soonest, latest


def left_s(usual_s: float, elapsed_s: float) -> tuple[float, float]:
    """How long something goes on that usually takes ``usual_s``: at least, and at most."""
    if elapsed_s <= usual_s:
        return usual_s - elapsed_s, usual_s - elapsed_s
    return OUTRUN * (elapsed_s - usual_s), elapsed_s - usual_s


def guess(engine: Engine, it: Before, place: int, now: float) -> Guess:
    """How long a request waits that has ``place`` others of its model before it."""
    slots, service = engine.options.slots, engine.answer_s
    if engine.state is State.READY:
        own = 0.0 if slots is None else (place + 1) / slots * service
        return Guess(WaitKind.SLOT, own, own if own <= it.stays_s else own + it.round_s)
    own = 0.0 if slots is None else place // slots * service
    if engine.state in COMING:
        soonest, latest = _comes_in_s(engine, it.cost_s, now)
        return Guess(WaitKind.START, own + soonest, own + latest)
    own += it.ahead_s + it.cost_s
    return Guess(WaitKind.SWITCH, own + it.answers_s, own + max(it.answers_s, it.stays_s) + it.visits_s + it.late_s)


@dataclass
class Outlook:
    """Guesses for one ``device``. What is before a model is looked at anew when an engine moves, or after FRESH_S."""

    device: DeviceView
    _known: dict[str, tuple[float, list[State], Before]] = field(default_factory=dict)

    def guess(self, engine: Engine, place: int, now: float) -> Guess | None:
        """How long a request waits, ``place`` others before it; ``None`` if what it waits for was never measured."""
        measured_s = engine.service_s if engine.state is State.READY else engine.bring_s
        if measured_s is None and not self._outrun(engine, now):
            return None
        states = [e.state for e in self.device.engines]
        at, then, found = self._known.get(engine.model, (inf, states, None))
        if found is None or then != states or not at <= now < at + FRESH_S:
            found = before(engine, self.device, now)
            self._known[engine.model] = now, states, found
        return guess(engine, found, place, now)

    def _outrun(self, engine: Engine, now: float) -> bool:
        """Whether it takes longer than others of its device do: that much is known of one that was never seen."""
        return engine.state in COMING and now > engine.since + self.device.usual_s


def retry_after(forecast: Forecast) -> float:
    """An honest ``Retry-After``, in whole seconds."""
    return float(max(1, ceil(UNMEASURED_S if forecast.expected_s is None else forecast.expected_s)))
