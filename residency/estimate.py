"""What is before a request on its device, in measured switches, drains and answers: how long it may wait. Pure.

A guess is a range. Its soonest moment is what has to happen first if everybody leaves as soon as it can; for the latest
the resident stays until its gate shuts, and those whose turn is first stay for as long as models did lately. What
neither can know, who is still to come, ``calibration`` learns from past errors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf
from typing import Protocol

from roundhouse.residency import policy
from roundhouse.residency.calibration import Forecast, Guess, Kind
from roundhouse.residency.engine import Engine
from roundhouse.residency.states import State

COMING = (State.STARTING, State.WAKING)

FRESH_S = 0.02
"""Of hundreds of requests that may come in that time one looks at all models: nobody notices the difference."""

LATE = 0.25
"""An answer that takes longer than answers usually do is taken to go on for this share of the usual."""

UNMEASURED_S = 10.0
"""What bringing a model on is taken to cost before any was seen on the device: a small engine's cold start."""


@dataclass(frozen=True, slots=True)
class Before:
    """What is before those who wait for one model, in seconds.

    ``cost_s``: bringing it on; ``ahead_s``: the transition under way, who has to leave, and the models whose turn is
    first, with who waits for them; ``answers_s``: the answers that are being given; ``stays_s``: how long those who
    give them may let others in yet; ``visits_s``: how much longer than that those whose turn is first stay, as models
    did lately; ``round_s``: until the model is back, if it leaves for others.
    """

    cost_s: float
    ahead_s: float
    answers_s: float
    stays_s: float
    visits_s: float
    round_s: float


class Device(Protocol):
    """What an estimate has to know of a device.

    ``target``: the model that it is being cleared for; ``stays_until``: when those who answer leave, as decided last
    (clock seconds); ``visit_s``: for how long others were waited for lately until one left; ``usual_s``: what bringing
    a model on is taken to cost that was never seen.
    """

    engines: list[Engine]
    target: str | None
    stays_until: float
    visit_s: float | None

    @property
    def usual_s(self) -> float: ...

    def demand(self, engine: Engine, now: float) -> policy.Demand: ...

    def clears_in_s(self, engine: Engine, now: float) -> float: ...


def before(engine: Engine, device: Device, now: float) -> Before:
    """What is before those who wait for ``engine``, which is on ``device``."""
    there = (State.READY, *COMING)
    mine, visit_s = device.demand(engine, now), device.visit_s or 0.0
    others = [device.demand(e, now) for e in device.engines if e.asked_for and e is not engine and e.state not in there]
    first = [d for d in others if _goes_first(d, mine, device.target, now)]
    ahead_s, answers_s = sum(d.work_s for d in first), 0.0
    visits_s = sum(max(0.0, visit_s - d.visit_s) for d in first)
    for it in device.engines:
        if it.state in COMING:
            asked = policy.visit_s(len(it.waiting), it.options.slots, it.answer_s)
            ahead_s += max(0.0, it.since + (device.usual_s if it.bring_s is None else it.bring_s) - now)
            answers_s, visits_s = max(answers_s, asked), visits_s + max(0.0, visit_s - asked)
        elif it.state.moves:
            ahead_s += it.remaining_s(now)
        elif it.state.serves:
            answers_s = max(answers_s, _answers_s(it, now))
    if engine.state not in there:
        ahead_s += device.clears_in_s(engine, now)
    round_s = mine.cost_s + sum(d.work_s for d in others) if others else 0.0
    return Before(mine.cost_s, ahead_s, answers_s, device.stays_until - now, visits_s, round_s)


def _goes_first(it: policy.Demand, mine: policy.Demand, target: str | None, now: float) -> bool:
    if target in (it.model, mine.model):
        return it.model == target
    return policy.next_demand((it, mine), now) is it  # of equals, who was there before


def _answers_s(engine: Engine, now: float) -> float:
    """Until it is dry, if nobody is let in but who is owed an answer."""
    if engine.collated:
        return policy.visit_s(len(engine.collated), engine.options.slots, engine.answer_s)
    return max(LATE * (engine.service_s or 0.0), engine.drain_s(now)) if engine.leases else 0.0


def guess(engine: Engine, it: Before, place: int, now: float) -> Guess:
    """How long a request waits that has ``place`` others of its model before it."""
    slots, service = engine.options.slots, engine.answer_s
    if engine.state is State.READY:
        own = 0.0 if slots is None else (place + 1) / slots * service
        return Guess(Kind.SLOT, own, own if own <= it.stays_s else own + it.round_s)
    own = 0.0 if slots is None else place // slots * service
    if engine.state in COMING:
        own += max(0.0, engine.since + it.cost_s - now)
        return Guess(Kind.START, own, own)
    own += it.ahead_s + it.cost_s
    return Guess(Kind.SWITCH, own + it.answers_s, own + max(it.answers_s, it.stays_s) + it.visits_s)


@dataclass
class Outlook:
    """Guesses for one ``device``. What is before a model is looked at anew when an engine moves, or after FRESH_S."""

    device: Device
    _known: dict[str, tuple[float, list[State], Before]] = field(default_factory=dict)

    def guess(self, engine: Engine, place: int, now: float) -> Guess | None:
        """How long a request waits, ``place`` others before it; ``None`` if what it waits for was never measured."""
        if (engine.service_s if engine.state is State.READY else engine.bring_s) is None:
            return None
        states = [e.state for e in self.device.engines]
        at, then, found = self._known.get(engine.model, (inf, states, None))
        if found is None or then != states or not at <= now < at + FRESH_S:
            found = before(engine, self.device, now)
            self._known[engine.model] = now, states, found
        return guess(engine, found, place, now)


def retry_after(forecast: Forecast) -> float:
    """An honest ``Retry-After``, in whole seconds."""
    return float(max(1, ceil(UNMEASURED_S if forecast.expected_s is None else forecast.expected_s)))
