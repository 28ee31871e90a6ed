"""What a run has seen: of each model, and of the card as a whole. Values alone; ``record`` writes them down."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from roundhouse.footprint.need import Footprint
from tests.gpu.ram import Ram


@dataclass
class Seen:
    """What was measured of one model, or of one with other flags: seconds by phase, and bytes.

    ``turns`` is how often it was to come onto the card: a run that broke off has seen less.
    """

    model: str
    expected: Footprint | None
    turns: int = 0
    phases: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    starts: list[float] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    """The most that it had of the card during each start."""

    awake: list[int] = field(default_factory=list)
    asleep: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    lives: list[list[str]] = field(default_factory=list)
    """What each process of it answered, from its start on: two may round differently, one may not."""

    sampled: list[str] = field(default_factory=list)
    """What each process of it answered to a request with top_k and top_p."""

    ways: list[tuple[str, str]] = field(default_factory=list)
    """How each start should go and went: ``host`` (forked from the engine host) or ``stock``."""

    ram: defaultdict[str, list[Ram]] = field(default_factory=lambda: defaultdict(list))
    told_apart: bool | None = None
    """Whether the driver said of each process what it holds."""

    listed: str = ""
    """What the driver's lists of processes had while it was awake, in words."""

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        """Note how long the block takes, if it ends well."""
        began = time.monotonic()
        yield
        self.phases[phase].append(time.monotonic() - began)


@dataclass
class Run:
    """All of one run: the models that took turns, one of them with other flags, and remarks in words."""

    form: str
    models: list[Seen] = field(default_factory=list)
    variants: list[Seen] = field(default_factory=list)
    remarks: dict[str, str] = field(default_factory=dict)

    @property
    def all(self) -> list[Seen]:
        """Models and variants."""
        return [*self.models, *self.variants]
