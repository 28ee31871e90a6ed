"""Roundhouse: the real machine and the real policy (``residency``), with facts and orders in virtual time."""

from __future__ import annotations

from functools import partial
from math import inf

from roundhouse.bench.simulation import Request, Simulation
from roundhouse.config.key_metadata import Priority
from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import (
    Asked,
    Fact,
    Gone,
    Grant,
    Ready,
    Refuse,
    Start,
    Stop,
    Stopped,
    Ticked,
    Ticket,
)
from roundhouse.residency.machine.invariants import check
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.machine.measured import Measured

DEVICE = "gpu0"
NEVER_S, MANY = 1e9, 10**9
"""No drain of a workload is cut, and nobody is refused for how many wait."""

WEIGHTS = {1: Priority.INTERACTIVE.weight, 0: Priority.NORMAL.weight, -1: Priority.BATCH.weight}
"""The priorities of workload files."""


class Ours:
    """The router. ``before`` is the machine of an earlier run: what it would keep over a restart is known. Without
    ``refuse`` nobody is sent away at the bound."""

    def __init__(
        self, simulation: Simulation, before: Machine | None = None, *, refuse: bool = True, debug: bool = False
    ) -> None:
        workload = simulation.workload
        self._sim = simulation
        self._debug = debug
        bound = inf if workload.max_wait_s is None else workload.max_wait_s
        known = before.engines if before is not None else {}
        callers = Callers.load(before.tickets.callers.dump()) if before is not None else None
        models = {}
        for name, it in workload.models.items():
            measured = known[name].measured if name in known else Measured()
            service_s = known[name].service_s if name in known else None
            models[name] = Model(DEVICE, Options(slots=it.slots), measured=measured, service_s=service_s)
        self.machine = Machine.of(
            models,
            {DEVICE: Ledger()},
            Bounds(bound, NEVER_S, max_waiting=MANY, max_waiting_per_key=MANY, refuse_late=refuse),
            callers=callers,
        )
        self._wake: float | None = None

    def asked(self, request: Request) -> None:
        """A request is a fact."""
        ticket = Ticket(request.number)
        self._post(Asked(ticket, request.model, caller=request.caller, weight=WEIGHTS[request.priority]))

    def ended(self, request: Request) -> None:
        """So is its end."""
        self._post(Gone(Ticket(request.number)))

    def left(self, request: Request) -> None:
        """And that it gave up."""
        self._post(Gone(Ticket(request.number)))

    def ready(self, model: str) -> None:
        """The engine answers."""
        self._post(Ready(model, 1))

    def _post(self, fact: Fact) -> None:
        for order in self.machine.handle(fact, self._sim.now):
            match order:
                case Start(model=model):
                    self._sim.switch(model)
                case Stop(model=model):
                    self._sim.abort(model)
                    self._sim.at(self._sim.now, partial(self._post, Stopped(model)))
                case Grant(ticket=ticket):
                    self._sim.submit(self._sim.requests[ticket])
                case Refuse(ticket=ticket):
                    self._sim.refuse(self._sim.requests[ticket])
        if self._debug:
            check(self.machine, self._sim.now)
        wake = self.machine.wake_at()
        if wake is not None and wake != self._wake:
            self._wake = wake
            self._sim.at(wake, lambda: self._tick(wake))

    def _tick(self, wake: float) -> None:
        if self._wake == wake:
            self._wake = None
            self._post(Ticked())
