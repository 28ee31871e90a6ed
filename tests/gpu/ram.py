"""RAM as the kernel counts it: of an engine's processes, and of the machine. Pinned RAM shows in more than one place.

Which one depends on the driver: pages that it pins for a process are shared memory of that process (``RssShmem``) on
bare Linux, locked or unevictable pages elsewhere; that less is available is true everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ram:
    """Bytes. The first four are sums over processes, the others the machine's, all programs included."""

    anonymous: int
    shared: int
    locked: int
    pinned: int
    machine_locked: int
    machine_unevictable: int
    machine_available: int


def read(pids: Collection[int]) -> Ram:
    """What processes ``pids`` have now; one that has ended has nothing."""
    own = [_sizes(Path(f"/proc/{pid}/status")) for pid in pids]
    machine = _sizes(Path("/proc/meminfo"))
    return Ram(
        *(sum(it.get(name, 0) for it in own) for name in ("RssAnon", "RssShmem", "VmLck", "VmPin")),
        *(machine.get(name, 0) for name in ("Mlocked", "Unevictable", "MemAvailable")),
    )


def _sizes(path: Path) -> dict[str, int]:
    """The lines ``Name: number kB`` of a file of the kernel's, in bytes."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {name: int(number) * 1024 for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
