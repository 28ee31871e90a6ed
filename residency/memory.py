"""What the driver says of the devices' memory, as the scheduler asks it. Where it says nothing, nothing is known."""

from __future__ import annotations

import asyncio
from collections.abc import Set

from roundhouse.launchers.gauge import Gauge, NotReleased, Reading, until_released

LOOK_S = 2.0
"""How often to look at what other programs use: a game takes seconds to load, and a look costs a millisecond. The
driver has no event for it."""

__all__ = ["Memory", "NotReleased"]


class Memory:
    """All devices, through one ``gauge``; ``None`` where there is no card."""

    def __init__(self, gauge: Gauge | None) -> None:
        self._gauge = gauge

    async def _read(self, device: str) -> Reading | None:
        return None if self._gauge is None else await asyncio.to_thread(self._gauge.read, device)

    async def held(self, device: str, pids: Set[int]) -> int | None:
        """Bytes of the device that the processes ``pids`` have now."""
        reading = await self._read(device)
        return None if reading is None else sum(reading.by_pid.get(pid, 0) for pid in pids)

    async def foreign(self, device: str, pids: Set[int]) -> int | None:
        """Bytes of the device that others than ``pids`` have now."""
        reading = await self._read(device)
        return None if reading is None else max(0, reading.used - sum(reading.by_pid.get(pid, 0) for pid in pids))

    async def released(self, device: str, pids: Set[int], at_most: int | None) -> int | None:
        """Return once ``pids`` have at most so many bytes of the device: how many they have.

        Raises:
            NotReleased: they have more, for longer than the driver can take.
        """
        if self._gauge is None or await self._read(device) is None:
            return None
        if at_most is None:
            return await self.held(device, pids)
        return await until_released(self._gauge, device, pids, at_most)

    async def look(self) -> bool:
        """Wait until it is time to look at the others again; whether there is anything to see."""
        if self._gauge is None:
            return False
        await asyncio.sleep(LOOK_S)
        return True
