"""Engines that take turns on a card, by every rung of the ladder, with every phase timed and weighed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx
import psutil

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.launchers.base import Launcher
from roundhouse.launchers.gauge import POLL_S, WHOLE_CARD_BYTES, Foreign, GaugeError, Nvml, foreign, until_released
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.launcher import build_host
from roundhouse.residency.machine.engine import GROWTH_BYTES
from tests.gpu import machine, ram
from tests.gpu.machine import DEVICE, read
from tests.gpu.seen import Seen

KEY = "key-of-the-engines"
HOST_S = 180.0
"""How long the engine host may take to import vLLM; 60 s were seen on two slow cores."""

QUESTION = "Once upon a time there was a roundhouse with one turntable,"
"""It begins otherwise than the probe, so that nothing of it is in the prefix cache."""

SAMPLING = {"temperature": 0.8, "top_p": 0.9, "top_k": 50, "seed": 1}
"""The way of choosing a token that has a kernel of its own, which a machine may not be able to build."""


class Turn:
    """One model on the card: brought there from wherever it is, and off it by a rung.

    ``cold``: its first start also compiles, which later ones find done.
    """

    def __init__(self, entry: ModelEntry, host: EngineHost | None, card: Nvml, cold: bool = True) -> None:
        self.entry, self.card, self._host = entry, card, host
        self.launcher: Launcher = build_launcher(entry, host)
        self.engine: Child | None = None
        self.others = self.residual = 0
        self._cold = cold
        self._pinned: set[int] = set()
        self.seen = Seen(entry.name, self.launcher.expected())

    async def on(self) -> None:
        """Start or wake it, weigh it, and keep what it answers. Nobody else moves until it is off again."""
        self.others = read(self.card).used - self.residual
        if self.engine is None:
            await self._start()
        else:
            with self.seen.timing(f"wake from {self.engine.asleep}"):
                await self.engine.wake()
        assert self.engine is not None
        with self.seen.timing("first answer"):
            self.seen.lives[-1].append(await ask(self.entry, temperature=0))
        if len(self.seen.lives) > len(self.seen.sampled):
            self.seen.sampled.append(await ask(self.entry, **SAMPLING))
        reading, pids = read(self.card), self.engine.pids()
        self.seen.awake.append(reading.held(pids, self.others))
        self.seen.told_apart = reading.told_of(pids) is not None
        self.seen.listed = machine.listed(self.card, pids)
        self.seen.ram["awake"].append(ram.read(pids))

    async def _start(self) -> None:
        expected = self._way_to_come()
        self.seen.ram["before its start"].append(ram.read(()))
        began = asyncio.get_running_loop().time()
        with Peak(self.card) as peak:
            engine = await self.launcher.start(lambda progress: None)
        took = asyncio.get_running_loop().time() - began
        assert isinstance(engine, Child)
        self.engine = engine
        host = self._host.pid if self._host is not None else None
        way = "host" if psutil.Process(engine.pid).ppid() == host else "stock"
        first = "first start" if self._cold and not self.seen.lives else "start"
        self.seen.phases[f"{first} ({way})"].append(took)
        self.seen.starts.append(took)
        self.seen.peaks.append(peak.used - self.others)
        self.seen.ways.append((expected, way))
        self.seen.lives.append([])

    def _way_to_come(self) -> str:
        """How it has to start: from the host wherever there is one that may fork this model's engines."""
        it = self.entry.launcher
        assert isinstance(it, VllmLauncher)
        may = it.host == "auto" and not it.env  # a variable may concern an import, which the host has behind it
        return "host" if may and self._host is not None and self._host.state == "ready" else "stock"

    async def off(self, level: int) -> None:
        """Make room, and wait until the driver says that there is."""
        engine = self.engine
        assert engine is not None
        pids = engine.pids()
        if level:
            first = level == 1 and engine.pid not in self._pinned  # it has to pin RAM, which stays
            with self.seen.timing("first sleep at 1" if first else f"sleep at {level}"):
                await engine.sleep(level)
            self._pinned |= {engine.pid} if level == 1 else set()
            before = self.seen.asleep[level]
            bound = before[0] + GROWTH_BYTES if before else self.seen.awake[-1] // 2
        else:
            with self.seen.timing("stop"):
                await engine.stop()
            self.engine, bound = None, 0
        with self.seen.timing("release"):
            held = await until_released(self.card, DEVICE, pids, bound + self.tolerance, others=self.others)
        self.residual = held if level else 0
        if level:
            self.seen.asleep[level].append(held)
            self.seen.ram[f"asleep at {level}"].append(ram.read(pids))

    @property
    def tolerance(self) -> int:
        """What may be there beside what is ours, by what the driver tells."""
        return 0 if self.seen.told_apart else WHOLE_CARD_BYTES


class Peak:
    """The most of the card that was used by all while the block ran: asked again and again, for nobody announces it."""

    def __init__(self, card: Nvml) -> None:
        self.used = 0
        self._card = card
        self._error: GaugeError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak of the card")

    def _watch(self) -> None:
        try:
            while True:
                self.used = max(self.used, read(self._card).used)
                if self._over.wait(POLL_S):
                    return
        except GaugeError as error:
            self._error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        if exc == (None, None, None):
            if self._error is not None:
                raise self._error
            self.used = max(self.used, read(self._card).used)


async def ask(entry: ModelEntry, **how: Any) -> str:
    """What it answers to the question."""
    body = {"model": entry.served_name, "prompt": QUESTION, "max_tokens": 16, "ignore_eos": True, **how}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False) as client:
        response = await client.post(f"http://127.0.0.1:{entry.launcher.port}/v1/completions", json=body)
    response.raise_for_status()
    return str(response.json()["choices"][0]["text"])


@asynccontextmanager
async def turns(entries: Sequence[ModelEntry], card: Nvml, variants: int = 0) -> AsyncIterator[list[Turn]]:
    """The models with an engine host that is ready, if there is one; at the end nothing of them is left.

    The last ``variants`` of them are others with other flags.
    """
    host = build_host(entries)
    keeping = asyncio.create_task(_keep(host), name="engine host")
    cold = len(entries) - variants
    them = [Turn(entry, host, card, number < cold) for number, entry in enumerate(entries)]
    try:
        if host is not None:
            await _settled(host)
        yield them
    finally:
        for turn in them:
            if turn.engine is not None:
                await turn.engine.stop(force=True)
        keeping.cancel()
        await asyncio.wait([keeping])


async def _keep(host: EngineHost | None) -> None:
    """Have the host until cancelled. On WSL2 there is none."""
    if host is not None:
        await host.run()


async def _settled(host: EngineHost) -> None:
    """Return once the host is as far as it gets on this machine."""
    try:
        async with asyncio.timeout(HOST_S):
            while host.state not in ("ready", "unsupported", "dropped"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # it says so on its own connection, not to us
    except TimeoutError:
        words = logs.last_words(paths.log_dir() / "vllm-host.log")
        raise AssertionError(
            f"the engine host is {host.state} after {HOST_S:.0f} s; its last words: {words!r}"
        ) from None


async def go_round(them: Sequence[Turn], rounds: Sequence[int]) -> None:
    """Every model once in each round, off by that round's rung: asleep at level 1 or 2, or 0: stopped."""
    for turn in them:
        turn.seen.turns += len(rounds)
    for level in rounds:
        for turn in them:
            await turn.on()
            await turn.off(level)


def strangers(card: Nvml, ours: Turn) -> Foreign:
    """What others than the one engine have."""
    return foreign(read(card), ours.engine.pids() if ours.engine is not None else (), ours.residual)
