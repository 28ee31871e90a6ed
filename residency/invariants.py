"""What must hold after every fact. Pure; asserted in tests and, with ``ROUNDHOUSE_DEBUG=1``, in service."""

from __future__ import annotations

from math import inf

from roundhouse.residency.machine import Machine
from roundhouse.residency.states import State


class InvariantBroken(AssertionError):
    """The machine is in a state that it must never reach (a bug)."""


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvariantBroken(text)


def check(machine: Machine, now: float) -> None:
    """Raise InvariantBroken unless every invariant of DESIGN.md holds at ``now``."""
    for device, track in machine.tracks.items():
        mine = [e for e in machine.engines.values() if e.device == device]
        occupants = [e for e in mine if e.state.occupies]
        _require(len(occupants) <= 1, f"{len(occupants)} engines hold {device}: {occupants}")
        occupant = occupants[0] if occupants else None
        if occupant is None:
            _require(not any(e.wanted for e in mine) or machine.closing, f"{device} is empty though somebody waits")
            _require(track.drain_deadline == inf, f"{device} is empty but drains")
        elif occupant.state is State.STARTING:
            _require(occupant.wanted, f"nobody wants {occupant}")
        elif occupant.state is State.READY:
            settling = now < track.settle_until
            _require(not occupant.waiting, f"{occupant} is ready and lets somebody wait")
            others = any(e.wanted for e in mine if e is not occupant)
            _require(settling or bool(occupant.leases) or not others, f"{occupant} idles while another is wanted")
        elif occupant.state is State.DRAINING:
            _require(bool(occupant.leases), f"{occupant} is dry and still draining")
            _require(track.drain_deadline < inf, f"{occupant} drains without a deadline")
    for engine in machine.engines.values():
        _require(engine.state.serves or not engine.leases, f"{engine} has leases")
        _require(
            engine.state is not State.FAILED or not engine.wanted or now >= engine.failed_until,
            f"{engine} is waited for",
        )
        _require(engine.overdue <= set(engine.waiting), f"{engine} has overdue requests that do not wait")
        for ticket in (*engine.waiting, *engine.leases, *engine.switches):
            _require(machine._place.get(ticket) is engine, f"ticket {ticket} of {engine} is misplaced")
    held = sum(len(e.waiting) + len(e.leases) + len(e.switches) for e in machine.engines.values())
    _require(held == len(machine._place), f"{len(machine._place)} tickets are placed, {held} are held")
    _require(machine.waiting == sum(len(e.waiting) for e in machine.engines.values()), "the waiting are miscounted")
