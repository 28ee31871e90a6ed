"""The lease scope of one HTTP exchange: the backstop that gives back what the hooks did not.

The gateway opens a scope round each exchange; the hook enters every lease it takes, and a refusal so
that the gateway can say it in OpenAI's shape.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from roundhouse.residency.client import Lease, Refused


@dataclass
class LeaseScope:
    """What one exchange has taken, and why it was refused, if it was."""

    leases: list[Lease] = field(default_factory=list)
    refused: Refused | None = None

    def close(self) -> int:
        """Give back what is still held; how many leases that was: 0 unless a hook missed an ending."""
        left = [lease for lease in self.leases if not lease.released]
        for lease in left:
            lease.release("backstop")
        return len(left)


current: ContextVar[LeaseScope | None] = ContextVar("lease_scope", default=None)
"""The scope of the exchange that the present task works for."""
