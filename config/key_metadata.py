"""What a virtual key says to residency: the object ``roundhouse`` in the key's metadata. Anybody who may edit keys may
set it, in the admin UI too, so that what is written there is checked again at each use."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

SECTION = "roundhouse"


class Priority(StrEnum):
    """How much a request weighs against others; from the most to the least."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"

    @property
    def weight(self) -> float:
        """Its share, in its model's queue and when a model is chosen: four times as much from one to the next."""
        return {Priority.INTERACTIVE: 4.0, Priority.NORMAL: 1.0, Priority.BATCH: 0.25}[self]

    def lowered_to(self, other: Priority) -> Priority:
        """``other``, unless that is more than this."""
        return min(self, other, key=lambda it: it.weight)


class KeyMetadata(BaseModel):
    """``{"roundhouse": {...}}`` of a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority = Field(Priority.NORMAL, description="How much its requests weigh against others'.")
    may_switch: Literal["always", "never", "off-hours"] = Field(
        "always", description="Whether its requests may bring a model onto the device that is not there."
    )
    max_wait: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="The longest that a request of it waits, in seconds."
    )
    cache: Literal["own", "shared"] = Field(
        "own", description="Whose cached answers it gets and leaves: its own, or those of all keys that share."
    )
    cache_chance: bool = Field(
        False, description="Whether answers that are left to chance are cached, too: temperature above 0, no seed."
    )

    def as_metadata(self) -> dict[str, Any]:
        """The key's metadata for LiteLLM: what differs from the defaults."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return {SECTION: values} if values else {}


def parse(values: dict[str, Any]) -> KeyMetadata:
    """Check ``values``; ``None`` is what is not set. Raises ValueError with every fault in one line."""
    try:
        return KeyMetadata.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        raise ValueError("; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())) from error
