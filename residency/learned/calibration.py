"""How far guesses of a wait were from the truth, and so how far the next one may be: intervals that hold. Pure.

Split conformal prediction (Vovk, 2005) for a guess that is itself a range (Romano, Patterson and Candes, 2019): of past
waits it is known by what factor they missed the soonest and the latest moment that had been guessed. The interval of a
new guess is stretched by the factors that nine in ten of those stayed within. How many are left out adapts, so that
intervals hold though waits are not alike from hour to hour (Gibbs and Candes, 2021).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil, exp, floor, inf, isfinite, log
from typing import Any

COVER = 0.9
"""The share of waits that are to lie within their interval."""

WINDOW = 96
"""Errors remembered of each kind: what happened days ago says little, and fewer make the ends of the interval jump."""

STEP = 0.02
"""How much a miss moves the share that is left out. Gibbs and Candes use 0.005 for daily prices; days are short."""

MOST_MISSED = 0.2
"""The share left out never adapts beyond: after a quiet hour the first surprise must not miss by far."""

LEAST_S = 0.25
"""Waits shorter than this count as this: nobody notices, and factors between milliseconds say nothing."""


class WaitKind(StrEnum):
    """What a request waits for, which is what the error of a guess depends on."""

    SLOT = "a slot"
    START = "the start under way"
    SWITCH = "its turn"


PRIOR: dict[WaitKind, tuple[tuple[float, ...], tuple[float, ...]]] = {
    WaitKind.SLOT: (
        (0.53, 0.81, 0.96, 1.02, 1.16, 1.35, 1.58, 1.88, 2.3, 4.26),
        (0.52, 0.78, 0.92, 1.0, 1.12, 1.28, 1.48, 1.76, 2.17, 3.6),
    ),
    WaitKind.START: (
        (0.84, 0.96, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (0.84, 0.96, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    ),
    WaitKind.SWITCH: (
        (0.64, 0.95, 1.0, 1.02, 1.08, 1.18, 1.34, 1.59, 1.98, 3.19),
        (0.25, 0.48, 0.64, 0.78, 0.91, 0.98, 1.0, 1.05, 1.24, 1.78),
    ),
}
"""Before anything was seen: waits as multiples of the soonest and of the latest moment guessed, at 5, 15 ... 95 %.
Of ``bench.generate``'s workloads 1000 to 1149, each weighing as the root of its requests."""


