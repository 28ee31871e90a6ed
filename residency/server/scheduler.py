"""The asyncio shell round the machine: orders become launcher calls, what they bring becomes facts.

It owns the machine, the engines' processes and one task per engine. It never decides.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from roundhouse.launchers.base import EngineProcess, Launcher, LaunchError, Progress, SleepError
from roundhouse.residency.machine import snapshot
from roundhouse.residency.machine.facts import (
    Adopted,
    Alarm,
    Exited,
    Fact,
    Failed,
    Grant,
    Order,
    Prepare,
    Ready,
    Refuse,
    Seen,
    ShutdownCommanded,
    Sleep,
    Slept,
    Start,
    Started,
    Stop,
    Stopped,
    Ticked,
    Ticket,
    Wake,
    Woke,
)
from roundhouse.residency.machine.invariants import check
from roundhouse.residency.machine.machine import Machine
from roundhouse.residency.server.journal import Journal
from roundhouse.residency.server.memory import GaugeError, Memory, NotReleased
from roundhouse.residency.server.store import Store
from roundhouse.residency.server.tasks import Tasks

log = logging.getLogger("roundhouse.residency")

Event = dict[str, Any]
Sink = Callable[[Event], None]

FORCED_SHUTDOWN_S = 1.5
"""On SIGTERM without a shutdown command before: how long answers may still run. Whoever sends it (honcho,
which kills after 5 s, systemd, a person) means now; ``down`` drains before."""

LEARNS = (Ready, Slept, Woke, Stopped)
"""The facts that bring measurements."""


class Scheduler:
    """Runs one machine. Everything happens on one event loop; every method but ``close`` is synchronous."""

    def __init__(
        self,
        machine: Machine,
        launchers: Mapping[str, Launcher],
        memory: Memory | None = None,
        store: Store | None = None,
        journal: Journal | None = None,
        *,
        debug: bool = False,
    ) -> None:
        self.machine = machine
        self._launchers = launchers
        self._memory = memory or Memory(None)
        self._store = store
        self._journal = journal
        self._debug = debug
        self._loop = asyncio.get_running_loop()
        self._tickets = itertools.count(1)
        self._sinks: dict[Ticket, Sink] = {}
        self._watchers: set[Sink] = set()
        self._said: dict[str, int] = {}  # how many decisions of each device were told
        self._processes: dict[str, EngineProcess] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._moves: dict[str, asyncio.Task[None]] = {}  # falling asleep, or waking
        self._stops: dict[str, asyncio.Task[None]] = {}
        self._prepares: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._background = Tasks(self.fail)
        self.closed = asyncio.Event()
        self.broken: BaseException | None = None

    @property
    def now(self) -> float:
        """The clock of all facts: the event loop's monotonic seconds."""
        return self._loop.time()

    # --- for the control plane ---------------------------------------------------------------

    def ticket(self, sink: Sink) -> Ticket:
        """A new ticket whose events go to ``sink`` (called synchronously, must not raise)."""
        ticket = Ticket(next(self._tickets))
        self._sinks[ticket] = sink
        return ticket

    def forget(self, ticket: Ticket) -> None:
        """No more events for ``ticket``."""
        self._sinks.pop(ticket, None)

    def watch(self, sink: Sink) -> Callable[[], None]:
        """Send every public event to ``sink`` until the returned function is called."""
        self._watchers.add(sink)
        return lambda: self._watchers.discard(sink)

    def status(self) -> dict[str, Any]:
        """The public status at this moment, with the progress of starts."""
        result = snapshot.status(self.machine, self.now)
        for model, progress in self._progress.items():
            result["models"][model]["progress"] = {"phase": progress.phase, "percent": progress.percent}
        for device in result["devices"]:
            device["memory"]["programs"] = list(self._memory.others(device["id"]))
        return result

    def pids(self) -> set[int]:
        """The main process of every engine that is looked after."""
        return {process.pid for process in self._processes.values()}

    def queued(self, model: str, ticket: Ticket) -> Event:
        """What a request, or a command, that waits for ``model`` is told: its position, and the seconds it waits."""
        engine = self.machine.engines[model]
        waiter = engine.waiting.get(ticket)
        forecast = waiter.forecast if waiter else None
        forecast = forecast or self.machine.forecast(engine, self.now)
        position = waiter.place + 1 if waiter else len(engine.waiting)
        return {"event": "queued", "model": model, "position": position, **forecast.seconds()}

    def post(self, fact: Fact) -> None:
        """Give the machine a fact and carry out what it orders."""
        now = self.now  # one moment for both: a microsecond later a wake-up may be due that was not
        try:
            orders = self.machine.handle(fact, now)
            if self._debug:
                check(self.machine, now)
        except Exception as error:
            log.exception("event=bug fact=%r", fact)
            self.fail(error)
            raise
        if self._store is not None and isinstance(fact, LEARNS):
            self._store.keep(self.machine.engines[fact.model], self._launchers[fact.model].identity)
        if self._journal is not None:
            self._journal.record(fact, orders, now)
        for order in orders:
            self._act(order)
        self._tell_reasons()
        self._set_timer()

    def fail(self, error: BaseException) -> None:
        """End the service, whose state cannot be trusted any more. The supervisor starts another."""
        self.broken = self.broken or error
        self.closed.set()

    def _tell_reasons(self) -> None:
        """Tell those who watch why a device stays with its model, or leaves it, when that has changed."""
        for device in self.machine.devices.values():
            said = sum(device.decisions.counts.values())
            if said != self._said.get(device.name, 0):
                self._said[device.name] = said
                kind, reason = device.decisions.kind, device.decisions.reason
                log.debug("event=decided device=%s kind=%s reason=%r", device.name, kind, reason)
                self._announce({"event": "decided", "device": device.name, "kind": kind, "reason": reason})

    # --- orders --------------------------------------------------------------------------------

    def _act(self, order: Order) -> None:
        match order:
            case Grant(ticket=ticket):
                self._tell(ticket, {"event": "granted"})
            case Refuse(ticket=ticket, code=code, message=message, retry_after_s=retry):
                self._tell(
                    ticket,
                    {
                        "event": "refused",
                        "code": code.value,
                        "message": message,
                        "status": code.status,
                        "retry_after_s": retry,
                    },
                )
            case Prepare(model=model):
                log.debug("event=prepare model=%s", model)
                self._prepares[model] = self._background.start(self._prepare(model), f"prepare {model}")
            case Start(model=model):
                for other, ahead in self._prepares.items():
                    if other != model:
                        ahead.cancel()  # the disk is for who waits
                self._tasks[model] = self._background.start(self._run(model), f"engine {model}")
            case Sleep(model=model, level=level, at_most=at_most, reason=reason):
                self._move(model, lambda: self._sleep(model, level, at_most))
                self._announce({"event": "sleeping", "model": model, "level": level, "reason": reason})
            case Wake(model=model):
                self._move(model, lambda: self._wake(model))
                self._announce({"event": "waking", "model": model})
            case Stop(model=model, force=force, reason=reason):
                self._order_stop(model, force, reason)
            case Alarm(text=text):
                log.warning("event=alarm text=%r", text)
                self._announce({"event": "alarm", "text": text})

    def _order_stop(self, model: str, force: bool, reason: str) -> None:
        log.debug("event=stop model=%s force=%s reason=%r", model, force, reason)
        if model in self._stops:  # an orderly stop is under way and somebody has lost patience
            process = self._processes.get(model)
            if process is not None:
                self._background.start(process.stop(force=True), f"kill {model}")
            return
        # At once, and not in the task: else what they are about to report would be true no more.
        ending = [self._tasks.pop(model, None), self._moves.pop(model, None)]
        tasks = [task for task in ending if task is not None]
        for task in tasks:  # this one may be among them
            task.cancel()  # during the start the launcher ends what it has started; later it only watched
        self._stops[model] = self._background.start(self._stop(model, force, tasks), f"stop {model}")
        self._announce({"event": "stopping", "model": model, "reason": reason})

    def _tell(self, ticket: Ticket, event: Event) -> None:
        sink = self._sinks.get(ticket)
        if sink is not None:
            sink(event)

    def _announce(self, event: Event) -> None:
        """Send an event to the watchers, and to the requests that it concerns."""
        for sink in list(self._watchers):
            sink(event)
        concerned = {event.get("model"), *(device.switch.target for device in self.machine.devices.values())}
        for engine in [e for e in self.machine.engines.values() if e.model in concerned]:
            for ticket in (*engine.waiting, *engine.switches):
                self._tell(ticket, event)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.machine.wake_at()
        if at is not None:
            self._timer = self._loop.call_at(max(at, self.now), lambda: self.post(Ticked()))

    # --- engines -------------------------------------------------------------------------------

    async def _prepare(self, model: str) -> None:
        try:
            await self._launchers[model].prepare()
        except Exception:
            log.exception("event=prepare_failed model=%s", model)

    def _device(self, model: str) -> str:
        return self.machine.engines[model].device

    def _beside(self, model: str) -> int:
        """What the ledger says that everybody else has of the model's device."""
        device = self.machine.devices[self._device(model)]
        return device.booked(self.now, but=model) + device.ledger.foreign

    def _log_switch(self, model: str) -> None:
        device = self.machine.devices[self._device(model)]
        log.info(
            "event=switch device=%s from=%s to=%s reason=%r",
            device.name,
            device.switch.came_from,
            model,
            device.decisions.reason,
        )

    async def _run(self, model: str) -> None:
        """Bring one engine up and watch it until it is gone. Cancelled by ``_stop`` while starting."""
        began = self.now
        self._log_switch(model)
        self._report(model, Progress("starting"))
        try:
            process = await self._launchers[model].start(lambda progress: self._report(model, progress))
        except LaunchError as error:
            log.error("event=failed model=%s took_s=%.3f text=%r", model, self.now - began, str(error))
            self.post(Failed(model, str(error), error.retryable))
            return
        except Exception as error:
            log.exception("event=failed model=%s", model)
            self.post(Failed(model, f"model {model!r}: {type(error).__name__}: {error}"))
            return
        finally:
            self._progress.pop(model, None)
        self._processes[model] = process
        awake = await self._memory.held(self._device(model), process.pids(), self._beside(model))
        log.info("event=switched to=%s pid=%d took_s=%.3f", model, process.pid, self.now - began)
        self.post(Ready(model, process.pid, awake))
        self._announce({"event": "ready", "model": model})
        await self._watch(model, process)

    async def _watch(self, model: str, process: EngineProcess) -> None:
        exit_ = await process.exited()
        log.error("event=exited model=%s text=%r", model, exit_.text)
        self.post(Exited(model, exit_.text))

    def _move(self, model: str, doing: Callable[[], Awaitable[Fact]]) -> None:
        """Put an engine to sleep or wake it; what comes of it is a fact, unless its stop was ordered meanwhile."""
        began = self.now

        async def move() -> None:
            try:
                fact = await doing()
            except (SleepError, NotReleased, GaugeError) as error:
                fact = Failed(model, str(error))
            except Exception as error:
                log.exception("event=move_failed model=%s", model)
                fact = Failed(model, f"model {model!r}: {type(error).__name__}: {error}")
            if self._moves.get(model) is not asyncio.current_task():
                return
            del self._moves[model]
            log.info("event=%s model=%s took_s=%.3f", type(fact).__name__.lower(), model, self.now - began)
            self.post(fact)
            if not isinstance(fact, Failed):
                self._announce({"event": "ready" if isinstance(fact, Woke) else "asleep", "model": model})

        self._moves[model] = self._background.start(move(), f"move {model}")

    async def _sleep(self, model: str, level: int, at_most: int | None) -> Fact:
        process = self._processes[model]
        await process.sleep(level)
        residual = await self._memory.released(self._device(model), process.pids(), at_most, self._beside(model))
        return Slept(model, level, residual)

    async def _wake(self, model: str) -> Fact:
        self._log_switch(model)
        await self._processes[model].wake()
        return Woke(model)

    async def _stop(self, model: str, force: bool, ending: Sequence[asyncio.Task[None]]) -> None:
        began = self.now
        if ending:
            await asyncio.wait(ending)
        process = self._processes.get(model)
        if process is not None:
            pids = process.pids()
            await process.stop(force)
            try:
                await self._memory.released(self._device(model), pids, 0, self._beside(model))
            except NotReleased as error:
                log.error("event=memory_not_back model=%s text=%r", model, str(error))
            except GaugeError:
                pass  # said where the driver is asked; the process is gone, and its memory will be
        del self._stops[model]
        self._processes.pop(model, None)
        log.debug("event=stopped model=%s took_s=%.3f", model, self.now - began)
        self.post(Stopped(model))
        self._announce({"event": "stopped", "model": model})

    def _report(self, model: str, progress: Progress) -> None:
        if self._progress.get(model) == progress:
            return
        self._progress[model] = progress
        if progress.pid is not None and progress.pid != self.machine.engines[model].pid:
            self.post(Started(model, progress.pid))
        self._announce({"event": "starting", "model": model, "phase": progress.phase, "percent": progress.percent})

    # --- life ------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Take over healthy engines of an earlier process before anybody may ask.

        Of a device of which nothing is known at most one that is awake: else the earlier process knew what fits.
        """
        taken: set[str] = set()
        for model, launcher in self._launchers.items():
            process = await launcher.adopt()
            if process is None:
                continue
            device, level = self._device(model), process.asleep
            if level is None and device in taken:
                log.warning("event=not_adopted model=%s reason='%s has an engine already'", model, device)
                await process.stop(force=True)
                continue
            if level is None and self.machine.devices[device].ledger.capacity is None:
                taken.add(device)
            self._processes[model] = process
            self._tasks[model] = self._background.start(self._watch(model, process), f"engine {model}")
            log.info("event=adopted model=%s pid=%d", model, process.pid)
            self.post(Adopted(model, process.pid, level))

    async def watch_others(self) -> None:
        """Look at what other programs use of the devices, until cancelled."""
        while await self._memory.look():
            await self.see_others()

    async def see_others(self) -> None:
        """Look once. To be done before anybody may ask: else a desktop's memory is booked as the first engine's."""
        for name, device in self.machine.devices.items():
            begun = self.machine.counters.transitions
            pids = [p.pids() for model, p in self._processes.items() if self._device(model) == name]
            foreign = await self._memory.foreign(name, frozenset().union(*pids), device.booked(self.now))
            if device.moving is not None or self.machine.counters.transitions != begun:
                continue  # in the middle of a transition nobody can tell whose memory is whose
            if foreign is not None and foreign != device.ledger.foreign:
                self.post(Seen(name, foreign))

    async def close(self) -> None:
        """Stop every engine: answers may run for FORCED_SHUTDOWN_S more, then all ends at once."""
        for task in self._prepares.values():
            task.cancel()
        if not any(e.state.occupies for e in self.machine.engines.values()):
            return
        done = asyncio.Event()
        ticket = self.ticket(lambda _event: done.set())
        self.post(ShutdownCommanded(ticket))
        try:
            await asyncio.wait_for(done.wait(), FORCED_SHUTDOWN_S)
        except TimeoutError:
            self.post(ShutdownCommanded(self.ticket(lambda _event: None), force=True))
            await done.wait()
