"""llama-swap (mostlygeek/llama-swap, internal/router/scheduler/fifo.go, base.go, group.go, 2026-09).

- ``admit``: a model with ten requests queued and running refuses the eleventh with 429.
- Fast path: a ready model that nobody is swapping away from is granted at once; the queue is not consulted,
  so a steady stream for the resident starves everybody else.
- The queue is looked at only when the resident's last answer ends: the oldest request's model is swapped in,
  and everything that waits for it is granted together.
"""

from __future__ import annotations

from roundhouse.bench.simulation import Request, Simulation

LIMIT = 10
"""llama-swap's default ``concurrencyLimit`` of a model."""


class LlamaSwap:
    """The router; ``limit`` is ``None`` for a llama-swap whose 429 is lifted."""

    def __init__(self, simulation: Simulation, limit: int | None = LIMIT) -> None:
        self._sim = simulation
        self._limit = limit
        self._queue: list[Request] = []
        self._running: dict[str, int] = dict.fromkeys(simulation.workload.models, 0)

    def asked(self, request: Request) -> None:
        """Admit, grant on the fast path, or queue."""
        model = request.model
        reserved = self._running[model] + sum(r.model == model for r in self._queue) if self._limit else 0
        if self._limit is not None and reserved >= self._limit:
            self._sim.refuse(request)
        elif self._sim.resident == model and self._sim.switching is None:
            self._grant(request)
        else:
            self._queue.append(request)
            self._drain()

    def ended(self, request: Request) -> None:
        """The queue is drained when nothing runs any more."""
        self._running[request.model] -= 1
        self._drain()

    def left(self, request: Request) -> None:
        """Who gives up is taken out of the queue."""
        self._queue.remove(request)

    def ready(self, model: str) -> None:
        """All that waits for the model is granted together."""
        mine = [r for r in self._queue if r.model == model]
        self._queue = [r for r in self._queue if r.model != model]
        for request in mine:
            self._grant(request)
        self._drain()

    def _grant(self, request: Request) -> None:
        self._running[request.model] += 1
        self._sim.submit(request)

    def _drain(self) -> None:
        if self._queue and self._sim.switching is None and not self._sim.running:
            self._sim.switch(self._queue[0].model)
