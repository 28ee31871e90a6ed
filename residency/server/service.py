"""The residency process: settings in, one scheduler, one control plane, until told to end."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import uvicorn
from starlette.applications import Starlette

from roundhouse.config import paths
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.config.schema import BaseLauncher, ResidencySettings, Settings, VllmLauncher
from roundhouse.footprint.ram import machine_ram
from roundhouse.launchers.base import Launcher
from roundhouse.launchers.gauge import GaugeError, Nvml, open_gauge
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.file_names import log_name
from roundhouse.launchers.process.records import sweep
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm import compiled
from roundhouse.launchers.vllm.launcher import build_host
from roundhouse.residency.machine.bounds import Bounds
from roundhouse.residency.machine.engine import Options
from roundhouse.residency.machine.facts import Ticked
from roundhouse.residency.machine.ledger import Ledger
from roundhouse.residency.machine.machine import Machine, Model
from roundhouse.residency.machine.tickets import Tickets
from roundhouse.residency.server.control import Control
from roundhouse.residency.server.journal import Journal
from roundhouse.residency.server.memory import Memory
from roundhouse.residency.server.scheduler import Scheduler
from roundhouse.residency.server.store import Store, keep_calibration, keep_callers, recall_calibration, recall_callers
from roundhouse.residency.server.tasks import Tasks

log = logging.getLogger("roundhouse.residency")

EXIT_CONFIG = 2
REMEMBER_S = 60.0
"""How often what is learned of callers and estimates is written down: a minute of it may be lost."""

TIDY_S = 86400.0
LINGER_S = 1
"""How long uvicorn waits for open responses when it ends; every lease has been answered by then."""


def build_machine(
    settings: Settings,
    launchers: Mapping[str, Launcher],
    store: Store,
    totals: Mapping[str, int | None],
    host_ram: int = 0,
) -> Machine:
    """The machine for the configured models, devices and bounds.

    ``totals``: what the driver says each device has; ``host_ram``: what the engine host has of the RAM.
    """
    residency = settings.residency
    ledgers = {
        it.id: Ledger(totals.get(it.id) if it.memory is None else int(it.memory), it.kept_free)
        for it in residency.devices
    }
    models = {}
    for name, entry in settings.models.items():
        learned, it, launcher = store.recall(launchers[name].identity), entry.launcher, launchers[name]
        options = Options(
            launcher.levels,
            it.pinned,
            it.preload,
            name == residency.default,
            it.idle_sleep_s,
            it.idle_stop_s,
            slots(it),
            it.start_timeout_s,
        )
        models[name] = Model(
            entry.device, options, learned.footprint or launcher.expected(), learned.measured, learned.service_s
        )
    bounds = Bounds(
        residency.max_wait_s,
        residency.drain_timeout_s,
        residency.max_waiting,
        residency.max_waiting_per_key,
        foresight=residency.foresight,
    )
    callers, calibration = recall_callers(paths.callers()), recall_calibration(paths.calibration())
    return Machine.of(models, ledgers, bounds, ram_budget(residency, host_ram), callers, calibration)


def slots(launcher: BaseLauncher) -> int | None:
    """How many requests an engine answers at once; ``None``: it does not say."""
    if launcher.slots is None and isinstance(launcher, VllmLauncher):
        words = [word for arg in launcher.args for word in arg.split("=", 1)]
        after = [number for flag, number in pairwise(words) if flag == "--max-num-seqs"]
        return int(after[-1]) if after and after[-1].isdigit() else None
    return launcher.slots


def ram_budget(residency: ResidencySettings, host_ram: int) -> int:
    """RAM for sleepers' weights, in bytes: the YAML's, or half of what there is beside the engine host's."""
    if residency.ram_budget is not None:
        return int(residency.ram_budget)
    return (machine_ram() - host_ram) // 2


def open_journal(machine: Machine, residency: ResidencySettings) -> Journal:
    """The journal, which begins with the models and bounds that there are."""
    models = {it.model: {"device": it.device, "slots": it.options.slots} for it in machine.engines.values()}
    return Journal(paths.journal(), models, residency.max_wait_s)


