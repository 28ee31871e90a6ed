"""What must hold after every fact. Pure; asserted in tests and, with ``ROUNDHOUSE_DEBUG=1``, in service."""

from __future__ import annotations

from math import inf

from roundhouse.residency.machine.device import Track
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.machine import Machine
from roundhouse.residency.machine.states import State


class InvariantBroken(AssertionError):
    """The machine is in a state that it must never reach (a bug)."""


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvariantBroken(text)


def check(machine: Machine, now: float) -> None:
    """Raise InvariantBroken unless every invariant of DESIGN.md holds at ``now``."""
    for track in machine.tracks.values():
        _check_track(machine, track, now)
    for engine in machine.engines.values():
        _check_engine(machine, engine, now)
    held = sum(len(e.waiting) + len(e.leases) + len(e.switches) for e in machine.engines.values())
    _require(held == len(machine.desk.place), f"{len(machine.desk.place)} tickets are placed, {held} are held")
    _require(machine.waiting == sum(len(e.waiting) for e in machine.engines.values()), "the waiting are miscounted")


def _check_track(machine: Machine, track: Track, now: float) -> None:
    moving = [e for e in track.engines if e.state.moves]
    _require(len(moving) <= 1, f"{len(moving)} engines move on {track.device}: {moving}")
    holders = track.holders(now)
    if track.ledger.capacity is None:
        awake = [holder.model for holder in holders if holder.awake]
        _require(len(awake) <= 1, f"{awake} are awake on {track.device}, of which nothing is known")
    else:
        held = sum(track.ledger.held(holder) for holder in holders)
        text = f"{holders} have {held} of {track.ledger.capacity} bytes of {track.device}"
        _require(held <= track.ledger.capacity, text)
    vain = [e for e in moving if e.state is State.STARTING and not e.asked_for]
    others = [e for e in track.engines if e.lacks]
    _require(not (vain and others), f"nobody waits for {vain}, and others for {others}")
    if moving or now < track.settle_until:
        return
    leased = track.lingers or any(e.leases for e in track.engines)
    _require(not track.lingers or now < track.wake_at < inf, f"{track.device} lingers for ever")
    asked = [e for e in track.engines if (e.asked_for or e.begun) and not e.state.serves]
    _require(leased or not asked or machine.closing, f"{track.device} is idle though {asked} are waited for")
    for engine in track.engines:
        dry = engine.state is State.DRAINING and engine.dry
        _require(not dry, f"{engine} is dry and still draining")


def _check_engine(machine: Machine, engine: Engine, now: float) -> None:
    _require(engine.state.serves or not engine.leases, f"{engine} has leases")
    _require(engine.state is not State.STARTING or engine.wanted, f"nobody wants {engine}")
    idle = engine.state is State.READY and not engine.full
    _require(not idle or not engine.waiting, f"{engine} is ready and lets somebody wait")
    failed = engine.state is State.FAILED and now < engine.failed_until
    _require(not failed or not engine.wanted, f"{engine} is waited for")
    _require(engine.overdue <= set(engine.waiting), f"{engine} has overdue requests that do not wait")
    pinned = engine.state in (State.SLEEPING, State.ASLEEP) and engine.options.pinned
    _require(not pinned or bool(engine.unloads), f"{engine} is pinned")
    for ticket in (*engine.waiting, *engine.leases, *engine.switches):
        _require(machine.desk.place.get(ticket) is engine, f"ticket {ticket} of {engine} is misplaced")
