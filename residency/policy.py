"""Who is next on a device, and when to switch: the only file to change for another policy. Pure.

The resident keeps serving whoever asks for it while its gate is open. The gate shuts at the last
moment at which every waiting model's most urgent request can still be granted within its
``max_wait`` if the models come on in the order in which they were first asked for. A resident that
has nothing to do leaves at once for the model with the oldest waiting request.

The bound: a request is granted or refused within its ``max_wait`` plus one drain plus one switch,
however many other requests for whatever models arrive meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Demand:
    """What waits for one model that is not on the device.

    ``oldest`` is when its first waiting request came and ``deadline`` the earliest moment at which
    one of its requests has waited its ``max_wait`` (clock seconds); ``cost_s`` is the measured time to
    bring the model on, 0 if it was never measured; ``commanded`` says that a person ordered it.
    """

    model: str
    oldest: float
    deadline: float
    cost_s: float
    commanded: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with the resident: ``open`` its gate or not, and ``target`` to leave for once dry.

    ``target`` is ``None`` when nobody waits for another model. ``wake_at`` is when to ask again.
    """

    open: bool
    target: str | None
    wake_at: float
    reason: str


def next_demand(demands: Sequence[Demand]) -> Demand:
    """The demand to serve next: a person's command first, then the oldest request's model."""
    return min(demands, key=lambda d: (not d.commanded, d.oldest))


def likely_next(cold: Sequence[str]) -> str | None:
    """Which of the models that have not been on the device yet to prepare while nothing is to be done.

    The others' weights are in the page cache already, unless memory is short, and then there is no room.
    """
    return cold[0] if cold else None


def gate_at(demands: Sequence[Demand]) -> float:
    """When the resident's gate shuts (clock seconds): ``min(deadline - time to get there)``.

    Time to get there adds up the costs of the models that come before and its own.
    """
    gate, ahead = inf, 0.0
    for demand in sorted(demands, key=lambda d: d.oldest):
        ahead += demand.cost_s
        gate = min(gate, demand.deadline - ahead)
    return gate


def decide(now: float, demands: Sequence[Demand], *, shut: bool) -> Decision:
    """Decide over a resident while ``demands`` wait for other models of its device.

    ``shut`` says that its gate has been shut already: it stays so until the resident is left or
    nobody waits any more (a gate that reopens for newcomers starves those who wait).
    """
    if not demands:
        return Decision(True, None, inf, "nobody waits for another model")
    target = next_demand(demands)
    if target.commanded:
        return Decision(False, target.model, inf, f"switch to {target.model} was ordered")
    if shut:
        return Decision(False, target.model, inf, f"draining for {target.model}")
    gate = gate_at(demands)
    if now >= gate:
        waited = now - target.oldest
        return Decision(False, target.model, inf, f"{target.model} has waited {waited:.1f} s: its turn has come")
    return Decision(True, target.model, gate, f"gate shuts in {gate - now:.1f} s for {target.model}")
