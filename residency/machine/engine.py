"""What the machine knows of one model: its engine's state, who waits for it, who has a lease. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from itertools import islice
from math import inf

from roundhouse.footprint.need import MIB, Footprint
from roundhouse.residency.learned.calibration import Forecast
from roundhouse.residency.learned.durations import USUAL, Answer, smoothed
from roundhouse.residency.machine.facts import Ticket
from roundhouse.residency.machine.fairness import FairQueue
from roundhouse.residency.machine.states import State, move

HISTORY = 8
"""Moves kept per engine, for the message of an illegal one."""

BACKOFF_FIRST_S = 5.0
BACKOFF_MAX_S = 300.0
"""After a failed start requests are refused for 5, 10, 20 ... at most 300 s: long enough not to hammer a
broken engine, short enough for a person who has mended it (``switch`` takes the back-off away at once)."""

GROWTH_BYTES = 256 * MIB
"""A sleeper that keeps so much more of its device than after its first sleep leaks, and is stopped: vLLM has lost up
to 3.4 GiB a cycle (vllm-project/vllm#21336); allocators round, so that less means nothing."""

SLEEPLESS_FIRST_S, SLEEPLESS_MAX_S = 600.0, 7200.0
"""After an engine failed to sleep or to wake its model is stopped instead for so long, doubled each time."""

LONG = 0.5
"""Past this share of its ``max_wait`` a request is let in before those that fairness would prefer."""

LATEST = 16
"""When the lease that was expected to end last ends, so many of the latest are searched for its successor."""

_COMING = (State.STARTING, State.WAKING)

SMOOTHING = 0.5
"""Weight of the newest measured duration against those before: a changed machine shows after two or three."""


@dataclass(slots=True)
class Waiter:
    """A request in the queue: since when, until when (clock seconds), whose, and how much it weighs.

    ``place``: how many were to be let in before it when it came; ``forecast``: how long it was told then to wait;
    ``answer``: how long its answer will take; ``sure_at``: from when on it is one that stays (clock seconds).
    """

    ticket: Ticket
    since: float
    deadline: float
    caller: str = ""
    weight: float = 1.0
    place: int = 0
    forecast: Forecast | None = None
    answer: Answer = USUAL
    sure_at: float = -inf

    @property
    def known(self) -> bool:
        """Whether it was known when it came that it stays."""
        return self.sure_at <= self.since


@dataclass(frozen=True, slots=True)
class Lease:
    """A request that is being answered: whose, since when (clock seconds), and how long the answer takes."""

    caller: str
    since: float
    answer: Answer = USUAL


@dataclass
class Measured:
    """Durations seen so far, in seconds; ``None`` before the first. ``sleep_s``, ``wake_s``: by sleep level."""

    start_s: float | None = None
    stop_s: float | None = None
    sleep_s: dict[int, float] = field(default_factory=dict)
    wake_s: dict[int, float] = field(default_factory=dict)

    def learn(self, name: str, seconds: float) -> None:
        """Mix a new duration into ``name`` ("start_s" or "stop_s")."""
        setattr(self, name, _mixed(getattr(self, name), seconds))

    def learn_level(self, name: str, level: int, seconds: float) -> None:
        """Mix a new duration into ``name`` ("sleep_s" or "wake_s") of ``level``."""
        durations = getattr(self, name)
        durations[level] = _mixed(durations.get(level), seconds)

    @property
    def round_trips(self) -> dict[int, float]:
        """Seconds to leave the device and come back, by sleep level (0: stop and start), where both are known."""
        costs = {level: s + self.wake_s[level] for level, s in self.sleep_s.items() if level in self.wake_s}
        if self.start_s is not None:
            costs[0] = self.start_s + (self.stop_s or 0.0)
        return costs


def _mixed(old: float | None, new: float) -> float:
    return new if old is None else old + SMOOTHING * (new - old)


@dataclass(frozen=True)
class Options:
    """What the YAML says of a model, and what its launcher can do.

    ``slots``: how many requests it answers at once; ``None``: as many as there are. ``start_timeout_s``: when a start
    has failed.
    """

    levels: tuple[int, ...] = ()
    pinned: bool = False
    preload: bool = False
    default: bool = False
    idle_sleep_s: float | None = None
    idle_stop_s: float | None = None
    slots: int | None = None
    start_timeout_s: float = inf


@dataclass
class Engine:
    """One model on one device. Only the machine changes it."""

    model: str
    device: str
    options: Options = field(default_factory=Options)
    footprint: Footprint | None = None
    measured: Measured = field(default_factory=Measured)
    state: State = State.STOPPED
    level: int = 0  # of its sleep, while it sleeps, falls asleep or wakes
    pid: int | None = None
    cold: bool = True  # neither started nor prepared since this process began
    since: float = 0.0
    used: float = 0.0  # when it last had a request
    busy_since: float = 0.0  # since when it has answered somebody without a break
    recalled: bool = False  # brought onto its device by no request: pinned, preloaded, default
    begun: bool = False  # others have left for it: it comes though nobody waits any more, while nobody wants another
    dismissed: bool = False  # a person took it off: it does not come back by itself
    broken: bool = False  # its main process is gone
    pins: bool = False  # its weights are in pinned RAM, as from its first sleep at level 1
    worn: bool = False  # it leaks: stopped, not put to sleep, when it leaves
    first_residual: int | None = None
    sleepless_until: float = 0.0
    sleep_failures: int = 0
    waiting: OrderedDict[Ticket, Waiter] = field(default_factory=OrderedDict)
    overdue: set[Ticket] = field(default_factory=set)
    weight: float = 0.0  # of all who wait
    _since: float = 0.0  # the sum of weight times arrival
    _own_s: float = 0.0  # of the answers to those who wait, in all
    _usual: float = 0.0
    _known: int = 0  # who wait and are known to stay
    leases: dict[Ticket, Lease] = field(default_factory=dict)  # changed by admit, release and void only
    _longest: Lease | None = None  # the one that is likely over last
    collated: set[Ticket] = field(default_factory=set)  # waited when it became ready: served whatever the gate says
    service_s: float | None = None  # how long a request takes, smoothed
    switches: OrderedDict[Ticket, float] = field(default_factory=OrderedDict)
    unloads: dict[Ticket, bool] = field(default_factory=dict)
    failures: int = 0
    failed_until: float = 0.0
    failure: str = ""
    history: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))
    _deadlines: list[tuple[float, Ticket]] = field(default_factory=list)
    _order: FairQueue = field(default_factory=FairQueue)

    def go(self, target: State, now: float, why: str) -> None:
        """Move to ``target``. Raises IllegalMove, and changes nothing, if the table forbids it."""
        source = self.state
        self.state = move(self.model, source, target, list(self.history))
        self.begun = self.begun and target in _COMING
        self.history.append(f"{source}->{target} ({why})")
        self.since = now

    # --- the queue ---------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Add a request, and tell it its place."""
        waiter.place = min(len(self.waiting), self._order.add(waiter.ticket, waiter.caller, waiter.weight))
        self.waiting[waiter.ticket] = waiter
        self.weight += waiter.weight
        self._since += waiter.weight * waiter.since
        self._own_s += waiter.answer.own_s
        self._usual += waiter.answer.usual
        self._known += waiter.known
        heapq.heappush(self._deadlines, (waiter.deadline, waiter.ticket))

    def dequeue(self, ticket: Ticket) -> None:
        """Take a request out, wherever it stands."""
        it = self.waiting.pop(ticket)
        self.weight -= it.weight
        self._since -= it.weight * it.since
        self._own_s -= it.answer.own_s
        self._usual -= it.answer.usual
        self._known -= it.known
        if not self.waiting:
            self.weight = self._since = self._own_s = self._usual = 0.0  # rounding does not add up
        self.overdue.discard(ticket)
        self.collated.discard(ticket)

    def next_waiter(self, now: float) -> Ticket | None:
        """Whose turn it is: who has waited for long, else by fairness; while it drains, one of the collated."""
        if self.state is not State.READY:
            return min(self.collated, default=None)
        oldest = next(iter(self.waiting.values()))
        if now - oldest.since > LONG * (oldest.deadline - oldest.since):
            return oldest.ticket
        return self._order.next(self.waiting)

    def waited(self, now: float) -> float:
        """For how long those who wait have waited in all, each by its weight: waiter-seconds."""
        return self.weight * now - self._since

    # --- the leases --------------------------------------------------------------------------

    def admit(self, ticket: Ticket, lease: Lease) -> None:
        """Let a request in."""
        self.leases[ticket] = lease
        if self._longest is None or self.ends_at(lease) >= self.ends_at(self._longest):
            self._longest = lease

    def release(self, ticket: Ticket) -> Lease:
        """An answer is over."""
        lease = self.leases.pop(ticket)
        if lease is self._longest:
            latest = islice(reversed(self.leases.values()), LATEST)
            self._longest = max(latest, key=self.ends_at, default=None)
        return lease

    def void(self) -> None:
        """All answers are cut."""
        self.leases.clear()
        self.collated.clear()
        self._longest = None

    @property
    def full(self) -> bool:
        """Whether it answers as many as it can at once."""
        return self.options.slots is not None and len(self.leases) >= self.options.slots

    def busy_share(self, answers: float) -> float:
        """Which share of its slots so many answers at once take; none where it has no limit."""
        return answers / self.options.slots if self.options.slots else 0.0

    @property
    def dry(self) -> bool:
        """Whether it answers nobody, and owes nobody an answer."""
        return not self.leases and not self.collated

    def served(self, seconds: float) -> None:
        """Mix how long a request took into ``service_s``."""
        self.service_s = smoothed(self.service_s, seconds)

    # --- since when, and until when ----------------------------------------------------------

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
    def asked_for(self) -> bool:
        """Whether a request or a command waits for this model to become ready."""
        return bool(self.waiting or self.switches)

    @property
    def lacks(self) -> bool:
        """Whether somebody wants the device for it: waits for it, and not only for a slot of it."""
        return self.asked_for and self.state is not State.READY

    @property
    def wanted(self) -> bool:
        """Whether it is to become ready: somebody waits for it, did when others left for it, or it belongs there."""
        return self.asked_for or self.recalled or self.begun

    @property
    def sure_at(self) -> float:
        """From when on it is sure that somebody waits for this model who stays (clock seconds)."""
        if self._known or self.switches or not self.waiting:
            return -inf
        return next(iter(self.waiting.values())).sure_at

    @property
    def rests(self) -> bool:
        """Whether it has no more than its residual of the device: it sleeps, or slept when its stop began."""
        return self.level > 0 and self.state in (State.ASLEEP, State.STOPPING)

    @property
    def idle_since(self) -> float:
        """Since when it has had nothing to do (clock seconds); only for one that serves or sleeps."""
        return max(self.used, self.since if self.state is State.READY else self.used)

    @property
    def bring_s(self) -> float | None:
        """Measured seconds to bring it onto its device from where it stands; ``None`` if that was never seen."""
        if self.state in (State.ASLEEP, State.SLEEPING, State.WAKING) and self.level in self.measured.wake_s:
            return self.measured.wake_s[self.level]
        return self.measured.start_s

    @property
    def answer_s(self) -> float:
        """How long an answer takes to those who wait, or, if nobody does, to anybody: the mean."""
        usual_s = self.service_s or 0.0
        return (self._own_s + self._usual * usual_s) / len(self.waiting) if self.waiting else usual_s

    @property
    def longest(self) -> Lease | None:
        """The request whose answer is likely over last."""
        return self._longest

    def ends_at(self, lease: Lease) -> float:
        """When an answer that is being given is likely over (clock seconds)."""
        return lease.since + lease.answer.seconds(self.service_s or 0.0)

    def drain_s(self, now: float) -> float:
        """How long those who are being answered will take yet, if their answers take as long as they usually do."""
        return 0.0 if self._longest is None else max(0.0, self.ends_at(self._longest) - now)

    def leave_s(self, level: int) -> float:
        """Measured seconds to go to sleep at ``level``, or with 0 to stop; 0 if that was never seen."""
        return (self.measured.sleep_s.get(level) if level else self.measured.stop_s) or 0.0

    @property
    def move_s(self) -> float:
        """Measured seconds that its transition off the device takes; 0 if that was never seen."""
        return self.leave_s(self.level if self.state is State.SLEEPING else 0)

    # --- memory ------------------------------------------------------------------------------

    def holds(self, awake: int | None) -> None:
        """Take in how much of its device the engine has, now that it answers."""
        if awake is None:
            return
        old = self.footprint or Footprint.of_size(awake)
        self.footprint = replace(old, awake=max(awake, old.loading), estimated=False)  # it has to start again some day

    # --- sleep -------------------------------------------------------------------------------

    def sleeps_with(self) -> int | None:
        """How many bytes of its device it may keep asleep, as far as is known."""
        if self.first_residual is not None and self.footprint is not None:
            return self.footprint.residual + GROWTH_BYTES
        if self.footprint is None or self.footprint.estimated:
            return None
        return max(self.footprint.awake // 2, self.footprint.residual + GROWTH_BYTES)

    def slept(self, residual: int | None) -> None:
        """Take in how much of its device a sleeper keeps, and whether that has grown."""
        if residual is None:
            return
        if self.first_residual is None:
            self.first_residual = residual
        self.worn = residual - self.first_residual > GROWTH_BYTES
        if self.footprint is not None:
            self.footprint = replace(self.footprint, residual=residual)

    def distrust(self, now: float, text: str) -> None:
        """It did not sleep or wake as it should: for a while it is stopped instead."""
        self.sleep_failures += 1
        self.failure = text
        self.sleepless_until = now + min(SLEEPLESS_MAX_S, SLEEPLESS_FIRST_S * 2 ** (self.sleep_failures - 1))

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
