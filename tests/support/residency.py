"""A residency inside the test's own event loop, with engines that start and stop when the test says so."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import EngineExit, EngineProcess, LaunchError, Progress
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.machine import Machine
from roundhouse.residency.server.control import Control
from roundhouse.residency.server.scheduler import Scheduler


class FakeEngine:
    """An engine that is only a promise: ``gone`` ends it."""

    def __init__(self, launcher: FakeLauncher, pid: int) -> None:
        self.launcher = launcher
        self.pid = pid
        self.gone = asyncio.Event()
        self.asleep: int | None = None

    def pids(self) -> frozenset[int]:
        return frozenset({self.pid})

    async def sleep(self, level: int) -> None:
        await self.launcher.may_move.wait()
        self.asleep = level
        self.launcher.sleeps += 1

    async def wake(self) -> None:
        await self.launcher.may_move.wait()
        self.asleep = None
        self.launcher.wakes += 1

    async def exited(self) -> EngineExit:
        await self.gone.wait()
        return EngineExit(-9, "killed by signal 9")

    async def stop(self, force: bool = False) -> None:
        if self.launcher.stop_error is not None:
            raise self.launcher.stop_error
        if not force:
            await self.launcher.may_stop.wait()
        self.gone.set()
        self.launcher.alive = False
        self.launcher.stops.append(force)


class FakeLauncher:
    """Starts at once unless the test clears ``may_start``; ``error`` fails the next start, ``stop_error`` all stops."""

    levels: tuple[int, ...] = ()
    identity = "fake"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.alive = False
        self.may_move = asyncio.Event()
        self.may_move.set()
        self.sleeps = self.wakes = 0
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.error: LaunchError | None = None
        self.stop_error: Exception | None = None
        self.adoptable = False
        self.starts = 0
        self.prepares = 0
        self.stops: list[bool] = []
        self.engine: FakeEngine | None = None

    def expected(self) -> Footprint | None:
        return None

    async def prepare(self) -> None:
        self.prepares += 1

    async def start(self, report: Callable[[Progress], None]) -> EngineProcess:
        self.starts += 1
        self.alive = True
        report(Progress("loading weights", 50.0))
        try:
            await self.may_start.wait()
        except asyncio.CancelledError:
            self.alive = False
            raise
        if self.error is not None:
            self.alive = False
            raise self.error
        self.engine = FakeEngine(self, self.pid)
        return self.engine

    async def adopt(self) -> EngineProcess | None:
        if not self.adoptable:
            return None
        self.alive = True
        self.engine = FakeEngine(self, self.pid)
        return self.engine


class Residency:
    """What a test sees: the socket, the scheduler, the launchers."""

    def __init__(self, path: Path, launchers: dict[str, FakeLauncher], bounds: Bounds | None = None) -> None:
        self.path = path
        self.launchers = launchers
        self.scheduler = Scheduler(
            Machine.of(dict.fromkeys(launchers, "gpu0"), ["gpu0"], bounds), launchers, debug=True
        )
        self.shutdown = asyncio.Event()

    async def until(self, condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
        """Return as soon as ``condition`` holds, looking whenever anything happens; fail after ``deadline_s``."""
        async with asyncio.timeout(deadline_s):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # the condition is about state that has no event of its own


@asynccontextmanager
async def residency(
    path: Path,
    models: Sequence[str] = ("a", "b", "c"),
    bounds: Bounds | None = None,
    prepare: Callable[[dict[str, FakeLauncher]], None] = lambda _: None,
) -> AsyncIterator[Residency]:
    """Serve a residency on ``path`` until the block ends."""
    launchers = {name: FakeLauncher(4700 + i) for i, name in enumerate(models)}
    prepare(launchers)
    it = Residency(path, launchers, bounds)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await it.scheduler.adopt()
        yield
        if it.scheduler.broken is None:
            await it.scheduler.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    config = uvicorn.Config(
        Control(it.scheduler, None, it.shutdown.set).app(lifespan),
        log_config=None,
        ws="websockets-sansio",
        ws_ping_interval=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await it.until(lambda: server.started)
    try:
        yield it
    finally:
        server.should_exit = True
        await serving