async def serve(listener: socket.socket, settings: Settings) -> int:
    """Serve the control plane on ``listener`` until SIGTERM or an ordered shutdown; the exit code."""
    exact = settings.residency.exact_pinning
    host = build_host(settings.models.values(), exact_pinning=exact)
    launchers = {name: build_launcher(it, host, exact_pinning=exact) for name, it in settings.models.items()}
    debug = os.environ.get("ROUNDHOUSE_DEBUG") == "1"
    devices = [device.id for device in settings.residency.devices]
    gauge = _gauge(devices)
    memory = Memory(gauge)
    totals = {device: memory.total(device) for device in devices}
    store = Store(paths.measurements(), "" if gauge is None else gauge.card)
    machine = build_machine(settings, launchers, store, totals, 0 if host is None else host.spec.ram)
    journal = open_journal(machine, settings.residency) if settings.residency.journal else None
    scheduler = Scheduler(machine, launchers, memory, store, journal, debug=debug)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await scheduler.adopt()
        await asyncio.to_thread(sweep, paths.engine_records(), keep=scheduler.pids())
        await scheduler.see_others()
        scheduler.post(Ticked())  # what is to be preloaded
        keeping = Tasks(scheduler.fail)
        keeping.start(scheduler.watch_others(), "watch others")
        keeping.start(_remember(machine.tickets), "remember what is learned")
        keeping.start(_tidy(settings.models), "tidy the home")
        if host is not None:
            keeping.start(host.run(), "engine host")
        yield
        await keeping.cancel()
        keep_callers(paths.callers(), machine.tickets.callers.dump())
        keep_calibration(paths.calibration(), machine.tickets.calibration.dump())
        if scheduler.broken is None:
            await scheduler.close()
        if journal is not None:
            journal.close()

    config = uvicorn.Config(
        Control(scheduler, host, on_shutdown=scheduler.closed.set).app(lifespan),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="websockets-sansio",
        # A busy worker must not lose its leases; a dead one's connection is closed by the kernel.
        ws_ping_interval=None,
        timeout_graceful_shutdown=LINGER_S,
    )
    server = uvicorn.Server(config)

    async def end_when_closed() -> None:
        await scheduler.closed.wait()
        server.should_exit = True

    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(end_when_closed(), name="end when closed")
        await server.serve(sockets=[listener])
        closing.cancel()
    return 1 if scheduler.broken is not None or not server.started else 0


def _gauge(devices: Sequence[str]) -> Nvml | None:
    """What tells of the cards. Where the driver does not answer, that is said, and engines that run are served on."""
    try:
        return open_gauge(devices)
    except GaugeError as error:
        log.error("event=card_not_read text=%r", f"{error}; then 'roundhouse down' and 'roundhouse up'")
        return None


async def _remember(tickets: Tickets) -> None:
    """Write down what is learned now and then, for the day on which nobody lets us end in order."""
    while True:
        await asyncio.sleep(REMEMBER_S)
        await asyncio.to_thread(keep_callers, paths.callers(), tickets.callers.dump())
        await asyncio.to_thread(keep_calibration, paths.calibration(), tickets.calibration.dump())


async def _tidy(models: Iterable[str]) -> None:
    """Now and then remove what was left by models, settings and versions of vLLM that nobody uses any more."""
    ours = {log_name(model) for model in models}
    while True:
        try:
            await asyncio.to_thread(logs.sweep, paths.log_dir(), ours, time.time())
            freed = await asyncio.to_thread(compiled.prune, paths.compiled(), time.time())
            if freed:
                log.info("event=pruned path=%s freed_mb=%d", paths.compiled(), freed >> 20)
        except OSError as error:
            log.warning("event=not_tidied text=%r", str(error))
        await asyncio.sleep(TIDY_S)


def main(fd: int) -> int:
    """Run the service on the listening socket ``fd`` that the supervisor opened."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = socket.socket(fileno=fd)
    try:
        settings = load_settings(paths.config_file())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    with asyncio.Runner() as runner:
        return runner.run(serve(listener, settings))
