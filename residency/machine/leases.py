"""Who is being answered by one engine, and until when that is likely to last. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from roundhouse.residency.learned.durations import USUAL, Answer, smoothed
from roundhouse.residency.machine.facts import Ticket

LATEST = 16
"""When the lease that was expected to end last ends, so many of the latest are searched for its successor."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A request that is being answered: whose, since when (clock seconds), and how long the answer takes."""

    caller: str
    since: float
    answer: Answer = USUAL


@dataclass
class Leases:
    """The requests that are being answered; ``service_s``: how long one takes, in seconds, smoothed."""

    held: dict[Ticket, Lease] = field(default_factory=dict)
    service_s: float | None = None
    longest: Lease | None = None  # the one that is likely over last

    def admit(self, ticket: Ticket, lease: Lease) -> None:
        """Let a request in."""
        self.held[ticket] = lease
        if self.longest is None or self.ends_at(lease) >= self.ends_at(self.longest):
            self.longest = lease

    def release(self, ticket: Ticket) -> Lease:
        """A request has been answered, or was given up."""
        lease = self.held.pop(ticket)
        if lease is self.longest:
            latest = islice(reversed(self.held.values()), LATEST)
            self.longest = max(latest, key=self.ends_at, default=None)
        return lease

    def void(self) -> None:
        """All answers are cut."""
        self.held.clear()
        self.longest = None

    def served(self, seconds: float) -> None:
        """Mix how long a request took into ``service_s``."""
        self.service_s = smoothed(self.service_s, seconds)

    def ends_at(self, lease: Lease) -> float:
        """When an answer that is being given is likely over (clock seconds)."""
        return lease.since + lease.answer.seconds(self.service_s or 0.0)

    def drain_s(self, now: float) -> float:
        """How long those who are being answered will take yet, if their answers take as long as they usually do."""
        return 0.0 if self.longest is None else max(0.0, self.ends_at(self.longest) - now)
