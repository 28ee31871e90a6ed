"""What the answers of NVIDIA's driver mean that are none: no driver, no card, or one that does not answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roundhouse.config.wsl import in_wsl

NO_PERMISSION, NOT_LOADED, LIBRARY_NOT_FOUND, FUNCTION_NOT_FOUND = 4, 9, 12, 13
LOST, RESET_REQUIRED, MISMATCH = 15, 16, 18
"""Answers of NVML (nvml.h, nvmlReturn_t)."""

NO_SUCH_CARD = (2, 6)
"""Those to a number, or to a UUID, that is no card's."""

NOT_TOLD = (NO_PERMISSION, FUNCTION_NOT_FOUND)
"""Those to a question that this user may not ask, or this driver does not know."""

REMEDIES = {
    NO_PERMISSION: "this user may not use it: see 'ls -l /dev/nvidia*'",
    NOT_LOADED: "its kernel module is not loaded: 'sudo modprobe nvidia'",
    LOST: "the card has fallen off the bus: turn the machine off and on",
    RESET_REQUIRED: "the card has to be reset: reboot",
    MISMATCH: "it was updated, and the kernel still has the old one: reboot",
}
OTHERWISE = "see what 'nvidia-smi' says"
ON_WSL = "type 'wsl --shutdown' in Windows"
"""There the driver is Windows', and nothing can be loaded or reset from within."""

PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAY = "0x10de", "0x03"
"""The vendor, and the beginning of the class; other devices of this vendor are a card's sound, or a board's."""


def absent(error: Any) -> bool:
    """Whether NVML's ``error`` means that there is no driver. A library without a card came with other packages."""
    return error.value == LIBRARY_NOT_FOUND or (error.value == NOT_LOADED and not _card_here())


def silent(error: Any, device: str | None = None) -> str:
    """What is said of a driver that answers with NVML's ``error``, with the remedy."""
    where = f" for {device}" if device else ""
    return (
        f"the driver does not answer{where} ({error}): {ON_WSL if in_wsl() else REMEDIES.get(error.value, OTHERWISE)}"
    )


def _card_here() -> bool:
    """Whether there is a card; on WSL2, where it is on no bus, there may be one."""
    found = (path.parent for path in PCI.glob("*/vendor") if path.read_text().strip() == NVIDIA)
    return in_wsl() or any((device / "class").read_text().startswith(DISPLAY) for device in found)
