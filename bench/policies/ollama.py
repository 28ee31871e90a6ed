"""Ollama (ollama/ollama, server/sched.go, 2026-09).

- ``getRunner``: a loaded model, also one that is just loading, is used at once, past the queue; its runner
  answers OLLAMA_NUM_PARALLEL requests at a time, the rest wait inside it.
- ``processPending`` takes one pending request at a time, strictly in order, and blocks everything behind it
  until that one is placed: the runner in its way is expired only once nobody uses it, and new requests for
  it still take the fast path. Requests for the new model further back are not pulled forward.
"""

from __future__ import annotations

from collections import deque

from roundhouse.bench.simulation import Request, Simulation


class Ollama:
    """The router; ``parallel`` is OLLAMA_NUM_PARALLEL."""

    def __init__(self, simulation: Simulation, parallel: int) -> None:
        self._sim = simulation
        self._parallel = parallel
        self._pending: deque[Request] = deque()
        self._runner: deque[Request] = deque()  # waits inside the loaded runner
        self._running = 0

    @property
    def _loaded(self) -> str | None:
        return self._sim.switching or self._sim.resident

    def asked(self, request: Request) -> None:
        """Use the loaded runner, or get in line."""
        if request.model == self._loaded:
            self._runner.append(request)
            self._run()
        else:
            self._pending.append(request)
            self._process()

    def ended(self, request: Request) -> None:
        """A slot of the runner is free."""
        self._running -= 1
        self._run()
        self._process()

    def left(self, request: Request) -> None:
        """Who gives up is taken out of the line."""
        (self._runner if request in self._runner else self._pending).remove(request)
        self._process()

    def ready(self, model: str) -> None:
        """The runner answers; the next pending request is looked at."""
        self._run()
        self._process()

    def _run(self) -> None:
        while self._runner and self._sim.switching is None and self._running < self._parallel:
            self._running += 1
            self._sim.submit(self._runner.popleft())

    def _process(self) -> None:
        while self._pending and self._sim.switching is None:
            if self._pending[0].model == self._sim.resident:
                self._runner.append(self._pending.popleft())
                self._run()
            elif self._running or self._runner:
                return
            else:
                request = self._pending.popleft()
                self._runner.append(request)
                self._sim.switch(request.model)
