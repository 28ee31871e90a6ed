"""A wall clock that can be set while a process runs: put this folder on its PYTHONPATH.

The file that ``FAKE_CLOCK`` names says by how many seconds the clock was set. The time of the boot moves with it,
as the kernel's does. Only Python sees this clock, and only where it asks ``time.time`` or psutil.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

_FILE = Path(os.environ["FAKE_CLOCK"])
_boot_time, _now = psutil._pslinux.boot_time, time.time


def _offset() -> float:
    return float(_FILE.read_text())


psutil._pslinux.boot_time = lambda: _boot_time() + _offset()
time.time = lambda: _now() + _offset()
