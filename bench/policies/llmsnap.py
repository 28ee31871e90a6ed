"""llmsnap (napmany/llmsnap, proxy/processgroup.go ``ProxyRequest``, 2026-09).

A mutex of the group is taken by every request in the order of arrival. For the loaded model it is given
back at once. For another one it is held over the drain, the swap, and the whole first request of the new
model: nothing is collated.
"""

from __future__ import annotations

from collections import deque

from roundhouse.bench.simulation import Request, Simulation


class Llmsnap:
    """The router."""

    def __init__(self, simulation: Simulation) -> None:
        self._sim = simulation
        self._line: deque[Request] = deque()
        self._holder: Request | None = None  # has the mutex: its model is brought on, or it is being answered

    def asked(self, request: Request) -> None:
        """Get in line for the mutex."""
        self._line.append(request)
        self._advance()

    def ended(self, request: Request) -> None:
        """The first request of a model gives the mutex back."""
        if request is self._holder:
            self._holder = None
        self._advance()

    def left(self, request: Request) -> None:
        """Who gives up leaves the line, or gives the mutex back."""
        if request is self._holder:
            self._holder = None
        else:
            self._line.remove(request)
        self._advance()

    def ready(self, model: str) -> None:
        """The holder is answered, and keeps the mutex meanwhile."""
        if self._holder is not None and self._holder.model == model:
            self._sim.submit(self._holder)
        self._advance()

    def _advance(self) -> None:
        if self._sim.switching is not None:
            return
        while self._holder is None and self._line:
            request = self._line.popleft()
            if request.model == self._sim.resident:
                self._sim.submit(request)
            else:
                self._holder = request
        holder = self._holder
        if holder is not None and holder.model != self._sim.resident and not self._sim.running:
            self._sim.switch(holder.model)
