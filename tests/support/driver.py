"""The machine on a clock that the test turns."""

from __future__ import annotations

from roundhouse.footprint.need import GIB, Footprint
from roundhouse.residency.learned.haste import HOLD_S
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import Asked, Fact, Gone, Order, Ready, Slept, Stopped, Ticked, Ticket, Woke
from roundhouse.residency.machine.invariants import check
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.machine.states import State
from roundhouse.residency.machine.tickets import key_of


class Driver:
    """A machine with a clock of its own; checks the invariants after every fact."""

    def __init__(self, machine: Machine | None = None, **bounds: float) -> None:
        three = {"a": "gpu0", "b": "gpu0", "c": "gpu0"}
        self.machine = machine or Machine.of(three, ["gpu0"], Bounds(**bounds))  # type: ignore[arg-type]
        self.now = 0.0
        self.tickets = 0

    def __call__(self, fact: Fact, after: float = 0.0) -> list[Order]:
        self.now += after
        orders = self.machine.handle(fact, self.now)
        check(self.machine, self.now)
        return orders

    def ask(self, model: str, after: float = 0.0, *, stays: bool = True, **more: object) -> tuple[Ticket, list[Order]]:
        """A request of a caller who asks only this once, unless ``more`` names another.

        ``stays``: it is known of its key that it does not give up at once.
        """
        self.tickets += 1
        ticket = Ticket(self.tickets)
        fact = Asked(ticket, model, **{"caller": f"caller {ticket}", **more})  # type: ignore[arg-type]
        if stays:
            self.machine.tickets.callers.haste.waited(key_of(fact.caller), model, HOLD_S, left=False)
        return ticket, self(fact, after)

    def ready(self, model: str, after: float = 0.0) -> list[Order]:
        return self(Ready(model, pid=4711), after)

    def slept(self, model: str, after: float = 0.0, residual: int | None = None) -> list[Order]:
        return self(Slept(model, self.machine.engines[model].level, residual), after)

    def tick(self) -> list[Order]:
        wake = self.machine.wake_at()
        assert wake is not None
        self.now = max(self.now, wake)
        return self(Ticked())

    def bring(self, model: str) -> None:
        """Make ``model`` answer, with nobody on it, whoever has to make room for it."""
        ticket, _ = self.ask(model)
        while not self.machine.engines[model].state.serves:
            moving = next(e for e in self.machine.engines.values() if e.state.moves)
            facts = {
                State.STARTING: Ready(moving.model, 4711),
                State.SLEEPING: Slept(moving.model, moving.level),
                State.WAKING: Woke(moving.model),
                State.STOPPING: Stopped(moving.model),
            }
            self(facts[moving.state])
        self(Gone(ticket))

    def state(self, model: str) -> State:
        return self.machine.engines[model].state


def on_card(
    sizes: dict[str, float], ram: float | None = None, card: float = 16, reserve: float = 1, **options: Options
) -> Driver:
    """A machine on one card of ``card`` GiB: name -> GiB awake; asleep each keeps 1 and pins what it has awake.

    All may sleep at both levels, unless ``options`` says otherwise.
    """
    models = {
        name: Model("gpu0", options.get(name, Options((1, 2))), Footprint(int(s * GIB), GIB, int(s * GIB)))
        for name, s in sizes.items()
    }
    ledger = Ledger(int(card * GIB), int(reserve * GIB))
    return Driver(Machine.of(models, {"gpu0": ledger}, Bounds(), None if ram is None else int(ram * GIB)))
