"""The plan: whether each model fits, how long its context may be, where it sleeps; and all of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roundhouse.footprint.need import GIB, Footprint
from roundhouse.launchers.vllm.engine_host import HOST_BYTES_CPU, HOST_BYTES_CUDA
from roundhouse.plan.advice import CACHE_STEP, LOW_SHARE, Card, advise, longest, with_cache_of
from roundhouse.plan.fit import Beside, Candidate, Room, beside, fixed_bytes, rungs, together
from roundhouse.plan.subjects import Subject

ENGINE_BYTES = int(2.75 * GIB)
"""RAM of one vLLM server on a card beside its pinned weights: a server and an EngineCore of about 1 GiB each (985 MiB
were resident after the imports of vLLM 0.32 for CUDA), and 0.3 to 0.5 GiB of host memory for the CUDA context."""

ENGINE_BYTES_CPU = int(1.3 * GIB)
"""And of one for the CPU, which is a single process: 1 280 MiB measured, with a tiny model."""

COMMAND_BYTES = int(1.3 * GIB)
"""RAM of another server beside what it keeps of its weights there, which nobody tells (assumed)."""


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device: its ``room``, and where its size is from, in words."""

    id: str
    room: Room
    origin: str


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model. ``fits`` is ``None`` where that cannot be told; ``tokens``: what the KV cache holds, 16 and 8 bits."""

    subject: Subject
    footprint: Footprint | None
    fits: bool | None
    tokens: tuple[int | None, int | None]
    level: int | None
    beside: Beside | None
    advice: str | None
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything: ``ram`` is the machine's, ``pairs`` may be awake side by side; ``on_cpu``: no engine has a card."""

    devices: tuple[DevicePlan, ...]
    ram: int
    ram_budget: int
    models: Mapping[str, ModelPlan]
    pairs: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    on_cpu: bool = False

    @property
    def pinned(self) -> int:
        """RAM that the weights of those who sleep at level 1 take."""
        return sum(it.footprint.pinned for it in self.models.values() if it.level == 1 and it.footprint is not None)

    @property
    def processes(self) -> int:
        """RAM of all engines' processes that may live at once, and of the engine host."""
        living = [it.subject for it in self.models.values() if it.fits is not False]
        vllm = sum(it.vllm for it in living)
        each = ENGINE_BYTES_CPU if self.on_cpu else ENGINE_BYTES
        host = HOST_BYTES_CPU if self.on_cpu else HOST_BYTES_CUDA
        return vllm * each + (len(living) - vllm) * COMMAND_BYTES + (host if vllm else 0)

    @property
    def ram_needed(self) -> int:
        """Pinned weights and processes."""
        return self.pinned + self.processes

    @property
    def fits(self) -> bool | None:
        """Whether every model can be served, one after the other."""
        told = [it.fits for it in self.models.values()]
        return False if False in told else None if None in told else True

    def misfits(self) -> list[str]:
        """One line for each model that does not fit."""
        return [f"{name} does not fit: {it.advice}" for name, it in self.models.items() if it.fits is False]

    def unclear(self) -> list[str]:
        """One line for each model of which nobody knows whether it fits."""
        return [
            f"whether {name} fits cannot be told: {'; '.join(it.unknown)}"
            for name, it in self.models.items()
            if it.fits is None
        ]


def make(
    subjects: Sequence[Subject],
    devices: Sequence[DevicePlan],
    ram: int,
    notes: tuple[str, ...] = (),
    *,
    on_cpu: bool = False,
) -> Plan:
    """Plan for ``subjects`` on ``devices``; at least one device. ``on_cpu``: the set-up is one without a card."""
    rooms = {it.id: it.room for it in devices}
    sized = _sized(subjects, rooms)
    candidates = {it.name: c for it in sized if (c := _candidate(it, rooms[it.device])) is not None}
    alone = {it.name: _fits(it, candidates, sized, rooms[it.device]) for it in sized}
    able = [it for name, it in candidates.items() if alone[name] is not False]
    budget = devices[0].room.ram_budget
    levels = rungs(able, budget)
    models, pairs = {}, []
    for device in devices:
        here = [it for it in able if _device_of(it.name, sized) == device.id]
        pairs += together(here, device.room)
        for subject in (it for it in sized if it.device == device.id):
            models[subject.name] = _model(subject, candidates, here, levels, device.room, alone[subject.name], ram)
    order = {it.name: models[it.name] for it in sized}
    return Plan(tuple(devices), ram, budget, order, tuple(pairs), notes, on_cpu)


def _device_of(name: str, subjects: Sequence[Subject]) -> str:
    return next(it.device for it in subjects if it.name == name)


def _candidate(it: Subject, room: Room) -> Candidate | None:
    footprint = it.footprint(room.capacity)
    return None if footprint is None else Candidate(it.name, footprint, it.levels, it.fixed)


def _fits(it: Subject, candidates: Mapping[str, Candidate], subjects: Sequence[Subject], room: Room) -> bool | None:
    """Whether it can be served when all that may leave the device have left it."""
    fixed = fixed_bytes([c for c in candidates.values() if _device_of(c.name, subjects) == it.device], it.name)
    if it.memory is not None:
        return it.memory <= room.ours - fixed
    if it.estimate is None:
        return None
    return it.estimate.fits_in(room.capacity, room.ours - fixed)


def _sized(subjects: Sequence[Subject], rooms: Mapping[str, Room]) -> list[Subject]:
    """Those whose arguments are ours get a KV cache that leaves room for the others' sleep."""
    able = [it for it in subjects if _fits(it, {}, subjects, rooms[it.device]) is not False]
    return [_with_cache(it, able, rooms[it.device]) if it.free_size and len(able) > 1 else it for it in subjects]


