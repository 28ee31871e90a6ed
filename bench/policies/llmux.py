"""llmux v2 (src/switcher.rs at a32e9eb, FIFO policy).

- Every request that finds another model active spawns ``do_switch(target)`` on a fair mutex, one for each
  request; those whose request was served by an earlier one stay in line.
- Who gets the mutex for a model that is not active and that somebody waits for makes the state ``Switching``
  at once, so that new requests for the old model queue: nobody starves. Then it drains, switches, and
  releases everything that is pending for the new model.
"""

from __future__ import annotations

from collections import deque

from roundhouse.bench.simulation import Request, Simulation


class Llmux:
    """The router."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._line: deque[str] = deque()
        self._pending: dict[str, list[Request]] = {name: [] for name in simulation.workload.models}
        self._target: str | None = None  # Switching: this model is next, nobody new is let in

    def asked(self, request: Request) -> None:
        """Grant while its model is active, else get in line for the mutex."""
        if self._target is None and self._sim.resident == request.model:
            self._sim.submit(request)
            return
        self._pending[request.model].append(request)
        if self._target != request.model:  # who asks for the model that is being brought on joins that switch
            self._line.append(request.model)
            self._advance()

    def ended(self, request: Request) -> None:
        """The drain may be over."""
        self._advance()

    def left(self, request: Request) -> None:
        """The request is forgotten; its place in the line is not."""
        self._pending[request.model].remove(request)

    def ready(self, model: str) -> None:
        """All that is pending for the model is released, then the mutex."""
        self._target = None
        self._release(model)
        self._advance()

    def _release(self, model: str) -> None:
        pending, self._pending[model] = self._pending[model], []
        for request in pending:
            self._sim.submit(request)

    def _advance(self) -> None:
        while self._target is None and self._line:
            model = self._line.popleft()
            if model != self._sim.resident and self._pending[model]:
                self._target = model
        if self._target is not None and self._sim.switching is None and not self._sim.running:
            self._sim.switch(self._target)
