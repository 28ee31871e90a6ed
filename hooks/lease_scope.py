"""The lease scope of one HTTP exchange: the end at which nothing it took may be left.

The gateway opens a scope round each exchange; the hook enters every lease it takes, every stream that is
yet to be read, and a refusal so that the gateway can say it in OpenAI's shape.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from roundhouse.residency.client.leases import Lease
from roundhouse.residency.codes import Refused

log = logging.getLogger("roundhouse.scope")

CLOSE_S = 1.0
"""How long an unread stream may take to close: it only has to hang up on the engine."""


@dataclass(eq=False)
class LeaseScope:
    """What one exchange has taken, why it was refused, if it was, and the names that are like one that is unknown."""

    leases: list[Lease] = field(default_factory=list)
    streams: list[tuple[Lease, Any]] = field(default_factory=list)
    refused: Refused | None = None
    nearest: tuple[str, ...] = ()

    async def close(self) -> None:
        """Give back what is still held. What nobody can account for is counted: a hook has missed an ending.

        A stream that was never read is accounted for: its client left just when it began. It is closed, so that
        the engine stops, and its lease is given back.
        """
        for lease, stream in self.streams:
            if not lease.released:
                await _hang_up(stream)
                lease.release("stream never read")
        for lease in self.leases:
            if not lease.released:
                log.warning("event=backstop lease=%r", lease)
                lease.release("backstop", missed=True)


async def _hang_up(stream: Any) -> None:
    close = getattr(stream, "aclose", None)
    if close is None:
        return
    try:
        async with asyncio.timeout(CLOSE_S):
            await close()
    except Exception as error:
        log.warning("event=unread_stream_not_closed error=%r", error)


current: ContextVar[LeaseScope | None] = ContextVar("lease_scope", default=None)
"""The scope of the exchange that the present task works for."""
