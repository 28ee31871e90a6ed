"""What those who wait for other models have paid for the resident's stay. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from roundhouse.residency.learned.durations import smoothed


@dataclass
class Account:
    """The account of one device; it begins anew when a model has come. Moments are clock seconds.

    ``ready_since``: since when the model that came last is there; ``contested_since``: since when others are waited
    for; ``owed``: what those have paid since, in waiter-seconds; ``visit_s``: for how long others are waited for until
    one leaves, in seconds, smoothed.
    """

    ready_since: float = 0.0
    contested_since: float | None = None
    owed: float = 0.0
    visit_s: float | None = None
    _counted: float = 0.0
    _waiting: float = 0.0

    def charge(self, waiting: float, now: float) -> None:
        """Add up what was paid since the last look; ``waiting``: the weight of all who wait for others from now on."""
        self.owed += self._waiting * max(0.0, now - self._counted)
        self._counted, self._waiting = now, waiting
        if not waiting:
            self.contested_since, self.owed = None, 0.0
        elif self.contested_since is None:
            self.contested_since = now

    def left(self, now: float) -> None:
        """A resident leaves for those who wait: mix in how long that took."""
        if self.contested_since is not None:
            self.visit_s = smoothed(self.visit_s, now - self.contested_since)

    def begin(self, now: float) -> None:
        """A model has come."""
        self.contested_since, self.ready_since, self.owed, self._counted, self._waiting = None, now, 0.0, now, 0.0
