"""What the machine knows of one device, what it has counted, and the limits it keeps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass
class Track:
    """One device: who was last resident, and the switch under way."""

    device: str
    resident: str | None = None
    came_from: str | None = None
    target: str | None = None
    prepared: str | None = None
    switching_since: float | None = None
    drain_deadline: float = inf
    settle_until: float = 0.0
    gate: float = inf
    reason: str = ""


@dataclass
class Counters:
    """What has happened since this process began; every name is a public metric."""

    switches: int = 0
    starts: int = 0
    stops: int = 0
    granted: int = 0
    refused: int = 0
    gone_waiting: int = 0
    failures: int = 0
    crashes: int = 0
    forced_drains: int = 0


@dataclass
class Bounds:
    """The configured limits: seconds, and a number of requests."""

    max_wait_s: float = 300.0
    drain_timeout_s: float = 900.0
    max_waiting: int = 1000
