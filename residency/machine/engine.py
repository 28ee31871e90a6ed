"""What the machine knows of one model: its engine's state, who waits for it, who has a lease. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from roundhouse.footprint.need import MIB, Footprint
from roundhouse.residency.machine.facts import Ticket
from roundhouse.residency.machine.health import Health
from roundhouse.residency.machine.leases import Lease, Leases
from roundhouse.residency.machine.measured import Measured
from roundhouse.residency.machine.queue import Queue, Waiter
from roundhouse.residency.machine.states import State, move

HISTORY = 8
"""Moves kept per engine, for the message of an illegal one."""

GROWTH_BYTES = 256 * MIB
"""A sleeper that keeps so much more of its device than after its first sleep leaks, and is stopped: vLLM has lost up
to 3.4 GiB a cycle (vllm-project/vllm#21336); allocators round, so that less means nothing."""

_COMING = (State.STARTING, State.WAKING)


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
    health: Health = field(default_factory=Health)
    queue: Queue = field(default_factory=Queue)
    in_flight: Leases = field(default_factory=Leases)
    collated: set[Ticket] = field(default_factory=set)  # waited when it became ready: served whatever the gate says
    switches: OrderedDict[Ticket, float] = field(default_factory=OrderedDict)
    unloads: dict[Ticket, bool] = field(default_factory=dict)
    history: deque[str] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def go(self, target: State, now: float, why: str) -> None:
        """Move to ``target``. Raises IllegalMove, and changes nothing, if the table forbids it."""
        source = self.state
        self.state = move(self.model, source, target, list(self.history))
        self.begun = self.begun and target in _COMING
        self.history.append(f"{source}->{target} ({why})")
        self.since = now

    # --- the queue and the leases ------------------------------------------------------------

    @property
    def waiting(self) -> Mapping[Ticket, Waiter]:
        """The requests that wait, in the order in which they came."""
        return self.queue.waiting

    @property
    def leases(self) -> Mapping[Ticket, Lease]:
        """The requests that are being answered."""
        return self.in_flight.held

    @property
    def service_s(self) -> float | None:
        """How long a request takes, in seconds, smoothed."""
        return self.in_flight.service_s

    def dequeue(self, ticket: Ticket) -> None:
        """Take a request out, wherever it stands."""
        self.queue.remove(ticket)
        self.collated.discard(ticket)

    def next_waiter(self, now: float) -> Ticket | None:
        """Whose turn it is; while it drains, one of the collated."""
        if self.state is not State.READY:
            return min(self.collated, default=None)
        return self.queue.next(now)

    def void(self) -> None:
        """All answers are cut."""
        self.in_flight.void()
        self.collated.clear()

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

    @property
    def oldest(self) -> float | None:
        """Since when somebody, a request or a command, has been waiting for this model."""
        first = self.queue.first
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
        return -inf if self.switches else self.queue.sure_at

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
        return self.queue.answer_s(self.service_s or 0.0)

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

    def __repr__(self) -> str:
        return (
            f"<engine {self.model} {self.state} on {self.device}, "
            f"{len(self.leases)} leases, {len(self.waiting)} waiting, pid {self.pid}>"
        )
