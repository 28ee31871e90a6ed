"""What engines compile when they start, and keep: their caches, kept within a bound.

A cache spares a minute of a start, and each model, flag and vLLM version adds to it for ever. What was used longest
ago goes first; whoever needs it again compiles it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LIMIT_BYTES = 10 * 2**30
"""A model's share is some hundred megabytes."""

RECENT_S = 2 * 86400.0
"""What was used since stays whatever its size: an engine may be reading it. Linux notes a use once a day at most."""

SHELVES = (
    "vllm/torch_compile_cache",
    "vllm/torch_compile_cache/torch_aot_compile",
    "inductor",
    "triton",
    "humming",
    "tilelang",
)
"""The folders whose entries are each of use without the others."""


class Entry(NamedTuple):
    """Something that was compiled: when it was last used (seconds since the epoch), and its bytes."""

    used: float
    size: int
    path: Path


def prune(cache: Path, now: float, limit: int = LIMIT_BYTES) -> int:
    """Bring ``cache`` under ``limit`` bytes, as far as RECENT_S allows; the bytes that were freed."""
    entries = sorted(_entry(path) for path in _paths(cache))
    total, freed = sum(entry.size for entry in entries), 0
    for entry in entries:
        if total - freed <= limit or now - entry.used < RECENT_S:
            break
        shutil.rmtree(entry.path, ignore_errors=True)
        freed += entry.size
    return freed


def _paths(cache: Path) -> Iterator[Path]:
    inner = {cache / shelf for shelf in SHELVES}
    for shelf in SHELVES:
        with suppress(OSError):
            yield from (path for path in (cache / shelf).iterdir() if path.is_dir() and path not in inner)


def _entry(path: Path) -> Entry:
    used, size = 0.0, 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):  # an engine may be tidying, too
            stat = file.lstat()
            used = max(used, stat.st_mtime, stat.st_atime if file.is_file() else 0.0)
            size += stat.st_blocks * 512
    return Entry(used, size, path)
