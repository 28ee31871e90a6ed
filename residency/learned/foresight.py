"""Which model to bring on before anybody asks, while a device has nothing to do. Pure.

An agent that goes through models in turn (embed, then chat) is idle between two requests, and so is the device: what
comes next can be there when it is asked for. That pays only if the device would have had nothing else to do: who comes
back to the resident instead finds it gone. So what is gained is weighed against what everybody else may lose, and where
guesses were wrong too often none is made for a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

SAFE = 2.0
"""How many times what others may lose the gain has to be: guesses are wrong, and losses make people angry."""

LEAST, LEAST_S = 0.02, 2.0
"""Gains below this share of the switch, or so many seconds, are not worth the work of the disk and the device: nobody
minds to wait for a moment, and an engine that wakes as fast is there when it is asked for."""

ABORT = 0.2
"""What it costs to end a start because somebody asks for another model, as a share of the start."""

LEARNING = 0.3
"""Weight of the newest guess, right or wrong, in the share that was right."""

TRUST, TRUST_AGAIN = 0.5, 0.6
"""Below which share of right guesses there are no more for OFF_S, and which share is assumed after that."""

OFF_S = 600.0
"""For how long nothing is foreseen after too many wrong guesses, in seconds: an agent has another task by then."""


@dataclass(frozen=True, slots=True)
class Next:
    """What a caller that pauses may ask for: the model, with which probability, in how many seconds; ``until``: the
    moment at which it has not (clock seconds)."""

    caller: str
    model: str
    chance: float
    in_s: float
    until: float


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A model to bring on, for whom, in how many seconds it will be asked for; what is gained, and may be lost."""

    model: str
    caller: str
    in_s: float
    gain_s: float
    loss_s: float

    @property
    def reason(self) -> str:
        """For the log and the events."""
        who = f"caller {self.caller[:8]} expected to ask for {self.model} in {self.in_s:.1f} s"
        return f"foresight: {who}, saves {self.gain_s:.1f} waiter-seconds and may cost {self.loss_s:.1f}"


def guess(
    costs: Mapping[str, float], there: Iterable[str], nexts: Iterable[Next], surprises: Mapping[str, float]
) -> Foreseen | None:
    """The model that it pays most to bring on, if it pays for any.

    ``costs``: seconds to bring each model on; ``there``: who would have to leave; ``surprises``: how many requests a
    second come for each model that nobody could have foreseen.
    """
    residents, expected = set(there), list(nexts)
    best: Foreseen | None = None
    for model in sorted({it.model for it in expected} - residents):
        cost = costs[model]
        mine = [it for it in expected if it.model == model]
        gain = sum(it.chance * min(cost, it.in_s) for it in mine)
        soonest = min(mine, key=lambda it: it.in_s)
        away_s = max(cost, *(it.in_s for it in mine))
        loss = sum(it.chance * costs[it.model] for it in expected if it.model in residents)
        loss += sum(it.chance * ABORT * cost for it in expected if it.model not in residents and it.model != model)
        loss += sum(surprises.get(it, 0.0) * away_s * costs[it] for it in residents)
        if gain <= max(SAFE * loss, LEAST * cost, LEAST_S):
            continue
        if best is None or gain - loss > best.gain_s - best.loss_s:
            best = Foreseen(model, soonest.caller, soonest.in_s, gain, loss)
    return best


@dataclass
class Foresight:
    """What was foreseen on one device, and how often it came true. ``model``: what was guessed last, until the next
    request tells whether it was right."""

    model: str | None = None
    trust: float = 1.0
    _off_until: float = -inf

    def allowed(self, now: float) -> bool:
        """Whether guesses are made now: one at a time, and none for a while where they were wrong too often."""
        return self.model is None and now >= self._off_until

    def asked(self, model: str, now: float) -> None:
        """The first request after a guess tells whether it was right."""
        if self.model is None:
            return
        self.trust += LEARNING * ((model == self.model) - self.trust)
        self.model = None
        if self.trust < TRUST:
            self.trust, self._off_until = TRUST_AGAIN, now + OFF_S
