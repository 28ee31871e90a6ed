"""How much memory a card has for programs: what CUDA shows, not what the box says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from roundhouse.footprint.need import GIB

SHOWN = 15.48 / 16
"""What CUDA shows of a card's nominal memory: 15.48 GiB of an RTX 5080's 16 (vLLM issue 14452); the driver keeps the
rest. Bigger cards keep a smaller part, so for them this is on the safe side."""

PCI, DXG = Path("/sys/bus/pci/devices"), Path("/dev/dxg")
"""Where the kernel lists what is plugged in, and WSL2's way to a card, which is on no bus there."""

NVIDIA, DISPLAY = "0x10de", "0x03"
"""NVIDIA's number as a vendor, and the class of what can be a graphics card."""


class CardError(Exception):
    """There is a card, or a driver for one, and it does not answer. The text says what it said, and what to do."""


def shown_bytes(asked: int) -> int:
    """What a card of the size ``asked`` has for programs, in bytes.

    A whole number of GiB is the size by which a card is sold; anything else is taken as it is.
    """
    return int(asked * SHOWN) if asked % GIB == 0 else asked


@cache
def card_bytes(number: int = 0) -> int | None:
    """What the NVIDIA card has for programs that CUDA shows as ``number``, in bytes.

    ``None`` if there is none, or if it has no memory of its own.

    ``CUDA_VISIBLE_DEVICES`` of our environment picks and orders the cards, as it does for engines.

    Raises:
        CardError: there is one, and the driver does not answer.
    """
    import pynvml  # type: ignore[import-untyped]

    with _driver(pynvml) as there:
        if not there:
            return None
        cards = visible_cards(pynvml)
        if number >= len(cards):
            return None
        try:
            memory = memory_of(pynvml, cards[number])
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
                return None
            raise
        # What the driver keeps for itself is no program's. The first version counts it as used, and does not say it.
        reserved = int(getattr(memory, "reserved", 0))
        return int(memory.total) - reserved


@contextmanager
def _driver(nvml: Any) -> Iterator[bool]:
    """The driver's library at work; ``False`` where there is no driver. Raises CardError for what it refuses."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if not _absent(nvml, error):
            raise _card_error(error) from error
        yield False
        return
    try:
        yield True
    except nvml.NVMLError as error:
        raise _card_error(error) from error
    finally:
        nvml.nvmlShutdown()


def _absent(nvml: Any, error: Any) -> bool:
    """Whether ``error`` says that there is nothing to ask, and nothing here is a card."""
    if error.value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return True
    return bool(error.value == nvml.NVML_ERROR_DRIVER_NOT_LOADED) and not DXG.exists() and not _on_the_bus()


def _on_the_bus() -> bool:
    """Whether a graphics card of NVIDIA's is plugged in, whoever drives it."""
    for folder in PCI.glob("*"):
        try:
            vendor, kind = ((folder / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            return True
    return False


def _card_error(error: Exception) -> CardError:
    remedy = "see 'nvidia-smi'; after an update of the driver, restart the machine"
    said = str(error).rstrip(".")
    return CardError(f"the NVIDIA driver does not answer ({said}): {remedy}")


def visible_cards(nvml: Any) -> list[Any]:
    """The handles of the cards that CUDA shows, in its order. As for CUDA, the first one that is not there ends it.

    Raises:
        NVMLError: the driver does not answer.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    count = nvml.nvmlDeviceGetCount()
    handles = []
    for word in (part.strip() for part in chosen.split(",")):
        handle = _by_number(nvml, int(word), count) if word.isdigit() else _by_uuid(nvml, word, count)
        if handle is None:
            break
        handles.append(handle)
    return handles


def _by_number(nvml: Any, number: int, count: int) -> Any | None:
    return nvml.nvmlDeviceGetHandleByIndex(number) if number < count else None


def _by_uuid(nvml: Any, word: str, count: int) -> Any | None:
    """The card of a UUID, or of the beginning of one, as CUDA allows; ``None``: there is none."""
    if word.startswith("GPU-"):
        for number in range(count):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            uuid = nvml.nvmlDeviceGetUUID(handle)
            if (uuid.decode() if isinstance(uuid, bytes) else uuid).startswith(word):  # older bindings answer in bytes
                return handle
    try:
        return nvml.nvmlDeviceGetHandleByUUID(word)  # a part of a card (MIG), or none
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT):
            return None
        raise


def memory_of(nvml: Any, handle: Any) -> Any:
    """A card's memory as the driver says it, with ``reserved`` where it can. Raises NVMLError."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:  # older drivers, MIG: what the driver keeps is in ``used``
        return nvml.nvmlDeviceGetMemoryInfo(handle)
