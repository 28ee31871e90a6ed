"""How much memory a card has for programs: what CUDA shows, not what the box says."""

from __future__ import annotations

from functools import cache

from roundhouse.footprint.need import GIB

SHOWN = 15.48 / 16
"""What CUDA shows of a card's nominal memory: 15.48 GiB of an RTX 5080's 16 (vLLM issue 14452); the driver keeps the
rest. Bigger cards keep a smaller part, so for them this is on the safe side."""


def shown_bytes(asked: int) -> int:
    """What a card of the size ``asked`` has for programs, in bytes.

    A whole number of GiB is the size by which a card is sold; anything else is taken as it is.
    """
    return int(asked * SHOWN) if asked % GIB == 0 else asked


@cache
def card_bytes(index: int = 0) -> int | None:
    """What the NVIDIA card number ``index`` of this machine has for programs; ``None`` if there is none."""
    import pynvml  # type: ignore[import-untyped]

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
        return int(memory.total - memory.reserved)  # what the driver keeps for itself is no program's
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
