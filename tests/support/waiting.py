"""Wait for a condition with a deadline, never for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

POLL_S = 0.02


def wait_for(condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """Return the first true value of ``condition``; fail after ``timeout`` seconds with ``what`` in the text."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not: {what}")
        time.sleep(POLL_S)


async def until(condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """Like ``wait_for``, leaving the event loop free meanwhile; ``condition`` runs in a thread."""
    return await asyncio.to_thread(wait_for, condition, what, timeout)


def gone(it: psutil.Process | int) -> bool:
    """Whether a process, or whatever has a pid now, runs no more; a zombie does not run."""
    try:
        process = psutil.Process(it) if isinstance(it, int) else it
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the two questions
        return True
