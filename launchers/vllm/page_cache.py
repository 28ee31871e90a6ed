"""Weights into the page cache ahead of a start, so that the start reads memory and not the disk."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import psutil

SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".gguf"})
"""What weights are stored in."""

STEP_BYTES = 8 * 2**20
"""Asked for at once: the kernel queues so much in a moment, and a cancelled read ahead ends after it."""

SHARE = 0.5
"""How much of the memory that is available may become cache for it: the rest is for who works now."""


async def read_ahead(folder: Path) -> int:
    """Have the kernel read the weights in ``folder``, as far as memory allows; how many bytes were asked for.

    What is cached already costs next to nothing. Cancelled, it ends after the next step.
    """
    stop = threading.Event()
    try:
        return await asyncio.to_thread(_read_ahead, folder, stop)
    except asyncio.CancelledError:
        stop.set()
        raise


def _read_ahead(folder: Path, stop: threading.Event) -> int:
    budget = int(psutil.virtual_memory().available * SHARE)
    asked = 0
    for path in sorted(it for it in folder.iterdir() if it.suffix in SUFFIXES):
        with path.open("rb") as file:
            for at in range(0, os.fstat(file.fileno()).st_size, STEP_BYTES):
                if stop.is_set() or asked + STEP_BYTES > budget:
                    return asked
                os.posix_fadvise(file.fileno(), at, STEP_BYTES, os.POSIX_FADV_WILLNEED)
                asked += STEP_BYTES
    return asked
