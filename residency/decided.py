"""What was decided over a device, and why: for the log, the events and the metrics. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from roundhouse.residency.policy import Decision, Kind


@dataclass
class Decided:
    """The reasons on one device. ``counts``: how often each kind was decided; a decision that goes on counts once."""

    reason: str = ""
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    _last: tuple[Kind, str] | None = None

    def note(self, decision: Decision) -> None:
        """Take in what the policy said. While a device drains the reason is the one for which it does."""
        if decision.kind is Kind.DRAINING and self._last is not None:
            return
        self.reason = decision.reason
        if self._last != (decision.kind, decision.target):
            self._last = decision.kind, decision.target
            self.counts[decision.kind] += 1

    def wanted(self, model: str) -> None:
        """Nobody has to leave for it."""
        if self._last is None:
            self.reason = f"{model} is wanted"

    def over(self) -> None:
        """Who was to come is there, or nobody waits any more: the next decision is a new one."""
        self._last = None
