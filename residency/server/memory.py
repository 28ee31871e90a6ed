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
        self._silent: set[str] = set()

    def total(self, device: str) -> int | None:
        """How much memory the device has for engines; ``None`` if that cannot be told. Blocks for some milliseconds."""
        if self._gauge is None:
            return None
        try:
            return self._gauge.total(device)
        except GaugeError as error:
            self._say(device, error)
            return None

    async def _read(self, device: str) -> Reading | None:
        """Raises GaugeError, which has been said then."""
        if self._gauge is None:
            return None
        try:
            reading = await asyncio.to_thread(self._gauge.read, device)
        except GaugeError as error:
            self._say(device, error)
            raise
        self._say(device, None)
        return reading

    def _say(self, device: str, error: GaugeError | None) -> None:
        """Say once that a driver has stopped to answer, and once that it answers again: it is asked every LOOK_S."""
        if error is not None and device not in self._silent:
            self._silent.add(device)
            log.warning("event=card_not_read device=%s text=%r", device, str(error))
        elif error is None and device in self._silent:
            self._silent.discard(device)
            log.info("event=card_read_again device=%s", device)

    async def held(self, device: str, pids: Set[int], beside: int) -> int | None:
        """Bytes of the device that the processes ``pids`` have now; ``None`` if that cannot be told."""
        try:
            reading = await self._read(device)
        except GaugeError:
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
        try:
            return await until_released(self._gauge, device, pids, at_most, others=beside)
        except GaugeError as error:
            self._say(device, error)
            raise

    async def foreign(self, device: str, pids: Set[int], booked: int) -> int | None:
        """Bytes of the device that others than ``pids``, which should have ``booked``, have now."""
        try:
            reading = await self._read(device)
        except GaugeError:
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