def _with_cache(it: Subject, able: Sequence[Subject], room: Room) -> Subject:
    found = it.estimate
    if found is None or found.weights is None or it not in able:
        return it
    others = [o for o in able if o is not it and o.device == it.device]
    asleep = sum(o.estimate.residual for o in others if o.estimate is not None)
    most = room.ours - asleep - found.weights - found.overhead
    size = most // CACHE_STEP * CACHE_STEP
    if size <= 0 or found.cache is None or size < found.cache.needed(found.context or 0, found.flags.kv_bits):
        return it  # it fits alone: the others are stopped for it
    sized = found.with_flags(room.capacity, kv_cache_memory_bytes=size, gpu_memory_utilization=LOW_SHARE)
    return replace(it, estimate=sized)


def _model(
    it: Subject,
    candidates: Mapping[str, Candidate],
    here: Sequence[Candidate],
    levels: Mapping[str, int | None],
    room: Room,
    fits: bool | None,
    ram: int,
) -> ModelPlan:
    candidate = candidates.get(it.name)
    around = beside(candidate, here, levels, room) if candidate is not None and fits is not False else None
    fixed = fixed_bytes(here, it.name)
    asleep = sum(c.footprint.residual for c in here if around is not None and c.name in around.asleep)
    advice: str | None = None
    tokens: tuple[int | None, int | None] = (None, None)
    found = it.estimate
    if found is not None:
        card = Card(room.capacity, room.ours - fixed - asleep, ram)
        tokens = (longest(found, card, 16), longest(found, card, 8))
    if fits is False:
        advice = _advice(it, Card(room.capacity, room.ours - fixed, ram))
    elif around is not None and around.stopped and any(levels[name] for name in around.stopped):
        advice = _tight(it, around, here, Card(room.capacity, room.ours - fixed, ram))
    unknown = ((it.problem,) if it.problem else ()) + (found.unknown if found is not None else ())
    footprint = candidate.footprint if candidate is not None else None
    return ModelPlan(it, footprint, fits, tokens, levels.get(it.name), around, advice, unknown)


def _advice(it: Subject, card: Card) -> str:
    if it.memory is not None and it.memory > card.room:
        return f"launcher.memory says {it.memory / GIB:.1f} GiB, and {max(0, card.room) / GIB:.1f} GiB are there for it"
    return advise(it.estimate, card) if it.estimate is not None else "nothing is known of it"


def _tight(it: Subject, around: Beside, here: Sequence[Candidate], card: Card) -> str:
    """It fits, but others cannot stay asleep beside it."""
    asleep = sum(c.footprint.residual for c in here if c.name in around.stopped or c.name in around.asleep)
    wanted = with_cache_of(it.estimate, replace(card, room=card.room - asleep)) if it.estimate is not None else None
    remedy = "a smaller model or a shorter context" if wanted is None else " ".join(wanted)
    names = ", ".join(around.stopped)
    return f"leaves no room for {names} to stay asleep beside it: they are stopped, unless you give it {remedy}"


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan for programs: sizes in GiB, except ``kv_bytes_per_token`` (at 16 bits)."""
    first, *_ = devices = [_device_json(it, plan) for it in plan.devices]
    return {
        "device": first,
        "devices": devices,
        "models": {name: _model_json(it) for name, it in plan.models.items()},
        "combined": {
            "fits": plan.fits,
            "pinned_gib": _gib(plan.pinned),
            "ram_budget_gib": _gib(plan.ram_budget),
            "ram_needed_gib": _gib(plan.ram_needed),
            "awake_together": [list(pair) for pair in plan.pairs],
            "awake": {
                name: {
                    "asleep": dict(it.beside.asleep),
                    "stopped": list(it.beside.stopped),
                    "free_gib": _gib(it.beside.free),
                }
                for name, it in plan.models.items()
                if it.beside is not None
            },
        },
        "notes": list(plan.notes),
    }


def _device_json(it: DevicePlan, plan: Plan) -> dict[str, Any]:
    return {
        "id": it.id,
        "memory_gib": _gib(it.room.capacity),
        "reserve_gib": _gib(it.room.reserve),
        "ram_gib": _gib(plan.ram),
        "origin": it.origin,
    }


def _model_json(it: ModelPlan) -> dict[str, Any]:
    found = it.subject.estimate
    cache = found.cache if found is not None else None
    return {
        "weights_gib": _gib(found.weights) if found is not None else None,
        "kv_bytes_per_token": cache.per_token(16) if cache is not None else None,
        "max_tokens": {"fp16": it.tokens[0], "fp8": it.tokens[1]},
        "fits": it.fits,
        "sleep_level": it.level,
        "advice": it.advice,
        "context": found.context if found is not None else None,
        "model_limit": found.shapes.max_position if found is not None and found.shapes is not None else None,
        "quantisation": found.quantised.name if found is not None else None,
        "awake_gib": _gib(it.footprint.awake) if it.footprint is not None else None,
        "peak_gib": _gib(found.peak) if found is not None and cache is not None else None,
        "loaded_gib": _gib(found.loaded) if found is not None else None,
        "residual_gib": _gib(it.footprint.residual) if it.footprint is not None else None,
        "pinned_gib": _gib(it.footprint.pinned) if it.footprint is not None else None,
        "source": found.files.source if found is not None else None,
        "unknown": list(it.unknown),
    }


def _gib(size: int | None) -> float | None:
    return None if size is None else round(size / GIB, 3)
