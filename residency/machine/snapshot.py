"""What the outside sees of the machine: the JSON of ``status``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from roundhouse.residency.machine.device import Device
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.machine import Machine
from roundhouse.residency.machine.states import State


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _phase(device: Device) -> State | None:
    """What the switch under way waits for: the transition of the moment, or else a drain."""
    states = [engine.state for engine in device.engines]
    moving = next((state for state in states if state.moves), None)
    return moving or (State.DRAINING if State.DRAINING in states else None)


def _device(machine: Machine, device: Device, now: float) -> dict[str, Any]:
    serving = [e for e in device.engines if e.state.serves]
    switching = None
    phase = _phase(device)
    if device.switch.since is not None and phase is not None:
        target = machine.engines.get(device.switch.target or "")
        switching = {
            "from": device.switch.came_from,
            "to": device.switch.target,
            "phase": phase.value,
            "elapsed_s": _round(now - device.switch.since),
            "estimate_s": _round(target.bring_s if target else None),
            "reason": device.decisions.reason,
        }
    serving.sort(key=lambda engine: engine.used, reverse=True)
    return {
        "id": device.name,
        "resident": serving[0].model if serving else None,
        "residents": [engine.model for engine in serving],
        "switching": switching,
        "decisions": {kind.value: count for kind, count in device.decisions.counts.items()},
        "memory": {
            "capacity": device.ledger.capacity,
            "for_models": device.ledger.ours,
            "others": device.ledger.foreign,
        },
    }


def _memory(engine: Engine) -> dict[str, Any] | None:
    it = engine.footprint
    if it is None:
        return None
    return {"awake": it.awake, "residual": it.residual, "pinned": it.pinned, "estimated": it.estimated}


def _shallowest(durations: Mapping[int, float]) -> float | None:
    return durations[min(durations)] if durations else None


def status(machine: Machine, now: float) -> dict[str, Any]:
    """The public status: devices, models, counters. Durations in seconds, memory in bytes, the rest counts."""
    models = {}
    for name, engine in machine.engines.items():
        oldest = next(iter(engine.waiting.values()), None)
        models[name] = {
            "state": engine.state.value,
            "sleep_level": engine.level if engine.state is State.ASLEEP else None,
            "device": engine.device,
            "leases": len(engine.leases),
            "waiting": len(engine.waiting),
            "oldest_wait_s": _round(now - oldest.since) if oldest else None,
            "pid": engine.pid,
            "measured": {
                "start_s": _round(engine.measured.start_s),
                "stop_s": _round(engine.measured.stop_s),
                "sleep_s": _round(_shallowest(engine.measured.sleep_s)),
                "wake_s": _round(_shallowest(engine.measured.wake_s)),
            },
            "memory": _memory(engine),
            "failure": engine.health.failure or None,
            "retry_in_s": _round(engine.health.failed_until - now) if engine.state is State.FAILED else None,
        }
    return {
        "devices": [_device(machine, device, now) for device in machine.devices.values()],
        "models": models,
        "counters": asdict(machine.counters),
    }
