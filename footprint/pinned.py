"""RAM that a sleeper's weights take at level 1, as it is really allocated. Pure.

vLLM's sleep allocator copies every segment that torch's CUDA allocator asked for into a pinned buffer of its own
(``device_allocator/cumem.py``), and torch's pinned allocator rounds each buffer up to a power of two
(``CachingHostAllocator``). Weights of 65 MiB each take 128 MiB: up to twice the nominal size.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from roundhouse.footprint.headers import Tensor
from roundhouse.footprint.need import MIB

SMALL, SMALL_SEGMENT = 1 * MIB, 2 * MIB
MEDIUM, MEDIUM_SEGMENT = 10 * MIB, 20 * MIB
ROUND = 2 * MIB
"""torch's CUDA allocator: tensors up to 1 MiB share segments of 2 MiB, up to 10 MiB segments of 20 MiB; bigger ones
get one each, in steps of 2 MiB (``c10/cuda/CUDACachingAllocator``: kSmallSize, kMinLargeAlloc, kRoundLarge)."""

FUSED = (
    (re.compile(r"\b[qkv]_proj\b"), "qkv_proj"),
    (re.compile(r"\b(gate|up)_proj\b"), "gate_up_proj"),
    (re.compile(r"\bexperts\.\d+\.w?[13]\b"), "experts.gate_up_proj"),
    (re.compile(r"\bexperts\.\d+\."), "experts."),
)
"""vLLM keeps these as one tensor."""


def pinned_bytes(tensors: Iterable[Tensor]) -> int:
    """What the pinned copies of ``tensors`` take of RAM."""
    sizes: Counter[str] = Counter()
    for it in tensors:
        sizes[_fused(it.name)] += it.size
    small = sum(size for size in sizes.values() if size <= SMALL)
    medium = [size for size in sizes.values() if SMALL < size <= MEDIUM]
    big = sum(_power_of_two(-(-size // ROUND) * ROUND) for size in sizes.values() if size > MEDIUM)
    segments = -(-small // SMALL_SEGMENT) * SMALL_SEGMENT
    return big + segments + _segments(medium) * _power_of_two(MEDIUM_SEGMENT)


def _fused(name: str) -> str:
    for pattern, into in FUSED:
        name = pattern.sub(into, name)
    return name


def _segments(sizes: Iterable[int]) -> int:
    """How many medium segments ``sizes`` fill, one after the other."""
    count, free = 0, 0
    for size in sizes:
        if size > free:
            count, free = count + 1, MEDIUM_SEGMENT
        free -= size
    return count


def _power_of_two(size: int) -> int:
    return 1 << (size - 1).bit_length() if size > 0 else 0
