"""The limits that all devices keep to: waits, drains, queues, and the RAM for sleepers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roundhouse.residency.machine import ledger
from roundhouse.residency.machine.engine import Engine


@dataclass
class Bounds:
    """The configured limits: seconds, and a number of requests.

    ``foresight``: whether models come before they are asked for. Without ``refuse_late`` those who are past their bound
    go on waiting: for comparisons of the same requests.
    """

    max_wait_s: float = 300.0
    drain_timeout_s: float = 900.0
    max_waiting: int = 1000
    max_waiting_per_key: int = 500
    refuse_late: bool = True
    foresight: bool = True


@dataclass
class Ram:
    """The RAM that sleepers' weights are pinned in, over all devices: its ``budget`` in bytes, and who pins."""

    budget: int | None = None
    engines: Sequence[Engine] = ()

    def pinned_beside(self, engine: Engine) -> int:
        """Bytes that engines other than this one have pinned: vLLM keeps them after waking, too."""
        return ledger.pinned(it.footprint for it in self.engines if it.pins and it is not engine)
