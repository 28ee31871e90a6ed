"""The device and the RAM that are planned for: asked for, written in the YAML, or those of this machine."""

from __future__ import annotations

import resource

from roundhouse.config.schema import DeviceSettings, ResidencySettings
from roundhouse.footprint.card import card_bytes, shown_bytes
from roundhouse.footprint.need import GIB
from roundhouse.plan.fit import Room
from roundhouse.plan.report import DevicePlan

DEFAULT_CARD = 16 * GIB
"""What is planned for where there is no card and none is named: the default set-up's."""


def devices(settings: ResidencySettings, asked: int | None, ram: int, assume: bool = False) -> list[DevicePlan]:
    """The devices whose memory is known: those of the YAML are the cards that CUDA shows, in their order.

    ``asked``: plan for a card of that size; ``assume``: for the default one.

    Raises:
        CardError: there is a card, and it does not answer.
    """
    budget = ram // 2 if settings.ram_budget is None else int(settings.ram_budget)
    result = []
    for number, it in enumerate(settings.devices):
        capacity, origin = _capacity(it, number, asked, assume)
        if capacity is not None:
            result.append(DevicePlan(it.id, Room(capacity, it.kept_free, budget), origin))
    return result


def _capacity(it: DeviceSettings, number: int, asked: int | None, assume: bool) -> tuple[int | None, str]:
    if asked is not None:
        return shown_bytes(asked), _shown(asked)
    if it.memory is not None:
        return int(it.memory), "residency.devices.memory"
    found = card_bytes(number)
    if found is not None:
        return found, "what the driver says"
    where = f"{_shown(DEFAULT_CARD)}, for there is none here; --device plans for another"
    return (shown_bytes(DEFAULT_CARD), where) if assume else (None, "")


def _shown(asked: int) -> str:
    size = f"{asked / GIB:g} GiB"
    return f"what CUDA shows of a {size} card" if shown_bytes(asked) != asked else "as asked"


def memlock_note(budget: int | None) -> str | None:
    """A line where this user may lock less memory than the YAML's RAM budget."""
    if budget is None:
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY or budget <= hard:
        return None
    return (
        f"residency.ram_budget: {budget / GIB:.1f} GiB is above what this user may lock, {hard / GIB:.2f} GiB "
        "(ulimit -l). The driver pins memory without it on most systems; where pinning fails, raise memlock in "
        "/etc/security/limits.conf or lower the budget"
    )
