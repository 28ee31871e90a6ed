"""What one engine needs of a device and of RAM. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one engine, in bytes.

    ``awake``: on the device while it answers, its context and graphs included. ``residual``: what is left on the
    device while it sleeps. ``pinned``: RAM that its weights take at sleep level 1, as allocated; torch keeps it after
    waking, so it counts for as long as the process lives. ``estimated``: computed from files, not measured.
    """

    awake: int
    residual: int = 0
    pinned: int = 0
    estimated: bool = True
