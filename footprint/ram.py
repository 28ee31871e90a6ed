"""How much RAM this machine has for us."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def machine_ram(cgroup: Path = CGROUP) -> int:
    """Bytes of RAM: the machine's, or what the control group that we run in may use, if that is less."""
    limits = [int(psutil.virtual_memory().total)]
    for folder in _groups(cgroup):
        try:
            text = (folder / "memory.max").read_text().strip()
        except OSError:
            continue  # version 1, no memory controller, or the root group
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def _groups(root: Path) -> list[Path]:
    """Our control group (version 2) and those that it is in."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/").strip("/")
    parts = path.split("/") if path else []
    return [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
