"""What the driver says of the devices' memory, as the scheduler asks it. Where it says nothing, nothing is known."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence, Set

from roundhouse.launchers.gauge import Gauge, GaugeError, NotReleased, Reading, foreign, until_released

__all__ = ["GaugeError", "Memory", "NotReleased"]

log = logging.getLogger("roundhouse.memory")

LOOK_S = 2.0
"""How often to look at what other programs use: a game takes seconds to load, and a look costs a millisecond. The
driver has no event for it."""


class Memory:
    """All devices, through one ``gauge``; ``None`` where there is no card.

    ``beside`` is, in bytes, what the ledger says that everybody else has of the device: it counts only where the
    driver does not tell who has what.
    """

    def __init__(self, gauge: Gauge | None) -> None:
        self._gauge = gauge
        self._others: dict[str, Sequence[str]] = {}

    async def _read(self, device: str) -> Reading | None:
        return None if self._gauge is None else await asyncio.to_thread(self._gauge.read, device)

    async def held(self, device: str, pids: Set[int], beside: int) -> int | None:
        """Bytes of the device that the processes ``pids`` have now; ``None`` if that cannot be told."""
        try:
            reading = await self._read(device)
        except GaugeError as error:
            log.warning("event=card_not_read device=%s text=%r", device, str(error))
            return None
        return None if reading is None else reading.held(pids, beside)

    async def released(self, device: str, pids: Set[int], at_most: int | None, beside: int) -> int | None:
        """Return once ``pids`` have at most so many bytes of the device: how many they have.

        Raises:
            NotReleased: they have more, for longer than the driver can take.
            GaugeError: the driver does not answer.
        """
        if self._gauge is None or await self._read(device) is None:
            return None
        if at_most is None:
            return await self.held(device, pids, beside)
        return await until_released(self._gauge, device, pids, at_most, others=beside)

    async def foreign(self, device: str, pids: Set[int], booked: int) -> int | None:
        """Bytes of the device that others than ``pids``, which should have ``booked``, have now."""
        try:
            reading = await self._read(device)
        except GaugeError as error:
            log.warning("event=card_not_read device=%s text=%r", device, str(error))
            return None
        if reading is None:
            return None
        others = foreign(reading, pids, booked)
        self._others[device] = others.names
        return others.used

    def others(self, device: str) -> Sequence[str]:
        """The programs that were last seen to use the device, biggest first."""
        return self._others.get(device, ())

    async def look(self) -> bool:
        """Wait until it is time to look at the others again; whether there is anything to see."""
        if self._gauge is None:
            return False
        await asyncio.sleep(LOOK_S)
        return True
