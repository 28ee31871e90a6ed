"""Who fits: the ledger's arithmetic, looked at before anything runs. Pure, in bytes.

A model fits where ``awake + awake of those that never leave + reserve <= capacity``; beside it sleep those whose
residuals fit into what is left. RAM holds the pinned weights of level 1 for as long as their engines live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from roundhouse.footprint.need import Footprint


@dataclass(frozen=True, slots=True)
class Room:
    """A device's ``capacity``, the ``reserve`` for others on it, and the RAM for pinned weights."""

    capacity: int
    reserve: int
    ram_budget: int

    @property
    def ours(self) -> int:
        """What engines may have of the device."""
        return max(0, self.capacity - self.reserve)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model: its needs, the sleep ``levels`` that it may use, whether it is ``fixed`` on the device."""

    name: str
    footprint: Footprint
    levels: tuple[int, ...] = ()
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Beside:
    """One model awake: who sleeps beside it at which level, who is stopped, and what is ``free`` then (below 0: short
    of so much)."""

    asleep: Mapping[str, int]
    stopped: tuple[str, ...]
    free: int


def rungs(candidates: Iterable[Candidate], ram_budget: int) -> dict[str, int | None]:
    """The level at which each will sleep: 1 while RAM lasts, the biggest first, for they are the slowest to read
    again; then 2; ``None``: it is stopped."""
    left = ram_budget
    result: dict[str, int | None] = {}
    for it in sorted(candidates, key=lambda it: (-it.footprint.pinned, it.name)):
        if 1 in it.levels and it.footprint.pinned <= left:
            left -= it.footprint.pinned
            result[it.name] = 1
        else:
            result[it.name] = 2 if 2 in it.levels else None
    return result


def fixed_bytes(candidates: Iterable[Candidate], but: str) -> int:
    """What those that never leave the device take of it, ``but`` one."""
    return sum(it.footprint.awake for it in candidates if it.fixed and it.name != but)


def beside(model: Candidate, candidates: Sequence[Candidate], levels: Mapping[str, int | None], room: Room) -> Beside:
    """Who may sleep beside ``model``: those with the smallest residuals, as many as fit."""
    free = room.ours - model.footprint.awake - fixed_bytes(candidates, model.name)
    others = [it for it in candidates if it.name != model.name and not it.fixed]
    asleep: dict[str, int] = {}
    for it in sorted(others, key=lambda it: (it.footprint.residual, it.name)):
        level = levels[it.name]
        if level is not None and it.footprint.residual <= free:
            asleep[it.name] = level
            free -= it.footprint.residual
    return Beside(asleep, tuple(it.name for it in others if it.name not in asleep), free)


def together(candidates: Sequence[Candidate], room: Room) -> list[tuple[str, ...]]:
    """The pairs that may be awake side by side, with those that never leave."""
    result = []
    for pair in combinations(candidates, 2):
        names = {it.name for it in pair}
        fixed = sum(it.footprint.awake for it in candidates if it.fixed and it.name not in names)
        if sum(it.footprint.awake for it in pair) + fixed <= room.ours:
            result.append(tuple(it.name for it in pair))
    return result
