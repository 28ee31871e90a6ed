"""Who is going to come back, to which model, and when: learned from the pauses of each caller. Pure.

A caller is a key plus its session. When a request of it ends, a *pause* on that model begins; its next request ends
a pause on the same model, or else one on any. From the pauses that have ended follow how likely
it comes back to the model, and after how long. Nothing is assumed of a caller who was never seen to come back, but
what its likes did: the first pauses of all callers are one pool. How long its answers take is learned, too.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from roundhouse.residency.learned.durations import USUAL, Answer, Answers
from roundhouse.residency.learned.foresight import Next
from roundhouse.residency.learned.haste import Haste
from roundhouse.residency.learned.pauses import LATE, LATE_S, Past, Pause, Return, back, ended_by
from roundhouse.residency.learned.rates import Rates

HISTORY = 12
"""Pauses kept of a caller: more say nothing of how it works today."""

HABIT = 4
"""Requests kept of what a caller asks for after one for a model: enough to see a turn, few enough to see its end."""

SEEN = 2
"""So many of them have to be known before anything is foreseen."""

POOL = 32
"""First pauses kept, of all callers."""

CALLERS = 2000
"""Callers remembered; beyond, those not heard of for the longest time go."""

OPEN = 16
"""Pauses of one caller that may be open at once: parallel streams under one key."""

LOOSE, TIGHT = 0.75, 0.03
"""``LOOSE``: the share of its trust that a caller loses when it sends a request while all earlier ones are unanswered.
``TIGHT``: the share that it regains with any other request. A caller that does not wait for its answers has no return
that could be predicted. Streams that begin at once, or one after the other beside pauses, are no sign of it."""

AT_ONCE_S = 1.0
"""Requests that one caller begins within so long began together: parallel streams, as of a script with workers."""

NEWCOMER_S = 60.0
"""For how long somebody without habits may as well come back to the same model, in seconds."""


@dataclass(slots=True)
class Caller:
    """What is known of one caller, the latest pause first.

    ``unanswered``: how many of its requests wait or are being answered; ``asked_at``: when it asked last (clock
    seconds); ``tied``: from 0 to 1, how far it asks only after it was answered; ``habits``: after a request for a
    model, which it asked for next, and after how many seconds; ``answers``: how long those to it take.
    """

    past: deque[Past] = field(default_factory=lambda: deque(maxlen=HISTORY))
    open: deque[Pause] = field(default_factory=lambda: deque(maxlen=OPEN))
    habits: dict[str, deque[tuple[str, float]]] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    unanswered: int = 0
    asked_at: float = 0.0
    tied: float = 1.0

    def asks(self, now: float) -> None:
        """Take in that it asks, and whether it had been answered before."""
        if self.open or not self.unanswered:
            self.tied += TIGHT * (1.0 - self.tied)
        elif now > self.asked_at + AT_ONCE_S:
            self.tied -= LOOSE * self.tied
        self.unanswered += 1
        self.asked_at = now


class Callers:
    """All callers. One owner: the machine."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Caller] = OrderedDict()
        self._pool: deque[Past] = deque(maxlen=POOL)
        self._newcomers: OrderedDict[int, Pause] = OrderedDict()  # first pauses that go on, the oldest first
        self._by_model: dict[str, OrderedDict[int, tuple[str, Pause]]] = {}
        self._strangers, self._surprises = Rates(), Rates()
        self.haste = Haste()
        self.version = 0

    # --- kept over restarts ---------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """What was learned, as JSON: nothing of what goes on."""
        known = {name: [[p.gap, p.same] for p in it.past] for name, it in self._known.items() if it.past}
        habits = {
            name: {model: list(then) for model, then in it.habits.items()}
            for name, it in self._known.items()
            if it.habits
        }
        answers = {name: self._known[name].answers.dump() for name in known}
        pool = [[p.gap, p.same] for p in self._pool]
        haste = self.haste.dump()
        return {"callers": known, "pool": pool, "habits": habits, "answers": answers, "haste": haste}

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> Callers:
        """Callers that remember ``document``. Raises ValueError if it is none of ``dump``."""
        it = cls()
        try:
            for name, past in list(document["callers"].items())[-CALLERS:]:
                it._known[str(name)] = caller = Caller()
                caller.past.extend(Past(float(gap), bool(same)) for gap, same in past)
            it._pool.extend(Past(float(gap), bool(same)) for gap, same in document["pool"])
            for name, habits in document.get("habits", {}).items():  # of an older version there are none
                if name in it._known:
                    for model, then in habits.items():
                        steps = ((str(to), float(gap)) for to, gap in then)
                        it._known[name].habits[str(model)] = deque(steps, maxlen=HABIT)
            for name, durations in document.get("answers", {}).items():
                if name in it._known:
                    it._known[name].answers = Answers.load(durations)
            it.haste = Haste.load(document.get("haste", ()))
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a valid file of callers: {error!r}") from error
        return it

    # --- what happens ---------------------------------------------------------------------------------

    def asked(self, caller: str, model: str, now: float) -> None:
        """A request came: a pause of its caller is over."""
        it = self._caller(caller)
        it.asks(now)
        if not it.open:
            self._strangers.count(model, now)
            self._surprises.count(model, now)
            return
        pause = ended_by(it.open, it.past, model, now)
        if pause.model != model:
            self._strangers.count(model, now)
        habit = it.habits.setdefault(pause.model, deque(maxlen=HABIT))
        if model not in (to for to, _ in habit):
            self._surprises.count(model, now)
        habit.append((model, max(0.0, now - pause.since)))
        it.open.remove(pause)
        past = Past(max(0.0, now - pause.since), pause.model == model)
        it.past.appendleft(past)
        if pause.first:
            self._pool.appendleft(past)
        self._close(pause)

    def ended(self, caller: str, model: str, now: float, took_s: float) -> None:
        """A request of the caller was answered within ``took_s`` seconds: a pause begins."""
        it = self._caller(caller)
        it.answers.took(model, took_s)
        it.unanswered = max(0, it.unanswered - 1)
        if len(it.open) == OPEN:
            self._close(it.open.popleft())
        pause = Pause(model, now, first=not it.past and not it.open)
        it.open.append(pause)
        self._by_model.setdefault(model, OrderedDict())[id(pause)] = (caller, pause)
        if pause.first:
            self._newcomers[id(pause)] = pause
            while len(self._newcomers) > POOL:
                self._newcomers.popitem(last=False)
        self.version += 1

    def unanswered(self, caller: str) -> None:
        """A request of the caller is over without an answer: nothing is known of what it does next."""
        it = self._known.get(caller)
        if it is not None:
            it.unanswered = max(0, it.unanswered - 1)

    def _caller(self, name: str) -> Caller:
        """What is known of the caller, who was heard of last now."""
        it = self._known.get(name)
        if it is None:
            it = self._known[name] = Caller()
            while len(self._known) > CALLERS:
                _, gone = self._known.popitem(last=False)
                for pause in gone.open:
                    self._close(pause)
        self._known.move_to_end(name)
        return it

    def _close(self, pause: Pause) -> None:
        self._newcomers.pop(id(pause), None)
        self._by_model[pause.model].pop(id(pause), None)
        self.version += 1

    # --- what is to be expected -------------------------------------------------------------------------

    def returns(self, model: str, now: float, most: int) -> list[Return]:
        """Who may come back to the model: of those who left last, at most ``most``."""
        pausing = self._by_model.get(model, OrderedDict[int, tuple[str, Pause]]())
        last = islice(reversed(pausing.values()), most)
        return [it for caller, pause in last if (it := self._return(caller, pause, now)).steps]

    def strangers(self, model: str, now: float) -> float:
        """How many requests a second came of late for the model from callers who were not expected back there."""
        return self._strangers.of(model, now)

    def surprises(self, model: str, now: float) -> float:
        """How many requests a second came of late for the model that no habit of a caller foretold."""
        return self._surprises.of(model, now)

    def answer(self, caller: str, model: str) -> Answer:
        """How long the next answer to the caller takes."""
        it = self._known.get(caller)
        return USUAL if it is None else it.answers.next(model)

    def nexts(self, now: float, most: int) -> list[Next]:
        """What those who pause may ask for: of each model's callers those who left last, at most ``most``.

        Who has no habits yet may as well come back. Whoever pauses several times at once still asks for one thing next.
        """
        found = []
        for model, pausing in self._by_model.items():
            for caller, pause in islice(reversed(pausing.values()), most):
                found += self._next(caller, model, pause, now)
        return found

    def _next(self, caller: str, model: str, pause: Pause, now: float) -> list[Next]:
        it = self._known[caller]
        habit = it.habits.get(model, ())
        if len(habit) < SEEN:
            until = pause.since + NEWCOMER_S
            return [Next(caller, model, 0.5 / len(it.open), 0.0, until)] if now < until else []
        stretch = 1 + LATE / (1 + len(habit))
        ends = [(to, pause.since + gap, pause.since + gap * stretch + LATE_S) for to, gap in habit]
        left = [(to, max(0.0, at - now), until) for to, at, until in ends if until > now]
        return [Next(caller, to, it.tied / len(left) / len(it.open), in_s, until) for to, in_s, until in left]

    def after(self, caller: str, model: str, until: float) -> Return:
        """How ``caller``, which is being answered until about then, may come back to the model after that."""
        return self._return(caller, Pause(model, until, first=False), until)

    def _return(self, caller: str, pause: Pause, now: float) -> Return:
        it, likes = self._known.get(caller), list(self._likes(pause, now))
        return back(caller, pause, it.past if it else (), likes, now, it.tied if it else 1.0)

    def _likes(self, pause: Pause, now: float) -> Iterator[tuple[float, float, bool]]:
        """The first pauses of all callers. An unfinished one is censored: longer than its age by now."""
        for past in self._pool:
            yield 1.0, past.gap, past.same
        for other in self._newcomers.values():
            if other is not pause:
                yield 1.0, now - other.since, False
