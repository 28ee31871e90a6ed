"""What the answers of NVIDIA's driver mean that are none: no driver, no card, or one that does not answer."""

from __future__ import annotations

from typing import Any

from roundhouse.config.wsl import in_wsl
from roundhouse.deploy.setup import card

LIBRARY_NOT_FOUND = 12
"""What NVML's bindings answer where its library is not. All others are NVML's own (nvml.h, nvmlReturn_t)."""

NO_SUCH_CARD = (2, 6)
"""The answers to a number, or to a UUID, that is no card's."""

NOT_TOLD = (card.NO_PERMISSION, card.FUNCTION_NOT_FOUND)
"""Those to a question that this user may not ask, or this driver does not know."""


def absent(error: Any) -> bool:
    """Whether NVML's ``error`` means that there is no driver. A library without a card came with other packages."""
    alone = error.value == card.NOT_LOADED and not card.on_bus() and not in_wsl()  # on WSL2 a card is on no bus
    return error.value == LIBRARY_NOT_FOUND or alone


def silent(error: Any, device: str | None = None) -> str:
    """What is said of a driver that answers with NVML's ``error``, with the remedy."""
    where = f" for {device}" if device else ""
    remedy = card.ON_WSL if in_wsl() else card.REMEDIES.get(error.value, card.OTHERWISE)
    return f"the driver does not answer{where} ({error}): {remedy}"
