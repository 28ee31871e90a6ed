"""When a process was started, told so that setting the clock does not change it.

A pid is used again, but not together with its birth. The wall-clock time of a start (psutil's ``create_time``) will not
do: it is the time of the boot plus what had passed by then, and the time of the boot moves whenever the clock is set:
by the first answer of a time server, by a person, by WSL2 after its host has slept. So a birth is the kernel's own
count, and which boot it counts from.

Nothing matches by accident: after a reboot ticks and pid may repeat, but not the boot's id; in a container that was
restarted pids and the id repeat, but not the ticks. A time namespace shifts the ticks of all processes alike for who
looks from inside it, and by the same amount for as long as it exists: nothing changes there. Seen from two of them one
process has two births; then it is taken for a stranger, and strangers are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

ROUNDING_TICKS = 5
"""By how much a start by the wall clock may be off, as versions before this one wrote it: two roundings, and room."""


@dataclass(frozen=True, slots=True)
class Birth:
    """When a process was started: the id of the boot, and ticks of the kernel (10 ms) since then."""

    boot: str
    ticks: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The birth of the process that has ``pid`` now, a zombie included. Raises ProcessLookupError."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except (FileNotFoundError, PermissionError):  # the latter where /proc hides the processes of others
            raise ProcessLookupError(f"no process {pid}") from None
        after_name = stat.rpartition(b")")[2]  # a name may hold spaces and parentheses
        return cls(boot_id(), int(after_name.split()[22 - 3]))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """The birth in a record (JSON) of a process. Raises KeyError, TypeError or ValueError if it has none.

        Versions before this one wrote seconds since the epoch; they hold as long as the clock is not set.
        """
        if "born" in document:
            return cls(str(document["born"]["boot"]), int(document["born"]["ticks"]))
        return cls._by_clock(int(document["pid"]), float(document["created"]))

    @classmethod
    def _by_clock(cls, pid: int, created: float) -> Self:
        """What was started at ``created`` (seconds since the epoch), to the tick if it is what has ``pid`` now."""
        ticks = round((created - psutil.boot_time()) * TICKS_PER_S)
        with suppress(ProcessLookupError):
            it = cls.of(pid)
            if abs(it.ticks - ticks) <= ROUNDING_TICKS:
                return it
        return cls(boot_id(), ticks - ROUNDING_TICKS)


@cache
def boot_id() -> str:
    """The id of this boot, as random as a UUID; empty where a sandbox has none: there pid and ticks have to do."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
