"""Durations that were measured of one model. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

SMOOTHING = 0.5
"""Weight of the newest measured duration against those before: a changed machine shows after two or three."""


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
