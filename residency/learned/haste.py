"""Whose requests are withdrawn as soon as they have come: an editor's, at the next keystroke. Pure.

For such a request no model should have to leave. Nobody can tell at once: so who asks for a model that is not there has
to stay for a moment before another leaves for it, unless it is known that requests for it stay. A patient caller loses
that moment once; from then on nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from typing import Any

HOLD_S = 1.0
"""How long a request has to have waited, in seconds, to be one that stays: keystrokes follow faster, and nobody who
waits for a start, of 5 to 90 s, notices it."""

OF_SWITCH = 0.25
"""Nobody is held for longer than this share of what it takes to bring the model on: where models come within a second,
one that has left in vain is soon back, too. A dry resident lingers for as much at most."""

OF_WAIT = 0.5
"""Nor for longer than this share of how long it may wait: it would be refused before anything was done for it."""

SELDOM = 0.1
"""Up to this share of requests that left within HOLD_S requests are taken to stay: to be wrong costs a switch there and
back, to hold costs up to a second of each."""

FADES = 0.9
"""What is left of what was seen with every request that is seen: after ten or so a habit has changed."""

MOST = 2000
"""Pairs of key and model remembered; beyond, those not seen for the longest time go."""

ANYBODY = ""
"""In the place of a key: all of them, for one that was never seen to wait for the model."""


class Haste:
    """How often requests stayed, and left at once, by key and model. One owner: the callers."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def dump(self) -> list[list[Any]]:
        """As JSON, to be kept over restarts."""
        return [[key, model, stayed, went] for (key, model), (stayed, went) in self._seen.items()]

    @classmethod
    def load(cls, document: Iterable[Any]) -> Haste:
        """What ``dump`` gave. Raises TypeError or ValueError if it is none of that."""
        it = cls()
        for key, model, stayed, went in document:
            it._seen[str(key), str(model)] = (float(stayed), float(went))
        return it

    def waited(self, key: str, model: str, seconds: float, *, left: bool) -> None:
        """A request waited for the model until it was let in, or ``left``. Who was let in at once tells nothing."""
        at_once = seconds < HOLD_S
        if at_once and not left:
            return
        for whose in (ANYBODY, key) if key != ANYBODY else (ANYBODY,):
            stayed, went = self._seen.get((whose, model), (0.0, 0.0))
            if stayed and not went and not at_once:
                continue  # nothing new, for ten thousand requests that wait
            self._seen[whose, model] = (stayed * FADES + (not at_once), went * FADES + at_once)
            self._seen.move_to_end((whose, model))
        while len(self._seen) > MOST:
            self._seen.popitem(last=False)

    def stays(self, key: str, model: str) -> bool:
        """Whether the next request of the key for the model can be taken to stay; not if none was ever seen to wait."""
        stayed, went = self._seen.get((key, model)) or self._seen.get((ANYBODY, model)) or (0.0, 0.0)
        return went < SELDOM * (stayed + went)

    def sure_at(self, key: str, model: str, since: float, wait_s: float, bring_s: float | None) -> float:
        """From when on a request that came at ``since`` is one that stays (clock seconds).

        It may wait for ``wait_s``, and to bring its model on takes ``bring_s`` (``None``: nobody knows).
        """
        if self.stays(key, model):
            return since
        return since + min(HOLD_S, OF_WAIT * wait_s, inf if bring_s is None else OF_SWITCH * bring_s)
