"""Who is next on a device, and when the resident leaves: the only file to change for another policy. Pure.

Everything is compared in *waiter-seconds*: people times seconds. The mean wait is the average number who wait,
divided by the rate at which they come, so whoever keeps that number low serves best, whatever the models cost.

- *Stay*: a resident that has run dry idles only while the callers who are known to come back save more by it than
  those who wait for other models lose.
- *Gate*: a resident in use is left when staying has cost the others QUANTUM times what leaving would cost its own
  callers, those who are known and the strangers of a round (ski rental: never more than a small factor worse than
  knowing the future), or at the last moment at which every waiting model can still be had within its ``max_wait``.
  Time before anybody else waited counts for the others, so that a stream that does not end is interrupted soon.
- *Next*: most waiters per second of work (Smith's rule), each counting more the longer it waits, double after a whole
  round; past PATIENCE of its ``max_wait`` the oldest decides; a person's command comes first.

The bound: a request is granted or refused within its ``max_wait`` plus one drain plus one switch, however many other
requests for whatever models arrive meanwhile. The derivation is in ``docs/scheduling.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, inf

from roundhouse.residency.learned.pauses import Return

QUANTUM = 2.5
"""How many times what leaving costs, in waiter-seconds, staying may have cost before the gate shuts. 1 is ski rental;
more favours the mean wait, less the longest. From 1 to 8 the mean over random workloads moves by 2 %."""

SURE = 2.5
"""How much more a second of idling weighs than a second of work: that somebody comes back is a guess, that it is then
served is not."""

ROUND_TRIP = 0.25
"""For how long a dry resident may idle, as a share of a switch away and back: longer pauses are not worth to wait for,
however sure they are."""

STREAM = 1.5
"""How much more an unbroken stream of known callers counts for the others: who has kept a model busy for long will go
on for as long (Lindy's law), and to wait for its end is in vain."""

STRANGE = 1.5
"""Weight of an expected new caller relative to one who returns. The next model stays longer than its present queue
needs, and new callers keep arriving meanwhile."""

SPREAD = 2.0
"""How many times as long as answers usually take the last of those that are being given may take: for the bound, which
has to hold for the longest."""

CROWDED = 3.0
"""Extra cost of leaving when all slots of the resident are busy (it scales with the square of the busy share): slots
that come free during a drain stay empty."""

CYCLE = 2.0
"""How many times as long, at most, a round of all models is taken to be because strangers come on while it lasts: as
long as a wait may be, at worst, by the bound of ``docs/scheduling.md``."""

PATIENCE = 0.5
"""Past this share of its ``max_wait`` a request's age decides over which model is next."""

MOST = 16
"""How many callers who may come back are looked at: the last ones to leave. The cost of a decision has a bound."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits for one model that is not on the device.

    ``oldest`` is when its first waiting request came and ``deadline`` the earliest moment at which one of its requests
    has waited its ``max_wait`` (clock seconds). ``cost_s``: the measured time to bring the model on once the drain is
    over, 0 if it was never measured; ``visit_s``: how long those who wait will be served then. ``weight``: how many
    wait, each by its priority; ``waited``: for how long, in all (waiter-seconds). ``strangers``: how many a second come
    whom nobody expects, and ``load`` the share of the model's slots that they would keep busy. ``answer_s``: how long
    one answer takes. ``commanded``: a person ordered it. ``sure_at``: from when on somebody waits who stays.
    """

    model: str
    oldest: float
    deadline: float
    cost_s: float
    commanded: bool = False
    weight: float = 1.0
    visit_s: float = 0.0
    waited: float = 0.0
    strangers: float = 0.0
    load: float = 0.0
    answer_s: float = 0.0
    sure_at: float = -inf

    @property
    def work_s(self) -> float:
        """Seconds to bring the model on and to serve who waits."""
        return self.cost_s + self.visit_s


@dataclass(frozen=True, slots=True)
class Resident:
    """Who would have to leave: one engine, or several that answer side by side.

    ``cost_s``: seconds to have it back; ``service_s``: how long a request takes on it; ``ready_since``,
    ``contested_since``: since when it is there and since when others wait (clock seconds); ``owed``: what staying has
    cost them so far, in waiter-seconds; ``queued``: who waits for a slot of it; ``strangers``: how many a second come
    whom nobody expects, and ``load`` the share of its slots that they keep busy; ``taken``: the share that is taken
    now; ``drain_s``: how long its answers take yet; ``busy``: whether there are any; ``busy_since``, ``dry_since``:
    since when there are, or are not; ``shut``: whether its gate has been shut.
    """

    cost_s: float
    service_s: float
    ready_since: float
    contested_since: float
    dry_since: float
    busy_since: float
    owed: float = 0.0
    queued: float = 0.0
    strangers: float = 0.0
    load: float = 0.0
    taken: float = 0.0
    drain_s: float = 0.0
    busy: bool = False
    shut: bool = False


class Kind(StrEnum):
    """What a decision is, in a word: a label of metrics and events."""

    OPEN = "open"
    """The resident is in use, and its gate open."""
    LINGER = "linger"
    """It is dry, and idles for callers who are expected back."""
    GATE = "gate"
    """It is in use, and its gate is shut: staying has cost enough."""
    DRY = "dry"
    """It is left because it is dry."""
    ORDERED = "ordered"
    """It is left because a person ordered another model."""
    HOLD = "hold"
    """It stays for a moment: who asks for another model has only just come, and may be gone at once."""
    FORESIGHT = "foresight"
    """It is left, with nothing to do, for a model that will be asked for."""
    DRAINING = "draining"
    """It was decided before that it leaves."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the resident stays, and lets people in, until asked again at ``wake_at``; else it leaves once dry."""

    kind: Kind
    target: str
    wake_at: float
    reason: str

    @property
    def stay(self) -> bool:
        """Whether it stays."""
        return self.kind in (Kind.OPEN, Kind.LINGER, Kind.HOLD)


def likely_next(cold: Sequence[str]) -> str | None:
    """Which of the models that have not been on the device yet to prepare while nothing is to be done.

    The others' weights are in the page cache already, unless memory is short, and then there is no room.
    """
    return cold[0] if cold else None


def next_demand(demands: Sequence[Demand], now: float) -> Demand:
    """The demand to serve next; of those who may be gone in a moment none while others wait."""
    demands = [d for d in demands if d.sure_at <= now] or demands
    if len(demands) == 1:
        return demands[0]
    commanded = [d for d in demands if d.commanded]
    if commanded:
        return min(commanded, key=lambda d: d.oldest)
    oldest = min(demands, key=lambda d: d.oldest)
    if now - oldest.oldest > PATIENCE * (oldest.deadline - oldest.oldest):
        return oldest
    a_round = sum(d.work_s for d in demands)

    def worth(demand: Demand) -> float:
        return (demand.weight + demand.waited / (a_round or 1e-9)) / (demand.work_s or 1e-9)

    return max(demands, key=lambda d: (worth(d), -d.oldest))


def last_moment(demands: Sequence[Demand], resident: Resident) -> float:
    """When the resident has to be left so that everybody can be had in time (clock seconds).

    The models come on in the order in which they were first asked for; before each lie what runs on the resident, and
    the work for those before it. Where ``max_wait`` is shorter than a whole round, the resident's turn included, nobody
    can keep it, and the round takes its place: else an impossible bound would mean switching for ever. With strangers
    coming on a round is the cycle of a polling system, whose length is what it takes without them over 1 - load
    (Takagi, Analysis of Polling Systems, 1986): to hurry would mean more switches, and more timeouts.
    """
    back_s = resident.cost_s + resident.service_s
    load = resident.load + sum(d.load for d in demands)
    cycle_s = (back_s + sum(d.cost_s + d.answer_s for d in demands)) * min(CYCLE, 1 / max(1e-9, 1 - load))
    a_round = max(back_s + sum(d.work_s for d in demands), cycle_s)
    gate, ahead = inf, max(SPREAD * resident.service_s, resident.drain_s)
    for demand in sorted(demands, key=lambda d: d.oldest):
        deadline = max(demand.deadline, demand.oldest + a_round)
        gate = min(gate, deadline - ahead - demand.cost_s)
        ahead += demand.work_s
    return gate


def decide(now: float, resident: Resident, demands: Sequence[Demand], returns: Sequence[Return]) -> Decision:
    """Decide over ``resident`` while ``demands`` wait for other models; ``returns``: who may come back to it."""
    found = _decide(now, resident, demands, returns)
    if found.kind is Kind.GATE or found.kind is Kind.DRY:
        sure_at = next(d.sure_at for d in demands if d.model == found.target)
        if now < sure_at:
            return Decision(Kind.HOLD, found.target, sure_at, f"{found.target} was asked for only just now")
    return found


def _decide(now: float, resident: Resident, demands: Sequence[Demand], returns: Sequence[Return]) -> Decision:
    target = next_demand(demands, now)

    def leave(kind: Kind, why: str) -> Decision:
        return Decision(kind, target.model, inf, why)

    if target.commanded:
        return leave(Kind.ORDERED, f"switch to {target.model} was ordered")
    if resident.shut:
        return leave(Kind.DRAINING, f"draining for {target.model}")
    weight = sum(d.weight for d in demands)
    back_s = resident.drain_s / 2 + sum(d.work_s for d in demands) + resident.cost_s
    known = resident.queued * back_s + sum(_loss(r, back_s, now) for r in returns)
    strange = STRANGE * resident.strangers * back_s**2 / 2
    loss = max(back_s, known + strange)
    credit_s = resident.contested_since - resident.ready_since
    if known:
        unbroken_s = max(0.0, resident.contested_since - max(resident.ready_since, resident.busy_since))
        credit_s += STREAM * unbroken_s * known / (known + strange)
    quantum = QUANTUM * (1 + CROWDED * resident.taken**2)
    rent = now + (quantum * loss - resident.owed) / weight - credit_s
    gate = min(rent, last_moment(demands, resident))
    if now >= gate:
        waited = now - target.oldest
        return leave(Kind.GATE, f"{target.model} has waited {waited:.1f} s: its turn has come")
    if resident.busy or resident.queued:
        return Decision(Kind.OPEN, target.model, gate, f"gate shuts in {gate - now:.1f} s for {target.model}")
    return _linger(now, resident, target, weight + _coming(target, demands), back_s, returns, gate)


def _coming(target: Demand, demands: Sequence[Demand]) -> float:
    """How many strangers will have come before their model is on the device: a delay now is a delay for them, too."""
    found, ahead = target.strangers * target.cost_s, target.work_s
    for demand in demands:
        if demand is not target:
            found += demand.strangers * (ahead + demand.cost_s)
            ahead += demand.work_s
    return found


def _loss(it: Return, back_s: float, now: float) -> float:
    """What leaving costs a caller who may come back: it finds the resident gone, less what is left of its pause."""
    loss, before = 0.0, 0.0
    for moment, chance in it.steps:
        loss += (chance - before) * max(0.0, back_s - max(0.0, moment - now))
        before = chance
    return loss


def _linger(
    now: float,
    resident: Resident,
    target: Demand,
    weight: float,
    back_s: float,
    returns: Sequence[Return],
    gate: float,
) -> Decision:
    """Whether a dry resident idles for those who may come back: until the moment that gains most, if any does."""
    last = min(gate, resident.dry_since + ROUND_TRIP * (resident.cost_s + target.cost_s))
    best, until = 0.0, now
    idle, alone, before = 0.0, 1.0, now
    ends = {w for r in returns for w in r.waits if now < w <= last}
    for moment in sorted(ends | {at for r in returns for at, _ in r.steps if now < at <= last}):
        idle += alone * (moment - before)
        chances = [r.by(moment) for r in returns]
        alone, before = 1.0, moment
        for chance in chances:
            alone *= 1.0 - chance
        if moment not in ends:
            continue
        gain = back_s * sum(chances) - weight * (SURE * idle + (1.0 - alone) * resident.service_s)
        if gain > best:
            best, until = gain, moment
    if until > now:
        soonest = min(returns, key=lambda r: r.at)
        who = f"caller {soonest.caller[:8]} expected back in {max(0.0, soonest.at - now):.1f} s"
        cost = weight * (until - now)
        return Decision(
            Kind.LINGER,
            target.model,
            until,
            f"linger: {who}, costs at most {cost:.1f} waiter-seconds to save {best:.1f}",
        )
    return Decision(Kind.DRY, target.model, inf, f"dry: {target.model} is next")


def visit_s(waiting: int, slots: int | None, service_s: float) -> float:
    """How long it takes to serve so many, ``slots`` at a time (``None``: all at once)."""
    waves = 1 if slots is None else ceil(waiting / slots)
    return service_s * waves if waiting else 0.0
