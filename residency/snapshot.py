"""What the outside sees of the machine: the JSON of ``status``. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from roundhouse.residency.machine import Machine
from roundhouse.residency.states import State
from roundhouse.residency.track import Track


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _phase(machine: Machine, track: Track) -> str | None:
    occupant = next((e for e in machine.engines.values() if e.device == track.device and e.state.occupies), None)
    if occupant is None or occupant.state is State.READY:
        return None
    return occupant.state.value


def _device(machine: Machine, track: Track, now: float) -> dict[str, Any]:
    serving = next((e for e in machine.engines.values() if e.device == track.device and e.state.serves), None)
    switching = None
    phase = _phase(machine, track)
    if track.switching_since is not None and phase is not None:
        target = machine.engines.get(track.target or "")
        switching = {
            "from": track.came_from,
            "to": track.target,
            "phase": phase,
            "elapsed_s": _round(now - track.switching_since),
            "estimate_s": _round(target.measured.start_s if target else None),
        }
    return {"id": track.device, "resident": serving.model if serving else None, "switching": switching}


def status(machine: Machine, now: float) -> dict[str, Any]:
    """The public status: devices, models, counters. Durations in seconds, the rest counts."""
    models = {}
    for name, engine in machine.engines.items():
        oldest = next(iter(engine.waiting.values()), None)
        models[name] = {
            "state": engine.state.value,
            "sleep_level": None,
            "device": engine.device,
            "leases": len(engine.leases),
            "waiting": len(engine.waiting),
            "oldest_wait_s": _round(now - oldest.since) if oldest else None,
            "pid": engine.pid,
            "measured": {
                "start_s": _round(engine.measured.start_s),
                "stop_s": _round(engine.measured.stop_s),
                "sleep_s": None,
                "wake_s": None,
            },
            "failure": engine.failure or None,
            "retry_in_s": _round(engine.failed_until - now) if engine.state is State.FAILED else None,
        }
    return {
        "devices": [_device(machine, track, now) for track in machine.tracks.values()],
        "models": models,
        "counters": asdict(machine.counters),
    }
