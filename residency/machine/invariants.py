"""What must hold after every fact. Pure; asserted in tests and, with ``ROUNDHOUSE_DEBUG=1``, in service."""

from __future__ import annotations

from math import inf

from roundhouse.residency.machine.device import Device
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
    for device in machine.devices.values():
        _check_device(machine, device, now)
    for engine in machine.engines.values():
        _check_engine(machine, engine, now)
    held = sum(len(e.waiting) + len(e.leases) + len(e.switches) for e in machine.engines.values())
    _require(held == len(machine.tickets.place), f"{len(machine.tickets.place)} tickets are placed, {held} are held")
    _require(machine.waiting == sum(len(e.waiting) for e in machine.engines.values()), "the waiting are miscounted")


def _check_device(machine: Machine, device: Device, now: float) -> None:
    moving = [e for e in device.engines if e.state.moves]
    _require(len(moving) <= 1, f"{len(moving)} engines move on {device.name}: {moving}")
    holders = device.holders(now)
    if device.ledger.capacity is None:
        awake = [holder.model for holder in holders if holder.awake]
        _require(len(awake) <= 1, f"{awake} are awake on {device.name}, of which nothing is known")
    else:
        held = sum(device.ledger.held(holder) for holder in holders)
        text = f"{holders} have {held} of {device.ledger.capacity} bytes of {device.name}"
        _require(held <= device.ledger.capacity, text)
    vain = [e for e in moving if e.state is State.STARTING and not e.asked_for]
    others = [e for e in device.engines if e.lacks]
    _require(not (vain and others), f"nobody waits for {vain}, and others for {others}")
    if moving or now < device.settle_until:
        return
    leased = device.lingers or any(e.leases for e in device.engines)
    _require(not device.lingers or now < device.wake_at < inf, f"{device.name} lingers for ever")
    asked = [e for e in device.engines if (e.asked_for or e.begun) and not e.state.serves]
    _require(leased or not asked or machine.closing, f"{device.name} is idle though {asked} are waited for")
    for engine in device.engines:
        dry = engine.state is State.DRAINING and engine.dry
        _require(not dry, f"{engine} is dry and still draining")


def _check_engine(machine: Machine, engine: Engine, now: float) -> None:
    _require(engine.state.serves or not engine.leases, f"{engine} has leases")
    _require(engine.state is not State.STARTING or engine.wanted, f"nobody wants {engine}")
    idle = engine.state is State.READY and not engine.full
    _require(not idle or not engine.waiting, f"{engine} is ready and lets somebody wait")
    failed = engine.state is State.FAILED and now < engine.health.failed_until
    _require(not failed or not engine.wanted, f"{engine} is waited for")
    _require(engine.queue.overdue <= set(engine.waiting), f"{engine} has overdue requests that do not wait")
    pinned = engine.state in (State.SLEEPING, State.ASLEEP) and engine.options.pinned
    _require(not pinned or bool(engine.unloads), f"{engine} is pinned")
    for ticket in (*engine.waiting, *engine.leases, *engine.switches):
        _require(machine.tickets.place.get(ticket) is engine, f"ticket {ticket} of {engine} is misplaced")
