"""RAM that a sleeper's weights take at level 1, as it is really allocated. Pure.

vLLM's sleep allocator copies every segment that torch's CUDA allocator asked for into a pinned buffer of its own
(``device_allocator/cumem.py``), and torch's pinned allocator rounds each buffer up to a power of two
(``CachingHostAllocator``). Weights of 65 MiB each take 128 MiB: up to twice the nominal size.

Where pinning is *exact*, torch is told to round and to keep only buffers of up to 1 MiB
(``PYTORCH_ALLOC_CONF=pinned_max_round_threshold_mb:1,pinned_max_cached_size_mb:1``): bigger ones take what they need,
and go back to the system on waking. Both settings belong together. torch 2.13 looks for a buffer to use again by its
power of two alone, so that one that is kept unrounded is handed out for more than it holds (pytorch pull request
192722).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from roundhouse.footprint.headers import Tensor
from roundhouse.footprint.need import MIB
from roundhouse.footprint.weights import fused

SMALL, SMALL_SEGMENT = 1 * MIB, 2 * MIB
MEDIUM, MEDIUM_SEGMENT = 10 * MIB, 20 * MIB
ROUND = 2 * MIB
"""torch's CUDA allocator: tensors up to 1 MiB share segments of 2 MiB, up to 10 MiB segments of 20 MiB; bigger ones
get one each, in steps of 2 MiB (``c10/cuda/CUDACachingAllocator``: kSmallSize, kMinLargeAlloc, kRoundLarge)."""

ROUNDED_MAX = 1 * MIB
"""The biggest buffer that is rounded up where pinning is exact."""


def pinned_bytes(tensors: Iterable[Tensor], exact: bool = False) -> int:
    """What the pinned copies of ``tensors`` take of RAM; ``exact``: torch does not round big ones up."""
    sizes: Counter[str] = Counter()
    for it in tensors:
        sizes[fused(it.name)] += it.size
    small = sum(size for size in sizes.values() if size <= SMALL)
    medium = [size for size in sizes.values() if SMALL < size <= MEDIUM]
    buffers = [-(-size // ROUND) * ROUND for size in sizes.values() if size > MEDIUM]
    buffers += [SMALL_SEGMENT] * -(-small // SMALL_SEGMENT) + [MEDIUM_SEGMENT] * _segments(medium)
    return sum(_allocated(size, exact) for size in buffers)


def _segments(sizes: Iterable[int]) -> int:
    """How many medium segments ``sizes`` fill, one after the other."""
    count, free = 0, 0
    for size in sizes:
        if size > free:
            count, free = count + 1, MEDIUM_SEGMENT
        free -= size
    return count


def _allocated(size: int, exact: bool) -> int:
    """What torch takes for a buffer of ``size`` bytes."""
    return size if exact and size > ROUNDED_MAX else 1 << (size - 1).bit_length()
