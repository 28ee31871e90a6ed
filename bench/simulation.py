"""One device in virtual time: a router decides, this plays the callers, the engines and the clock.

Events of one moment are handled one by one, in the order in which they were caused. A switch starts only
when nothing runs. A router sees a request when it is asked, and a service time only when it is over.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from roundhouse.bench.workload import Agent, Workload

STUCK_EVENTS = 5_000_000
"""More events than any workload has: a router that wakes up for ever is a bug and ends with an error."""


@dataclass(eq=False, slots=True)
class Request:
    """One request and what became of it: ``started`` and ``ended`` are ``None`` while it has not."""

    number: int
    model: str
    caller: str
    priority: int
    asked: float
    service_s: float
    leaves_after_s: float | None
    agent: int | None = None
    step: int = 0
    started: float | None = None
    ended: float | None = None
    outcome: str = "waiting"  # served | refused | left
    submitted: bool = False

    @property
    def open(self) -> bool:
        """Whether it has neither started nor ended."""
        return self.started is None and self.ended is None


class Router(Protocol):
    """What decides. It acts through the simulation: ``submit``, ``refuse``, ``switch``, ``at``."""

    def asked(self, request: Request) -> None:
        """A request has come."""

    def ended(self, request: Request) -> None:
        """A request that was submitted is over: answered, or left before it started."""

    def left(self, request: Request) -> None:
        """A request that was not submitted yet gave up."""

    def ready(self, model: str) -> None:
        """The switch to ``model`` is over."""


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch, for the picture: from ``began`` to ``ended`` seconds."""

    model: str
    began: float
    ended: float


@dataclass
class Engine:
    """The model on the device: what runs and, beyond its slots, what it queues itself (vLLM does)."""

    slots: int
    running: set[Request] = field(default_factory=set)
    queue: deque[Request] = field(default_factory=deque)


class Simulation:
    """Plays one workload against one router. ``run`` returns when nothing is left to happen."""

    def __init__(self, workload: Workload, build: Callable[[Simulation], Router]) -> None:
        self.workload = workload
        self.now = 0.0
        self.resident: str | None = None
        self.requests: list[Request] = []
        self.switches: list[Switch] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._engine = Engine(1)
        self._switching: tuple[str, float] | None = None
        self.router = build(self)
        self._seed()

    # --- for routers -----------------------------------------------------------------------------

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call ``call`` at ``when`` seconds, or now if that has passed, after what was caused before."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, call))

    def submit(self, request: Request) -> None:
        """Send a request to the resident engine. It starts at once, or when a slot of the engine is free."""
        assert request.model == self.resident, f"{request.model} is asked while {self.resident} is on the device"
        assert self._switching is None
        assert request.open
        request.submitted = True
        if len(self._engine.running) < self._engine.slots:
            self._start(request)
        else:
            self._engine.queue.append(request)

    def refuse(self, request: Request) -> None:
        """Answer a request with an error."""
        request.outcome, request.ended = "refused", self.now
        self._next_step(request)

    def switch(self, model: str) -> None:
        """Bring ``model`` on; ``ready`` follows after its ``switch_s``. Nothing may run."""
        assert not self._engine.running, f"a switch to {model} while {len(self._engine.running)} requests run"
        assert self._switching is None
        self.resident = None
        self._switching = begun = (model, self.now)
        self.at(self.now + self.workload.models[model].switch_s, lambda: self._ready(begun))

    def abort(self, model: str) -> None:
        """End the switch to ``model``, if it is under way."""
        if self.switching == model:
            self._switching = None

    @property
    def running(self) -> int:
        """How many requests the engine has, those in its own queue included."""
        return len(self._engine.running) + len(self._engine.queue)

    @property
    def switching(self) -> str | None:
        """The model that is being brought on."""
        return self._switching[0] if self._switching else None

    # --- the world ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Play until nothing is left to happen."""
        for _ in range(STUCK_EVENTS):
            if not self._events:
                return
            self.now, _, call = heapq.heappop(self._events)
            call()
        raise RuntimeError(f"{self.workload.name}: the router does not come to an end")

    def _seed(self) -> None:
        agents = [(a.start_s, lambda i=i, a=a: self._step(i, a, 0)) for i, a in enumerate(self.workload.agents)]
        arrivals = [
            (a.t, lambda a=a: self._ask(a.model, a.caller, a.priority, a.service_s, a.leaves_after_s))
            for a in self.workload.arrivals
        ]
        for when, call in agents + arrivals if self.workload.agents_first else arrivals + agents:
            self.at(when, call)

    def _step(self, index: int, agent: Agent, number: int) -> None:
        until = self.workload.until_s
        if number < len(agent.steps) and (until is None or self.now <= until):
            step = agent.steps[number]
            self._ask(
                step.model, agent.caller, agent.priority, step.service_s, step.leaves_after_s, agent=index, step=number
            )

    def _ask(
        self,
        model: str,
        caller: str,
        priority: int,
        service_s: float,
        leaves_after_s: float | None,
        agent: int | None = None,
        step: int = 0,
    ) -> None:
        number = len(self.requests)
        request = Request(number, model, caller, priority, self.now, service_s, leaves_after_s, agent, step)
        self.requests.append(request)
        self.router.asked(request)
        if request.open and leaves_after_s is not None:
            self.at(self.now + leaves_after_s, lambda: self._leave(request))

    def _leave(self, request: Request) -> None:
        if not request.open:
            return
        request.outcome, request.ended = "left", self.now
        if request.submitted:
            self._engine.queue.remove(request)
            self.router.ended(request)
        else:
            self.router.left(request)
        self._next_step(request)

    def _start(self, request: Request) -> None:
        request.started, request.outcome = self.now, "served"
        self._engine.running.add(request)
        self.at(self.now + request.service_s, lambda: self._end(request))

    def _end(self, request: Request) -> None:
        request.ended = self.now
        self._engine.running.discard(request)
        if self._engine.queue:
            self._start(self._engine.queue.popleft())
        self.router.ended(request)
        self._next_step(request)

    def _next_step(self, request: Request) -> None:
        if request.agent is not None:
            agent = self.workload.agents[request.agent]
            pause, index, number = agent.steps[request.step].think_s, request.agent, request.step + 1
            self.at(self.now + pause, lambda: self._step(index, agent, number))

    def _ready(self, begun: tuple[str, float]) -> None:
        if self._switching is not begun:
            return  # it was ended
        model, began = begun
        self._switching = None
        self.resident, self._engine = model, Engine(self.workload.models[model].slots)
        self.switches.append(Switch(model, began, self.now))
        self.router.ready(model)
