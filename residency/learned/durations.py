"""How long the answers to one caller take, by model: some ask for a word, others for a chapter. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

SMOOTHING = 0.3
"""Weight of the newest answer's duration, at least: answers differ more than starts do."""

SURE = 12
"""So many answers known say as much as will ever be known: more are of another day's work."""


def smoothed(old: float | None, new: float, known: int = SURE) -> float:
    """``new`` mixed into what ``known`` durations before it gave (seconds)."""
    return new if old is None else old + max(SMOOTHING, 1 / (known + 1)) * (new - old)


@dataclass(frozen=True, slots=True)
class Answer:
    """How long an answer takes: so many seconds, and this share of what is usual for the model."""

    own_s: float = 0.0
    usual: float = 1.0

    def seconds(self, usual_s: float) -> float:
        """With what is usual now."""
        return self.own_s + self.usual * usual_s


USUAL = Answer()
"""The one to a caller of whom nothing is known."""


@dataclass(slots=True)
class Answers:
    """The durations of one caller's answers, smoothed, and how many there were of late, by model."""

    _known: dict[str, tuple[float, int]] = field(default_factory=dict)

    def took(self, model: str, seconds: float) -> None:
        """An answer is over."""
        mean, known = self._known.get(model, (None, 0))
        self._known[model] = smoothed(mean, seconds, known), min(SURE, known + 1)

    def next(self, model: str) -> Answer:
        """The next one: as this caller's were, and as if one more had been as is usual."""
        mean, known = self._known.get(model, (0.0, 0))
        return Answer(known * mean / (known + 1), 1 / (known + 1))

    def dump(self) -> dict[str, list[float]]:
        """As JSON."""
        return {model: list(it) for model, it in self._known.items()}

    @classmethod
    def load(cls, document: Mapping[str, tuple[float, int]]) -> Answers:
        """What ``dump`` gave. Raises ValueError, TypeError or AttributeError if it is none of it."""
        it = cls()
        for model, (mean, known) in document.items():
            if not (0 <= float(mean) < inf and int(known) > 0):
                raise ValueError(f"{mean!r} seconds of {known!r} answers")
            it._known[str(model)] = float(mean), min(SURE, int(known))
        return it
