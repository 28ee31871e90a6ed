"""The switch under way on a device, as far as it has come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Switch:
    """Which model the device is being cleared for.

    ``target``: that model, once it is decided; ``since``: when the first step was ordered (clock seconds);
    ``came_from``: who was the first to leave, kept until the next switch; ``prepared``: whose start is being prepared;
    ``left``: who made way, and does not come back at once; ``brought``: the model that was brought on last.
    """

    target: str | None = None
    since: float | None = None
    came_from: str | None = None
    prepared: str | None = None
    left: set[str] = field(default_factory=set)
    brought: str | None = None

    def begin(self, target: str, came_from: str | None, now: float) -> None:
        """A step is taken for ``target``; the first one counts as the beginning."""
        if self.since is None:
            self.since, self.came_from = now, came_from
        self.target = target

    def stay(self) -> None:
        """The resident stays for the moment: nothing is under way."""
        self.target = self.since = None

    def arrived(self) -> None:
        """The model has come."""
        self.stay()
        self.left.clear()

    def called_off(self) -> None:
        """Nobody waits any more."""
        self.arrived()
        self.prepared = None

    def bring(self, model: str) -> bool:
        """The model is brought on now; whether it is another than the last one."""
        changed = self.brought != model
        self.brought, self.prepared = model, None
        return changed
