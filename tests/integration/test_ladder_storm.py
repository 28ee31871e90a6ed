"""Ten thousand random requests, commands, crashes, games and cancellations over five models on one emulated card."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Set

import pytest

from roundhouse.footprint.need import GIB, MIB, Footprint
from roundhouse.launchers.base import EngineExit, EngineProcess, LaunchError, Progress, SleepError
from roundhouse.residency.codes import Code
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import Asked, Fact, Gone, Seen, SwitchCommanded, Ticked, Ticket, UnloadCommanded
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.server.memory import Memory, NotReleased
from roundhouse.residency.server.scheduler import Event, Scheduler

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CAPACITY, RESERVE, RAM = 16 * GIB, GIB, 20 * GIB
SIZES = {"tiny": 2 * GIB, "small": 3 * GIB, "half": 6 * GIB, "big": 9 * GIB, "most": 11 * GIB}
LEVELS = {"tiny": (1, 2), "small": (1,), "half": (2,), "big": (1, 2), "most": ()}
STEPS = 10_000
FAULTS = ("start fails", "frees nothing", "does not sleep", "wakes to garbage", "grows", "dies")


class Card:
    """The emulated card: who has how much, and which faults come next."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.held: dict[int, int] = {}
        self.moving: str | None = None
        self.faults: dict[str, int] = dict.fromkeys(FAULTS, 0)
        self.rate = 0.0

    def fault(self, name: str) -> bool:
        it = self.chance.random() < self.rate
        self.faults[name] += it
        return it

    async def turns(self, most: int = 2) -> None:
        """Some time, as the event loop counts it."""
        for _ in range(self.chance.randint(0, most)):
            await asyncio.sleep(0)

    def hold(self, pid: int, size: int) -> None:
        self.held[pid] = size
        assert sum(self.held.values()) <= CAPACITY, f"{self.held} on a card of {CAPACITY}"

    def begin(self, what: str) -> None:
        assert self.moving is None, f"{what} while {self.moving}"
        self.moving = what


class CardMemory(Memory):
    """What the emulated card says, at once."""

    def __init__(self, card: Card) -> None:
        super().__init__(None)
        self.card = card

    async def held(self, device: str, pids: Set[int], beside: int) -> int:
        return sum(self.card.held.get(pid, 0) for pid in pids)

    async def released(self, device: str, pids: Set[int], at_most: int | None, beside: int) -> int:
        held = await self.held(device, pids, beside)
        if at_most is not None and held > at_most:
            raise NotReleased(held, at_most, 0)
        return held


class StormEngine:
    """An engine on the card, with all the faults of one."""

    def __init__(self, launcher: StormLauncher, pid: int) -> None:
        self.launcher, self.card, self.pid = launcher, launcher.card, pid
        self.asleep: int | None = None
        self.residual = GIB // 2
        self.gone = asyncio.Event()

    def pids(self) -> frozenset[int]:
        return frozenset({self.pid})

    async def sleep(self, level: int) -> None:
        name = self.launcher.name
        assert not self.launcher.leases, f"{name} is put to sleep with leases"
        self.card.begin(f"{name} falls asleep")
        try:
            await self.card.turns()
            if self.card.fault("does not sleep"):
                raise SleepError(name, "it does not sleep")
            if not self.card.fault("frees nothing"):
                self.residual += 100 * MIB * self.card.fault("grows")
                self.card.hold(self.pid, self.residual)
            self.asleep = level
        finally:
            self.card.moving = None

    async def wake(self) -> None:
        self.card.begin(f"{self.launcher.name} wakes")
        try:
            self.card.hold(self.pid, SIZES[self.launcher.name])
            await self.card.turns()
            if self.card.fault("wakes to garbage"):
                raise SleepError(self.launcher.name, "it answers something else")
            self.asleep = None
        finally:
            self.card.moving = None

    async def exited(self) -> EngineExit:
        await self.gone.wait()
        return EngineExit(-9, "killed")

    def die(self) -> None:
        self.card.held.pop(self.pid, None)
        self.launcher.leases.clear()
        self.gone.set()

    async def stop(self, force: bool = False) -> None:
        assert force or not self.launcher.leases, f"{self.launcher.name} is stopped with leases"
        await self.card.turns()
        self.die()


