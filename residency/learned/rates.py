"""How often something happens of late, by model. Pure."""

from __future__ import annotations

from math import exp

RATE_S = 60.0
"""Time constant, in seconds: half or twice as much moves the mean wait by 0.1 %."""


class Rates:
    """Events a second, each fading with RATE_S."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, float]] = {}  # by model: a second, as of when

    def of(self, model: str, now: float) -> float:
        """How many a second, of late."""
        rate, at = self._known.get(model, (0.0, now))
        return rate * exp(-max(0.0, now - at) / RATE_S)

    def count(self, model: str, now: float) -> None:
        """One more."""
        self._known[model] = (self.of(model, now) + 1 / RATE_S, now)
