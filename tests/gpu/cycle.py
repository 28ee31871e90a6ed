"""Three engines that take turns on a card, by every rung of the ladder, with every phase timed and weighed."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import httpx

from roundhouse.config.schema import ModelEntry
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import Launcher
from roundhouse.launchers.engine_host import EngineHost
from roundhouse.launchers.gauge import Foreign, Nvml, foreign, until_released
from roundhouse.launchers.process import Child
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm import build_host

KEY = "key-of-the-engines"
DEVICE = "gpu0"
HOST_S = 180.0
ROUNDS = (1, 1, 2, 2, 0) * 4
"""The rung by which each of 20 rounds makes room: asleep at level 1 or 2, or 0: stopped."""

SLACK_BYTES = 64 * 2**20
"""What a sleeper may hold more than it did after its first sleep, before whoever waits for it gives up."""

QUESTION = "Once upon a time there was a roundhouse with one turntable,"
"""It begins otherwise than the probe, so that nothing of it is in the prefix cache."""


@dataclass
class Seen:
    """What was measured of one model: seconds by phase, and bytes."""

    model: str
    expected: Footprint | None
    phases: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    awake: list[int] = field(default_factory=list)
    asleep: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    lives: list[list[str]] = field(default_factory=list)
    """What each process of it answered, from its start on: two may round differently, one may not."""

    @contextmanager
    def timing(self, phase: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.phases[phase].append(time.monotonic() - began)


class Turn:
    """One model on the card: brought there from wherever it is, and off it by a rung."""

    def __init__(self, entry: ModelEntry, host: EngineHost | None, card: Nvml) -> None:
        self.entry, self.card = entry, card
        self.launcher: Launcher = build_launcher(entry, host)
        self.engine: Child | None = None
        self.others = self.residual = 0
        self._pinned: set[int] = set()
        self.seen = Seen(entry.name, self.launcher.expected())

    async def on(self) -> None:
        """Start or wake it, weigh it, and keep what it answers. Nobody else moves until it is off again."""
        self.others = used(self.card) - self.residual
        if self.engine is None:
            with self.seen.timing("start"):
                engine = await self.launcher.start(lambda progress: None)
            assert isinstance(engine, Child)
            self.engine = engine
            self.seen.lives.append([])
        else:
            with self.seen.timing(f"wake from {self.engine.asleep}"):
                await self.engine.wake()
        with self.seen.timing("first answer"):
            self.seen.lives[-1].append(await ask(self.entry))
        self.seen.awake.append(self.held())

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
            bound = self.seen.asleep[level][0] + SLACK_BYTES if self.seen.asleep[level] else self.seen.awake[-1] // 2
        else:
            with self.seen.timing("stop"):
                await engine.stop()
            self.engine, bound = None, 0
        with self.seen.timing("release"):
            held = await until_released(self.card, DEVICE, pids, bound, others=self.others)
        self.residual = held
        if level:
            self.seen.asleep[level].append(held)

    def held(self) -> int:
        """What it has of the card now."""
        assert self.engine is not None
        reading = self.card.read(DEVICE)
        assert reading is not None
        return reading.held(self.engine.pids(), self.others)


def used(card: Nvml) -> int:
    """What everybody has of the card now."""
    reading = card.read(DEVICE)
    assert reading is not None
    return reading.used


async def ask(entry: ModelEntry) -> str:
    """A greedy answer."""
    body = {"model": entry.served_name, "prompt": QUESTION, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {KEY}"}, timeout=120, trust_env=False) as client:
        response = await client.post(f"http://127.0.0.1:{entry.launcher.port}/v1/completions", json=body)
    response.raise_for_status()
    return str(response.json()["choices"][0]["text"])


@asynccontextmanager
async def turns(entries: Sequence[ModelEntry], card: Nvml) -> AsyncIterator[list[Turn]]:
    """The models with an engine host that is ready; at the end nothing of them is left."""
    host = build_host(entries)
    assert host is not None
    host.want()
    keeping = asyncio.create_task(host.run(), name="engine host")
    them = [Turn(entry, host, card) for entry in entries]
    try:
        async with asyncio.timeout(HOST_S):
            while host.state not in ("ready", "unsupported"):  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # it says so on its own connection, not to us
        yield them
    finally:
        for turn in them:
            if turn.engine is not None:
                await turn.engine.stop(force=True)
        keeping.cancel()
        await asyncio.wait([keeping])


async def run(entries: Sequence[ModelEntry], card: Nvml, rounds: Sequence[int] = ROUNDS) -> list[Seen]:
    """The whole cycle: every model once in each round, off by that round's rung."""
    async with turns(entries, card) as them:
        for level in rounds:
            for turn in them:
                await turn.on()
                await turn.off(level)
        return [turn.seen for turn in them]


def strangers(card: Nvml, ours: Turn) -> Foreign:
    """What others than the one engine have."""
    reading = card.read(DEVICE)
    assert reading is not None
    return foreign(reading, ours.engine.pids() if ours.engine is not None else (), ours.residual)