class StormLauncher:
    """Makes engines for one model; ``leases`` are those that clients hold on it."""

    identity = "storm"

    def __init__(self, name: str, card: Card, pids: list[int]) -> None:
        self.name, self.card, self.pids = name, card, pids
        self.levels = LEVELS[name]
        self.leases: set[Ticket] = set()
        self.engine: StormEngine | None = None

    def expected(self) -> Footprint | None:
        return Footprint(SIZES[self.name], GIB // 2, SIZES[self.name])

    async def prepare(self) -> None:
        await self.card.turns()

    async def start(self, report: Callable[[Progress], None]) -> EngineProcess:
        self.card.begin(f"{self.name} starts")
        self.pids.append(pid := len(self.pids) + 1)
        try:
            await self.card.turns(8)
            self.card.hold(pid, SIZES[self.name])
            await self.card.turns(8)
            if self.card.fault("start fails"):
                raise LaunchError(self.name, "it does not start", code=self.card.chance.choice([1, -9]))
        except BaseException:
            self.card.held.pop(pid, None)
            raise
        finally:
            self.card.moving = None
        self.engine = StormEngine(self, pid)
        return self.engine

    async def adopt(self) -> EngineProcess | None:
        return None


class HastyScheduler(Scheduler):
    """Its clock is turned on by the storm: back-offs are over soon."""

    passed = 0.0

    @property
    def now(self) -> float:
        return self.passed

    def _set_timer(self) -> None:
        """The storm looks at the machine's alarm clock after each step."""

    def turn(self, seconds: float) -> None:
        self.passed += seconds
        wake = self.machine.wake_at()
        if wake is not None and wake <= self.passed:
            self.post(Ticked())


class Storm:
    """Clients that ask, hold, leave and command at random."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.card = Card(self.chance)
        pids: list[int] = []
        self.launchers = {name: StormLauncher(name, self.card, pids) for name in SIZES}
        models = {
            name: Model("gpu0", Options(it.levels, default=name == "tiny"), it.expected())
            for name, it in self.launchers.items()
        }
        machine = Machine.of(models, {"gpu0": Ledger(CAPACITY, RESERVE)}, Bounds(300, 900, 40), RAM)
        self.scheduler = HastyScheduler(machine, self.launchers, CardMemory(self.card), debug=True)
        self.open: dict[Ticket, str] = {}
        self.refusals: dict[str, int] = {}

    def post(self, make: Callable[[Ticket], Fact], model: str | None) -> Ticket:
        """A new ticket; a request's lease is entered where the engines look for it."""

        def sink(event: Event) -> None:
            if event["event"] == "granted" and model is not None:
                self.launchers[model].leases.add(ticket)
            elif event["event"] == "refused":
                self.open.pop(ticket, None)
                self.refusals[event["code"]] = self.refusals.get(event["code"], 0) + 1
                self.scheduler.forget(ticket)

        ticket = self.scheduler.ticket(sink)
        if model is not None:
            self.open[ticket] = model
        self.scheduler.post(make(ticket))
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self.launchers[self.open.pop(ticket)].leases.discard(ticket)
        self.scheduler.forget(ticket)
        self.scheduler.post(Gone(ticket))

    def step(self) -> None:
        self.scheduler.turn(self.chance.expovariate(1 / 20))
        model, what = self.chance.choice(list(SIZES)), self.chance.random()
        if what < 0.45:
            self.post(lambda t: Asked(t, model), model)
        elif what < 0.9:
            held = [ticket for it in self.launchers.values() for ticket in it.leases]
            leaving = held if held and self.chance.random() < 0.8 else list(self.open)
            if leaving:
                self.leave(self.chance.choice(leaving))
        elif what < 0.94:
            self.post(lambda t: SwitchCommanded(t, model), None)
        elif what < 0.96:
            chosen, force = self.chance.choice([None, model]), self.chance.random() < 0.3
            if force:
                for name in SIZES if chosen is None else [model]:
                    self.launchers[name].leases.clear()  # they are cut, as the command says
            self.post(lambda t: UnloadCommanded(t, chosen, force), None)
        elif what < 0.98:
            engine = self.launchers[model].engine
            if engine is not None and not engine.gone.is_set():
                self.card.faults["dies"] += 1
                engine.die()
        else:
            self.scheduler.post(Seen("gpu0", self.chance.choice([0, 0, 0, 1, 6, 14]) * GIB))


async def settle(storm: Storm) -> None:
    """Let everything end that goes on by itself."""
    async with asyncio.timeout(30):
        while any(e.state.moves for e in storm.scheduler.machine.engines.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # whatever the last step was: the state has no event of its own


@pytest.mark.parametrize("seed", [random.randrange(2**32)])
async def test_a_storm_never_overfills_the_card_overlaps_moves_or_cuts_an_answer(seed: int) -> None:
    print(f"seed {seed}")
    storm = Storm(seed)
    storm.card.rate = 0.05
    for _ in range(STEPS):
        storm.step()
        await storm.card.turns()
        assert storm.scheduler.broken is None
    counters = storm.scheduler.machine.counters
    assert all(storm.card.faults.values()), storm.card.faults
    assert min(counters.starts, counters.sleeps, counters.wakes) > 30, counters
    assert set(storm.refusals) <= {Code.FAILED, Code.DOES_NOT_FIT, Code.QUEUE_FULL, Code.LOADING_TIMEOUT}, (
        storm.refusals
    )

    storm.card.rate = 0.0
    storm.scheduler.post(Seen("gpu0", 0))
    for ticket in list(storm.open):
        storm.leave(ticket)
    await settle(storm)
    for model in SIZES:  # whatever was planted, each model is had again
        asked = storm.post(lambda t, model=model: SwitchCommanded(t, model), None)  # type: ignore[misc]
        await settle(storm)
        assert storm.scheduler.machine.engines[model].state.serves
        assert asked not in storm.scheduler.machine.tickets.place
    await storm.scheduler.close()
    assert storm.card.held == {}
