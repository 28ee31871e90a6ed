"""Any history of facts: the invariants hold, every ticket gets one answer, nobody waits past the bound."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roundhouse.footprint.need import GIB, Footprint
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import (
    Asked,
    Exited,
    Fact,
    Failed,
    Gone,
    Grant,
    Ready,
    Refuse,
    Seen,
    Sleep,
    Slept,
    Start,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticked,
    Ticket,
    UnloadCommanded,
    Wake,
    Woke,
)
from roundhouse.residency.machine.invariants import check
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.machine.states import State

DEVICES = {"a": "gpu0", "b": "gpu0", "c": "gpu0", "d": "gpu1"}
MAX_WAIT, DRAIN, START, MOVE, STOP = 20.0, 15.0, 6.0, 1.5, 2.0
TAKES = {"start": START, "sleep": MOVE, "wake": MOVE, "stop": STOP}


class Shell(RuleBasedStateMachine):
    """A shell whose engines move and die when hypothesis says so, a move within START, MOVE or STOP seconds.

    ``moving``: model -> (what it does, since when, at which level); ``here``: every engine that has a process.
    """

    devices = DEVICES

    def __init__(self) -> None:
        super().__init__()
        self.machine = self.make()
        self.now = 0.0
        self.count = 0
        self.asked: dict[Ticket, float] = {}
        self.granted: set[Ticket] = set()
        self.moving: dict[str, tuple[str, float, int]] = {}
        self.here: set[str] = set()
        self.post(Ticked())

    def make(self) -> Machine:
        return Machine.of(DEVICES, ["gpu0", "gpu1"], Bounds(MAX_WAIT, DRAIN, 50))

    def post(self, fact: Fact) -> None:
        for order in self.machine.handle(fact, self.now):
            match order:
                case Grant(ticket=t):
                    assert t in self.asked, f"{t} answered twice"
                    del self.asked[t]
                    self.granted.add(t)
                case Refuse(ticket=t):
                    assert t in self.asked, f"{t} answered twice"
                    del self.asked[t]
                case Start(model=m):
                    assert m not in self.here
                    self.begin(m, "start")
                case Sleep(model=m, level=level):
                    assert not self.machine.engines[m].leases
                    self.begin(m, "sleep", level)
                case Wake(model=m):
                    self.begin(m, "wake", self.machine.engines[m].level)
                case Stop(model=m, force=force):
                    if self.moving.get(m, ("",))[0] == "stop":
                        assert force
                        continue
                    if self.moving.pop(m, ("",))[0] == "start":
                        self.has_to_end(m)
                    self.begin(m, "stop")
        check(self.machine, self.now)

    def has_to_end(self, model: str) -> None:
        """A start is ended by a command, or if nobody waits for it and another model is to come; and only then."""
        engine = self.machine.engines[model]
        others = [e for e in self.machine.engines.values() if e.device == engine.device and e is not engine]
        wanted = any(e.lacks or e.recalled for e in others)
        assert engine.unloads or (wanted and not engine.asked_for), f"the start of {engine} was ended for nobody"

    def begin(self, model: str, what: str, level: int = 0) -> None:
        others = [m for m in self.moving if self.devices[m] == self.devices[model]]
        assert not others, f"{model} is to {what} while {others} move"
        self.here.add(model)
        self.moving[model] = (what, self.now, level)

    def end(self, model: str, well: bool = True, killed: bool = False) -> None:
        """The move is over."""
        what, _, level = self.moving.pop(model)
        if what == "stop":
            self.here.discard(model)
            self.post(Stopped(model))
        elif not well:
            if what == "start":
                self.here.discard(model)
            self.post(Failed(model, f"{what} failed", retryable=killed))
        elif what == "start":
            self.post(Ready(model, 1, self.awake(model)))
        elif what == "sleep":
            self.post(Slept(model, level, self.residual(model)))
        else:
            self.post(Woke(model))

    def awake(self, model: str) -> int | None:
        return None

    def residual(self, model: str) -> int | None:
        return None

    def new_ticket(self) -> Ticket:
        self.count += 1
        ticket = Ticket(self.count)
        self.asked[ticket] = self.now
        return ticket

    @rule(data=st.data(), short=st.booleans(), may_switch=st.booleans())
    def ask(self, data: st.DataObject, short: bool, may_switch: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.devices)))
        self.post(Asked(self.new_ticket(), model, 5.0 if short else None, may_switch))

    @rule(data=st.data())
    def switch(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.devices)))
        ticket = self.new_ticket()
        self.post(SwitchCommanded(ticket, model))
        self.granted.discard(ticket)

    @rule(data=st.data(), force=st.booleans())
    def unload(self, data: st.DataObject, force: bool) -> None:
        model = data.draw(st.sampled_from([None, *sorted(self.devices)]))
        ticket = self.new_ticket()
        self.post(UnloadCommanded(ticket, model, force))

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.granted)))
        self.granted.discard(ticket)
        self.post(Gone(ticket))

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.asked)))
        del self.asked[ticket]
        self.post(Gone(ticket))

    @precondition(lambda self: self.moving)
    @rule(data=st.data(), how=st.sampled_from(["well", "well", "well", "badly", "killed"]))
    def move_ends(self, data: st.DataObject, how: str) -> None:
        model = data.draw(st.sampled_from(sorted(self.moving)))
        self.end(model, how == "well", how == "killed")

    @precondition(lambda self: self.here)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.here)))
        if self.moving.get(model, ("",))[0] not in ("start", "stop"):
            self.post(Exited(model, "signal 9"))

    @rule(seconds=st.floats(0.01, 10.0))
    def time_passes(self, seconds: float) -> None:
        """Advance the clock; moves end in time, and the wake-up is kept."""
        until = self.now + seconds
        while True:
            wake = self.machine.wake_at()
            due = [(wake, "")] if wake is not None else []
            due += [(at + TAKES[what], m) for m, (what, at, _) in self.moving.items()]
            if not due or min(due)[0] > until:
                break
            at, model = min(due)
            assert at >= self.now or not model
            self.now = max(self.now, at)
            if model:
                self.end(model)
            else:
                self.post(Ticked())
                assert (self.machine.wake_at() or self.now + 1) > self.now, "the machine asks for the same moment again"
        self.now = until

    @invariant()
    def nobody_waits_past_the_bound(self) -> None:
        for engine in self.machine.engines.values():
            for waiter in engine.waiting.values():
                # One drain and one switch; a start that was killed from outside may be made twice.
                bound = MAX_WAIT + DRAIN + STOP + 2 * START + STOP
                assert self.now - waiter.since <= bound, f"{waiter} waits for {engine}"

    @invariant()
    def the_machine_agrees_with_the_processes(self) -> None:
        assert {m for m, e in self.machine.engines.items() if e.state.occupies} == self.here


Shell.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyHistory = Shell.TestCase

SIZES = {"tiny": 2 * GIB, "small": 4 * GIB, "half": 7 * GIB, "big": 12 * GIB, "whole": 15 * GIB, "other": 6 * GIB}
CARD, RESERVE, RAM = 16 * GIB, GIB, 20 * GIB
LADDER = {
    "tiny": Options((1, 2)),
    "small": Options((1,), idle_sleep_s=5.0, idle_stop_s=9.0),
    "half": Options((2,), default=True),
    "big": Options((1, 2), preload=True),
    "whole": Options(),
    "other": Options((1, 2)),
}


class Card(Shell):
    """Six models of different sizes on two cards, on all rungs of the ladder, while a game comes and goes."""

    devices = {name: "gpu1" if name == "other" else "gpu0" for name in SIZES}  # noqa: RUF012

    def make(self) -> Machine:
        self.has: dict[str, int] = {}
        models = {n: Model(self.devices[n], LADDER[n], Footprint(size, GIB, size)) for n, size in SIZES.items()}
        cards = {"gpu0": Ledger(CARD, RESERVE), "gpu1": Ledger(CARD, RESERVE)}
        return Machine.of(models, cards, Bounds(MAX_WAIT, DRAIN, 50), RAM)

    def begin(self, model: str, what: str, level: int = 0) -> None:
        super().begin(model, what, level)
        if what in ("start", "wake"):
            self.has[model] = SIZES[model]
            self.fits()

    def end(self, model: str, well: bool = True, killed: bool = False) -> None:
        what = self.moving[model][0]
        if what == "sleep" and well:
            self.has[model] = GIB
        elif what == "stop" or (what == "start" and not well):
            self.has.pop(model, None)
        super().end(model, well, killed)

    def fits(self) -> None:
        for device in ("gpu0", "gpu1"):
            held = {m: size for m, size in self.has.items() if self.devices[m] == device}
            assert sum(held.values()) <= CARD - RESERVE, f"{held} on {device}"

    def awake(self, model: str) -> int | None:
        return SIZES[model]

    def residual(self, model: str) -> int | None:
        return GIB

    @rule(foreign=st.integers(0, 16))
    def a_game_comes_or_goes(self, foreign: int) -> None:
        self.post(Seen("gpu0", foreign * GIB))

    @invariant()
    def pinned_ram_is_within_its_budget(self) -> None:
        pinned = [e for e in self.machine.engines.values() if e.pins or (e.state is State.SLEEPING and e.level == 1)]
        assert sum(SIZES[e.model] for e in pinned) <= RAM

    @invariant()
    def all_that_there_is_is_accounted_for(self) -> None:
        assert set(self.has) == self.here


Card.TestCase.settings = settings(max_examples=200, stateful_step_count=70, deadline=None)
TestAnyHistoryOnTheLadder = Card.TestCase
