"""A stand-in for NVML's bindings: one card, the emulated one of the file in ``FAKE_CARD``.

Put this folder on PYTHONPATH, and what asks the driver asks the fake card. ``FAKE_CARD_PIDS=no`` makes it a driver
that does not say who has how much, ``nobody`` one that lists nobody, a pid one that lists this process alone, and
``denied`` one that does not let us see its list. ``FAKE_CARD_LOST`` makes it one that has lost the card, and
``FAKE_CARD_INIT`` one that answers with this error at once; without ``FAKE_CARD`` there is no driver.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from card import Card

NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_NO_PERMISSION = 4
NVML_ERROR_NOT_FOUND = 6
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_INVALID_ARGUMENT = 2
UUID = "GPU-0f0f0f0f-0000-0000-0000-000000000000"
RESERVED = 400 * 2**20
"""What the driver keeps for itself: in the first version's figures it is used, in the second's apart."""

nvmlMemory_v2 = 0x02000028


class NVMLError(Exception):
    """What every call raises."""

    def __init__(self, value: int) -> None:
        self.value = value
        super().__init__(f"NVML error {value} (fake)")


def nvmlInit() -> None:
    if answer := os.environ.get("FAKE_CARD_INIT"):
        raise NVMLError(int(answer))
    if not os.environ.get("FAKE_CARD"):
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)


def nvmlShutdown() -> None:
    """Nothing is kept."""


def nvmlDeviceGetCount() -> int:
    return 1


def nvmlDeviceGetHandleByIndex(index: int) -> Card:
    if index != 0:
        raise NVMLError(NVML_ERROR_INVALID_ARGUMENT)
    return Card(os.environ["FAKE_CARD"])


def nvmlDeviceGetHandleByUUID(uuid: str) -> Card:
    if uuid != UUID:
        raise NVMLError(NVML_ERROR_NOT_FOUND)
    return nvmlDeviceGetHandleByIndex(0)


def nvmlDeviceGetName(card: Card) -> str:
    return "Fake card"


def nvmlDeviceGetUUID(card: Card) -> str:
    return UUID


def nvmlSystemGetDriverVersion() -> str:
    return "0.0 (fake)"


def nvmlSystemGetCudaDriverVersion_v2() -> int:
    return 13000


def nvmlDeviceGetMemoryInfo(card: Card, version: int | None = None) -> Any:
    if os.environ.get("FAKE_CARD_LOST"):
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    total, free = card.total, card.free
    if version is None:
        return SimpleNamespace(total=total + RESERVED, used=total - free + RESERVED, free=free)
    return SimpleNamespace(total=total + RESERVED, reserved=RESERVED, used=total - free, free=free)


def nvmlDeviceGetComputeRunningProcesses(card: Card) -> list[Any]:
    mode = os.environ.get("FAKE_CARD_PIDS", "all")
    if mode == "denied":
        raise NVMLError(NVML_ERROR_NO_PERMISSION)
    listed = {pid: size for pid, size in card.by_pid.items() if mode in ("all", "no", str(pid))}
    return [SimpleNamespace(pid=pid, usedGpuMemory=None if mode == "no" else size) for pid, size in listed.items()]


def nvmlDeviceGetGraphicsRunningProcesses(card: Card) -> list[Any]:
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)
