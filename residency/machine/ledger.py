"""The memory of one device and of its sleepers' RAM: what fits beside what, and who makes room. Pure.

``awake + residual of the sleepers + the others' <= capacity``, where the others' is the reserve that is kept for them
or, once they use more than that, what they use and a spare; and ``pinned <= budget`` for the RAM that holds the
sleepers' weights.
All amounts are bytes. An amount that nobody knows counts as all there is: such an engine is alone on its device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roundhouse.footprint.need import MIB, Footprint

SPARE = 256 * MIB
"""What stays free on a device whose other users need more than their reserve: a game that loads takes its memory piece
by piece, and must find some free until the next look at the card."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An engine that holds memory: awake or asleep, when it was last used (clock seconds), what it may do.

    ``level``: how it would leave the device, 0 for a stop; ``fixed``: it does not leave.
    """

    model: str
    footprint: Footprint | None
    awake: bool
    last_used: float
    level: int = 0
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Leave:
    """A holder that makes room: asleep at ``level`` afterwards, or with 0 gone."""

    model: str
    level: int


@dataclass
class Ledger:
    """One device: its ``capacity`` (``None``: unknown), the ``reserve`` for others, and what they use now."""

    capacity: int | None = None
    reserve: int = 0
    foreign: int = 0

    @property
    def ours(self) -> int | None:
        """How much of the device engines may have at most now."""
        if self.capacity is None:
            return None
        others = self.reserve if self.foreign <= self.reserve else self.foreign + SPARE
        return max(0, self.capacity - others)

    def _awake(self, footprint: Footprint | None) -> int:
        assert self.capacity is not None
        return self.capacity if footprint is None else footprint.awake

    def held(self, holder: Holder) -> int:
        """What ``holder`` has of the device now; only where the capacity is known."""
        if holder.awake:
            return self._awake(holder.footprint)
        return holder.footprint.residual if holder.footprint is not None else 0

    def _left(self, holder: Holder, level: int) -> int:
        """What ``holder`` has of the device once it has left by ``level``."""
        return holder.footprint.residual if level and holder.footprint is not None else 0

    def over(self, holders: Iterable[Holder]) -> int:
        """By how much more than ``ours`` the ``holders`` have."""
        ours = self.ours
        if ours is None:
            return 0
        return max(0, sum(self.held(holder) for holder in holders) - ours)

    def room_for(self, footprint: Footprint | None, holders: Sequence[Holder]) -> list[Leave] | None:
        """Who of ``holders`` has to leave for an engine with ``footprint``; ``None`` if that is not enough.

        Those that were used least recently leave first, no more than needed, and each as little as possible: an
        engine that is awake goes to sleep if it may, and is stopped only where its residual is in the way too.
        """
        ours = self.ours
        if ours is None:
            return self._alone(holders)
        need = ours if footprint is None else footprint.awake
        free = ours - need - sum(self.held(holder) for holder in holders)
        order = sorted((h for h in holders if not h.fixed), key=lambda h: (h.last_used, h.model))
        steps = [(Leave(h.model, h.level if h.awake else 0), h) for h in order]
        # Only then: whoever would sleep is stopped, for its residual.
        steps += [(Leave(h.model, 0), h) for h in order if h.awake and h.level]
        gains = [self.held(h) - self._left(h, s.level) for s, h in steps[: len(order)]]
        gains += [self._left(h, h.level) for _, h in steps[len(order) :]]
        return _needed(free, [step for step, _ in steps], gains)

    def _alone(self, holders: Sequence[Holder]) -> list[Leave] | None:
        """Nothing is known of the device: everybody who is awake leaves, sleepers stay."""
        awake = [holder for holder in holders if holder.awake]
        if any(holder.fixed for holder in awake):
            return None
        return [Leave(holder.model, holder.level) for holder in awake]


def _needed(free: int, steps: Sequence[Leave], gains: Sequence[int]) -> list[Leave] | None:
    """The first of ``steps`` that make ``free`` at least 0, less those that turn out not to be needed.

    ``None``: all of them are not enough. A model's second step is on top of its first.
    """
    chosen: list[int] = []
    for index, gain in enumerate(gains):
        if free >= 0:
            break
        chosen.append(index)
        free += gain
    if free < 0:
        return None
    for index in reversed(chosen.copy()):
        again = any(steps[later].model == steps[index].model for later in chosen if later > index)
        if free - gains[index] >= 0 and not again:
            chosen.remove(index)
            free -= gains[index]
    return list({steps[index].model: steps[index] for index in chosen}.values())


def pinned(footprints: Iterable[Footprint | None]) -> int:
    """RAM that the weights of these engines are pinned in, or will be once they sleep at level 1."""
    return sum(footprint.pinned for footprint in footprints if footprint is not None)


def level_for(
    levels: Sequence[int],
    footprint: Footprint | None,
    others_pinned: int,
    budget: int | None,
    costs: Mapping[int, float],
) -> int:
    """The rung of the sleep ladder on which an engine leaves its device; 0: it is stopped.

    Of the ``levels`` that it may use, those whose weights fit into the RAM ``budget`` beside what the others have
    pinned, the shallowest; another, or the stop, once the ``costs`` (level -> seconds to go down and up again, 0: stop
    and start) of both are measured and it costs less.
    """
    feasible = [level for level in levels if level != 1 or _fits(footprint, others_pinned, budget)]
    if not feasible or feasible[0] not in costs:
        return feasible[0] if feasible else 0
    known = [feasible[0], *(level for level in (*feasible[1:], 0) if level in costs)]
    return min(known, key=lambda level: costs[level])


def _fits(footprint: Footprint | None, others_pinned: int, budget: int | None) -> bool:
    if budget is None:
        return True
    return footprint is not None and others_pinned + footprint.pinned <= budget