@dataclass(frozen=True, slots=True)
class Guess:
    """From when until when the wait may end as far as can be computed: seconds from now."""

    kind: WaitKind
    soonest_s: float
    latest_s: float

    @property
    def ends(self) -> tuple[float, float]:
        """Both, but none below LEAST_S."""
        return max(LEAST_S, self.soonest_s), max(LEAST_S, self.latest_s)


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a request is told: seconds that it will wait, and the interval that holds nine times in ten.

    Without a ``guess``, because bringing its model on was never seen, nothing is expected, and the interval says only
    what is always true.
    """

    guess: Guess | None
    expected_s: float | None
    low_s: float
    high_s: float

    def holds(self, waited_s: float) -> bool:
        """Whether the interval has held: ends are met exactly where a wait is nothing but a measured switch."""
        return self.low_s - 1e-6 <= waited_s <= self.high_s + 1e-6

    def seconds(self) -> dict[str, float | None]:
        """For events: JSON knows no infinity. Rounded outwards, so that what held still holds."""
        low, high = floor(self.low_s * 10) / 10, None if self.high_s == inf else ceil(self.high_s * 10) / 10
        expected = None if self.expected_s is None else round(self.expected_s, 1)
        return {"estimate_s": expected, "low_s": low, "high_s": high}

    def __str__(self) -> str:
        if self.expected_s is None:
            return "unknown, as it was never measured"
        return f"about {self.expected_s:.0f} s, {floor(self.low_s)} to {ceil(self.high_s)}"


class _Window:
    """The last errors (logarithms of factors), also in order."""

    def __init__(self, factors: Iterable[float]) -> None:
        self._recent = deque(map(log, factors))
        self._ordered = sorted(self._recent)

    @property
    def factors(self) -> list[float]:
        """The errors as factors, the oldest first."""
        return list(map(exp, self._recent))

    def add(self, error: float) -> None:
        self._recent.append(error)
        insort(self._ordered, error)
        if len(self._recent) > WINDOW:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]

    def factor_below(self, share: float) -> float:
        """What at most this share is below."""
        return exp(self._ordered[max(0, floor(share * (len(self._ordered) + 1)) - 1)])

    def factor_above(self, share: float) -> float:
        """What at most this share is above."""
        count = len(self._ordered)
        return exp(self._ordered[min(count, ceil((1.0 - share) * (count + 1))) - 1])


class _Errors:
    """Of one kind of guess."""

    def __init__(self, kind: WaitKind) -> None:
        self.soonest, self.latest = map(_Window, PRIOR[kind])
        self.missed = 1.0 - COVER
        self.learned_at = -inf

    def dump(self) -> dict[str, Any]:
        """As JSON. When the last one was learned is not in it: the clock begins anew with every process."""
        return {"missed": self.missed, "soonest": self.soonest.factors, "latest": self.latest.factors}

    def recall(self, document: Mapping[str, Any]) -> None:
        """Take over what ``dump`` gave."""
        self.missed = min(MOST_MISSED, max(0.0, _finite(document["missed"])))
        self.soonest, self.latest = _recalled(document["soonest"]), _recalled(document["latest"])

    def learn(self, guess: Guess, waited_s: float, held: bool, now: float) -> None:
        if now == self.learned_at:
            return  # those who are let in together were wrong together: that is one error, and not a hundred
        self.learned_at = now
        self.missed = min(MOST_MISSED, max(0.0, self.missed + STEP * ((1.0 - COVER) - (not held))))
        soonest, latest = guess.ends
        self.soonest.add(log(max(LEAST_S, waited_s) / soonest))
        self.latest.add(log(max(LEAST_S, waited_s) / latest))


def _recalled(factors: Iterable[Any]) -> _Window:
    known = [_finite(it) for it in factors][-WINDOW:]
    if not known:
        raise ValueError("no errors")
    return _Window(known)


def _finite(number: Any) -> float:
    if not isfinite(it := float(number)):
        raise ValueError(f"{number} is no number")
    return it


@dataclass
class Calibration:
    """The errors of past guesses. ``stated`` counts the intervals of those who were let in, ``held`` the true ones."""

    stated: int = 0
    held: int = 0
    _errors: dict[WaitKind, _Errors] = field(default_factory=lambda: {kind: _Errors(kind) for kind in WaitKind})

    def dump(self) -> dict[str, Any]:
        """The errors, as JSON: factors by kind of guess. What is counted is of this process, and not in it."""
        return {kind.name.lower(): errors.dump() for kind, errors in self._errors.items()}

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Calibration:
        """A calibration that remembers ``document``. Raises ValueError if it is none of ``dump``."""
        it = cls()
        try:
            for kind, errors in it._errors.items():
                errors.recall(document[kind.name.lower()])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"not a valid file of errors of estimates: {error!r}") from error
        return it

    def forecast(self, guess: Guess | None, bound_s: float) -> Forecast:
        """What to tell a request that waits ``bound_s`` seconds at most."""
        if guess is None:
            return Forecast(None, None, 0.0, bound_s)
        errors, (soonest, latest) = self._errors[guess.kind], guess.ends
        low = soonest * errors.soonest.factor_below(errors.missed / 2)
        high = min(bound_s, max(LEAST_S, latest * errors.latest.factor_above(errors.missed / 2)))
        low = 0.0 if low <= LEAST_S else min(low, high)
        middle = (guess.soonest_s * guess.latest_s) ** 0.5
        return Forecast(guess, min(max(middle, low), high), low, high)

    def learn(self, forecast: Forecast, waited_s: float, now: float) -> None:
        """A request was let in after ``waited_s`` seconds."""
        if forecast.guess is None:
            return
        held = forecast.holds(waited_s)
        self.stated += 1
        self.held += held
        self._errors[forecast.guess.kind].learn(forecast.guess, waited_s, held, now)
