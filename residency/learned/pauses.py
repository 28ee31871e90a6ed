"""How long callers pause between two requests, and what follows for one who pauses now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

FADING = 0.85
"""Weight of a pause against the one after it: after four pauses it counts half."""

OWN = 2.0
"""How much more a caller's own pauses count than those of its likes."""

LATE, LATE_S = 1.0, 0.05
"""Somebody is waited for until a known pause is over, times ``1 + LATE / (1 + pauses known)``, and LATE_S: few pauses
say little, and a clock that is a moment late must not lose the one who is just coming."""


@dataclass(frozen=True, slots=True)
class Past:
    """A pause that is over: its length in seconds, and whether the caller came back to the same model."""

    gap: float
    same: bool


@dataclass(slots=True)
class Pause:
    """A pause that goes on: on which model, since when (clock seconds); ``first``: it is its caller's first one."""

    model: str
    since: float
    first: bool


@dataclass(frozen=True, slots=True)
class Return:
    """Somebody who may come back: who, and until when (clock seconds) with which probability in all.

    ``steps``: rising in both, with the moments at which a known pause is over.
    ``waits``: the moments until which it is worth to wait for it.
    """

    caller: str
    steps: Sequence[tuple[float, float]]
    waits: Sequence[float]

    @property
    def chance(self) -> float:
        """The probability that it comes back at all."""
        return self.steps[-1][1] if self.steps else 0.0

    @property
    def at(self) -> float:
        """When it comes back, if it does: the mean (clock seconds)."""
        before, total = 0.0, 0.0
        for moment, chance in self.steps:
            total += moment * (chance - before)
            before = chance
        return total / self.chance if self.chance else inf

    def by(self, moment: float) -> float:
        """The probability that it is back by ``moment``."""
        found = 0.0
        for at, chance in self.steps:
            if at > moment:
                break
            found = chance
        return found


def back(
    caller: str,
    pause: Pause,
    past: Iterable[Past],
    likes: Sequence[tuple[float, float, bool]],
    now: float,
    tied: float,
) -> Return:
    """When ``caller`` comes back from its ``pause``, judged by its pauses that are over, the latest first.

    ``likes``: pauses of others in its place (weight, length so far, whether they came back to the same model);
    ``tied``: how far it waits for its answers.
    """
    age = max(0.0, now - pause.since)
    own = [(FADING**i, it.gap, it.same) for i, it in enumerate(past)]
    stretch = 1 + LATE / (1 + len(own) + len(likes))
    law = _law(own, age, stretch)
    if own and law is None:
        return Return(caller, (), ())  # longer away than ever before
    laws = [(share, it) for share, it in ((OWN, law), (1.0, _law(likes, age, stretch))) if it is not None]
    total = sum(share for share, _ in laws)
    gaps = sorted((gap, share / total * chance) for share, it in laws for gap, chance in it)
    steps, chance = [], 0.0
    for gap, more in gaps:
        chance += tied * more
        steps.append((pause.since + max(gap, age), chance))
    return Return(caller, steps, [pause.since + gap * stretch + LATE_S for gap, _ in gaps])


def ended_by(pausing: Sequence[Pause], past: Iterable[Past], model: str, now: float) -> Pause:
    """Which of its pauses (``past``: those that are over) a caller's request for ``model`` ends.

    One on the same model, if there is one. Of several, parallel streams under one key, the one whose length fits best
    to those that are known, so that a stream that is no more does not make the others' pauses look longer.
    """
    fitting = [pause for pause in pausing if pause.model == model] or list(pausing)
    gaps = [it.gap for it in past]
    if len(fitting) == 1 or not gaps:
        return fitting[0]
    usual = median(gaps)
    return min(fitting, key=lambda pause: abs(now - pause.since - usual))


def _law(past: Iterable[tuple[float, float, bool]], age: float, stretch: float) -> list[tuple[float, float]] | None:
    """Of pauses (weight, length, same model) those that may still go on: (length, chance of a return to the model).

    ``None`` if none may.
    """
    left = [(weight, gap, same) for weight, gap, same in past if gap * stretch + LATE_S > age]
    total = sum(weight for weight, _, _ in left)
    if not total:
        return None
    return [(gap, weight / total) for weight, gap, same in left if same]
