"""What the fake card claims, checked on a real one: every rung, twenty times, with nothing left and nothing lost."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Self

import pytest

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.base import SleepError
from roundhouse.launchers.gauge import Nvml, until_released
from tests.gpu import cycle, models, record
from tests.gpu.cycle import DEVICE, Seen

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(3600)]

GIB, MIB = 2**30, 2**20
GROWTH_BYTES = 64 * MIB
"""What a sleeper may hold more after its last cycle than after its first: contexts and graphs stay as they are."""

ESTIMATE = 0.10
ALLOCATE = """
import torch
torch.zeros(1, device="cuda")
print("ready", flush=True)
it = torch.empty(int(input()), dtype=torch.uint8, device="cuda")
print("holds", flush=True)
input()
"""


@pytest.fixture(scope="module")
def entries(card: Nvml, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ModelEntry]]:
    """Three models, in a home of their own."""
    home = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        found = models.real()
        patch.setenv("ROUNDHOUSE_HOME", str(home))
        patch.setenv("ROUNDHOUSE_ENGINE_KEY", cycle.KEY)
        yield found or models.made(home / "weights")


@pytest.fixture(scope="module")
def seen(card: Nvml, entries: list[ModelEntry]) -> list[Seen]:
    """One run of the whole cycle, which every test reads; its record is written."""
    result = asyncio.run(cycle.run(entries, card))
    print(f"written: {record.write(card.card, result)}")
    return result


def test_answers_are_the_same_after_every_wake(seen: Sequence[Seen]) -> None:
    for it in seen:
        assert sum(map(len, it.lives)) == len(cycle.ROUNDS)
        assert all(len(set(answers)) == 1 for answers in it.lives), (it.model, it.lives)
    assert len({it.lives[0][0] for it in seen}) == len(seen)  # and each is its own


def test_a_sleeper_holds_little_and_no_more_from_cycle_to_cycle(seen: Sequence[Seen]) -> None:
    for it in seen:
        for held in it.asleep.values():
            assert max(held) < min(it.awake) / 2, it.model
            assert max(held) - held[0] <= GROWTH_BYTES, (it.model, held)


def test_an_engine_takes_what_was_expected(seen: Sequence[Seen]) -> None:
    known = [it for it in seen if it.expected is not None]
    if not known:
        pytest.skip("nothing is expected of these models: their files say too little")
    for it in known:
        assert it.expected is not None
        assert max(it.awake) == pytest.approx(it.expected.awake, rel=ESTIMATE), it.model


def test_waking_is_quicker_than_starting(seen: Sequence[Seen]) -> None:
    for it in seen:
        for level in (1, 2):
            there = median(it.phases[f"wake from {level}"])
            assert there < median(it.phases["start"]), (it.model, level)


class Stranger:
    """Another process with a context on the card, that takes ``size`` bytes when it is told to."""

    def __init__(self) -> None:
        argv = [str(paths.engine_python()), "-c", ALLOCATE]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        self._heard("ready")
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def hold(self, size: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()
        self._heard("holds")

    def _heard(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word


def test_a_stranger_that_comes_during_a_switch_is_seen_and_does_no_harm_while_there_is_room(
    card: Nvml, entries: list[ModelEntry]
) -> None:
    async def switch() -> None:
        async with cycle.turns(entries[:2], card) as (first, second):
            await first.on()
            with Stranger() as it:
                going = asyncio.create_task(first.off(1))
                await asyncio.to_thread(it.hold, GIB)
                await going
                others = cycle.strangers(card, first)
                assert others.used >= GIB
                assert not others.names or any(str(it.pid) in name for name in others.names)
                await second.on()
                await second.off(1)
                await first.on()
            assert len(set(first.seen.lives[0])) == 1

    asyncio.run(switch())


def test_a_stranger_that_leaves_no_room_makes_a_wake_fail_and_the_engine_goes_without_a_trace(
    card: Nvml, entries: list[ModelEntry]
) -> None:
    async def crowded() -> None:
        async with cycle.turns(entries[:1], card) as (turn,):
            await turn.on()
            await turn.off(1)
            engine, reading = turn.engine, card.read(DEVICE)
            assert engine is not None
            assert reading is not None
            with Stranger() as it:
                it.hold(reading.free - 2 * GIB)
                with pytest.raises(SleepError):
                    await engine.wake()
                pids = engine.pids()
                await engine.stop(force=True)
            turn.engine, turn.residual = None, 0
            assert await until_released(card, DEVICE, pids, 0, others=turn.others) == 0
            await turn.on()  # and it starts as ever

    asyncio.run(crowded())
