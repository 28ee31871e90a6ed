"""The wall clock, set while processes run, as far as we and psutil see it: the kernel's own is left alone."""

from __future__ import annotations

import time

import psutil
import pytest


class Clock:
    """Of this process. The time of the boot moves with each step, as the kernel's does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset = 0.0
        boot_time, now = psutil._pslinux.boot_time, time.time
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot_time() + self._offset)
        monkeypatch.setattr(time, "time", lambda: now() + self._offset)

    def step(self, seconds: float) -> None:
        """Set it so much forward."""
        self._offset += seconds
