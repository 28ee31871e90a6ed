"""Any history of facts: the invariants hold, every ticket gets one answer, nobody waits past the bound."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from roundhouse.residency.facts import (
    Asked,
    Exited,
    Fact,
    Failed,
    Gone,
    Grant,
    Ready,
    Refuse,
    Start,
    Stop,
    Stopped,
    SwitchCommanded,
    Ticked,
    Ticket,
    UnloadCommanded,
)
from roundhouse.residency.invariants import check
from roundhouse.residency.machine import Machine
from roundhouse.residency.track import Bounds

MODELS = ("a", "b", "c", "d")
DEVICES = {"a": "gpu0", "b": "gpu0", "c": "gpu0", "d": "gpu1"}
MAX_WAIT, DRAIN, START, STOP = 20.0, 15.0, 6.0, 2.0
models = st.sampled_from(MODELS)


class Shell(RuleBasedStateMachine):
    """A shell whose engines start, die and stop when hypothesis says so, within START and STOP seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine.of(DEVICES, ["gpu0", "gpu1"], Bounds(MAX_WAIT, DRAIN, 50))
        self.now = 0.0
        self.count = 0
        self.asked: dict[Ticket, float] = {}
        self.granted: set[Ticket] = set()
        self.starting: dict[str, float] = {}
        self.running: set[str] = set()
        self.stopping: dict[str, float] = {}

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
                    others = {*self.starting, *self.running, *self.stopping}
                    assert all(DEVICES[o] != DEVICES[m] for o in others), f"{m} starts beside {others}"
                    self.starting[m] = self.now
                case Stop(model=m, force=force):
                    if m in self.stopping:
                        assert force
                        continue
                    self.starting.pop(m, None)
                    self.running.discard(m)
                    self.stopping[m] = self.now
        check(self.machine, self.now)

    def new_ticket(self) -> Ticket:
        self.count += 1
        ticket = Ticket(self.count)
        self.asked[ticket] = self.now
        return ticket

    @rule(model=models, short=st.booleans(), may_switch=st.booleans())
    def ask(self, model: str, short: bool, may_switch: bool) -> None:
        self.post(Asked(self.new_ticket(), model, 5.0 if short else None, may_switch))

    @rule(model=models)
    def switch(self, model: str) -> None:
        ticket = self.new_ticket()
        self.post(SwitchCommanded(ticket, model))
        self.granted.discard(ticket)

    @rule(model=st.one_of(st.none(), models), force=st.booleans())
    def unload(self, model: str | None, force: bool) -> None:
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

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), how=st.sampled_from(["ready", "ready", "failed", "killed"]))
    def start_ends(self, data: st.DataObject, how: str) -> None:
        model = data.draw(st.sampled_from(sorted(self.starting)))
        del self.starting[model]
        if how == "ready":
            self.running.add(model)
            self.post(Ready(model, 1))
        else:
            self.post(Failed(model, how, retryable=how == "killed"))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.post(Exited(data.draw(st.sampled_from(sorted(self.running))), "signal 9"))

    @precondition(lambda self: self.stopping)
    @rule(data=st.data())
    def stop_ends(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(sorted(self.stopping)))
        del self.stopping[model]
        self.post(Stopped(model))

    @rule(seconds=st.floats(0.01, 10.0))
    def time_passes(self, seconds: float) -> None:
        """Advance the clock; engines end their starts and stops in time, and the wake-up is kept."""
        until = self.now + seconds
        while True:
            wake = self.machine.wake_at()
            due = [(wake, "tick", "")] if wake is not None else []
            due += [(at + START, "ready", m) for m, at in self.starting.items()]
            due += [(at + STOP, "stopped", m) for m, at in self.stopping.items()]
            if not due or min(due)[0] > until:
                break
            at, what, model = min(due)
            assert at >= self.now or what == "tick"
            self.now = max(self.now, at)
            if what == "tick":
                self.post(Ticked())
                assert (self.machine.wake_at() or self.now + 1) > self.now, "the machine asks for the same moment again"
            elif what == "ready":
                del self.starting[model]
                self.running.add(model)
                self.post(Ready(model, 1))
            else:
                del self.stopping[model]
                self.post(Stopped(model))
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
        for model, engine in self.machine.engines.items():
            alive = model in self.starting or model in self.running or model in self.stopping
            assert engine.state.occupies == alive


Shell.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAnyHistory = Shell.TestCase
