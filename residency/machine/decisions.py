"""What was decided over a device, and why: for the log, the events and the metrics. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from roundhouse.residency.machine.policy import Decision, Kind


@dataclass
class DecisionLog:
    """The reasons on one device. ``counts``: how often each kind was decided; a decision that goes on counts once.

    ``kind``: of the decision that was noted last; ``None`` before the first.
    """

    reason: str = ""
    kind: Kind | None = None
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(Kind, 0))
    _last: Decision | None = None

    def note(self, decision: Decision) -> None:
        """Take in what the policy said. A drain keeps the reason that started it."""
        if decision.kind is Kind.DRAINING and self._last is not None:
            return
        self.reason, self.kind = decision.reason, decision.kind
        if self._last is None or (self._last.kind, self._last.target) != (decision.kind, decision.target):
            self.counts[decision.kind] += 1
        self._last = decision

    def wanted(self, model: str) -> None:
        """Note why ``model`` is brought on: the reason why the resident leaves, or simply that the model is wanted.

        A resident that was to stay may be gone by now, after a crash or an unload, or may leave for another model.
        """
        it = self._last
        self.reason = f"{model} is wanted" if it is None or it.stay or it.target != model else it.reason

    def over(self) -> None:
        """Who was to come is there, or nobody waits any more: the next decision is a new one."""
        self._last = None
