"""Whether there are virtual keys: with them the stack has a database, without them the master key alone."""

from __future__ import annotations

import os

SWITCH = "ROUNDHOUSE_KEYS"


def enabled() -> bool:
    """``ROUNDHOUSE_KEYS``: on by default.

    Raises:
        ValueError: it is neither on nor off.
    """
    value = os.environ.get(SWITCH) or "on"
    if value not in ("on", "off"):
        raise ValueError(f"{SWITCH} is {value!r}: it must be on or off")
    return value == "on"


def own_database() -> bool:
    """Whether the database is one that we run: there are keys, and no ``DATABASE_URL`` names another."""
    return enabled() and not os.environ.get("DATABASE_URL")
