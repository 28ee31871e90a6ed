"""What the fake card claims, checked on a real one: every rung of the ladder, with nothing left and nothing lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from roundhouse.config import paths
from roundhouse.launchers.base import SleepError
from roundhouse.launchers.gauge import WHOLE_CARD_BYTES, Nvml, until_released
from tests.gpu import cycle, machine, models, record
from tests.gpu.cycle import Turn
from tests.gpu.machine import DEVICE
from tests.gpu.models import Choice
from tests.gpu.seen import Run, Seen

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(3600)]

MIB = 2**20
GROWTH_BYTES = 64 * MIB
"""What a sleeper may hold more after its last cycle than after its first: contexts and graphs stay as they are."""

STRANGER_BYTES = 256 * MIB
"""Small, so that it has room beside an engine and a sleeper on 16 GiB; its CUDA context takes as much once more."""

MOST_ROOM_BYTES = 2 * 2**30
"""What a stranger that leaves no room leaves, unless half of what the wake needs is less."""

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
def run(card: Nvml, pytestconfig: pytest.Config) -> Iterator[Run]:
    """What is measured, also if it ends early: its record is written when the last test is over."""
    it = Run(pytestconfig.getoption("--gpu-form"))
    yield it
    if any(seen.lives for seen in it.all):
        pytestconfig.stash[record.WRITTEN] = record.write(
            machine.describe(card), it, pytestconfig.getoption("--gpu-record")
        )


@pytest.fixture(scope="module")
def choice(
    card: Nvml, run: Run, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Choice]:
    """The models, in a home of their own. What is made goes with the run, or stays in ``--gpu-models``."""
    home = tmp_path_factory.mktemp("gpu")
    folder: Path | None = pytestconfig.getoption("--gpu-models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_ENGINE_KEY", cycle.KEY)
        patch.setenv("ROUNDHOUSE_HOME", str(home))
        yield models.choose(run.form, folder or home / "weights")
    shutil.rmtree(home / "weights", ignore_errors=True)


@pytest.fixture(scope="module")
def seen(card: Nvml, run: Run, choice: Choice) -> Sequence[Seen]:
    """One run of the whole cycle and of the variants, which every test reads."""

    async def everything() -> None:
        variants = choice.variants
        async with cycle.turns([*choice.entries, *variants], card, len(variants)) as them:
            takers, others = them[: len(choice.entries)], them[len(choice.entries) :]
            run.models += [turn.seen for turn in takers]
            run.variants += [turn.seen for turn in others]
            await cycle.go_round(takers, models.ROUNDS[run.form])
            for turn, variant in zip(others, models.VARIANTS, strict=True):
                await cycle.go_round([turn], variant.rounds)

    asyncio.run(everything())
    return run.all


def test_answers_are_the_same_after_every_wake(seen: Sequence[Seen], run: Run) -> None:
    for it in seen:
        assert sum(map(len, it.lives)) == it.turns > 0
        assert all(len(set(answers)) == 1 for answers in it.lives), (it.model, it.lives)
    assert len({it.lives[0][0] for it in run.models}) == len(run.models)  # and each is its own


def test_every_engine_samples_with_top_k_and_top_p(seen: Sequence[Seen]) -> None:
    for it in seen:
        assert len(it.sampled) == len(it.lives), it.model
        assert all(it.sampled), it.model


def test_a_start_comes_from_the_engine_host_wherever_there_is_one(seen: Sequence[Seen]) -> None:
    assert {it.model: [way for way in it.ways if way[0] != way[1]] for it in seen} == {it.model: [] for it in seen}


def test_a_sleeper_holds_little_and_no_more_from_cycle_to_cycle(seen: Sequence[Seen]) -> None:
    for it in seen:
        growth = GROWTH_BYTES + (0 if it.told_apart else WHOLE_CARD_BYTES)
        for held in it.asleep.values():
            assert max(held) < min(it.awake) / 2, it.model
            assert max(held) - held[0] <= growth, (it.model, held)


def test_an_engine_takes_what_was_expected(seen: Sequence[Seen]) -> None:
    known = [it for it in seen if it.expected is not None]
    if not known:
        pytest.skip("nothing is expected of these models: their files say too little")
    for it in known:
        assert it.expected is not None
        assert max(it.awake) == pytest.approx(it.expected.awake, rel=ESTIMATE), it.model


def test_an_engine_takes_no_more_while_it_starts(seen: Sequence[Seen]) -> None:
    for it in seen:
        if it.expected is not None:
            assert max(it.peaks) <= it.expected.awake * (1 + ESTIMATE), it.model


def test_waking_is_quicker_than_starting(seen: Sequence[Seen], run: Run) -> None:
    for it in run.models:
        for level in (1, 2):
            assert min(it.phases[f"wake from {level}"]) < min(it.starts), (it.model, level)


class Stranger:
    """Another process with a context on the card, that takes ``size`` bytes when it is told to."""

    def __init__(self) -> None:
        argv = [str(paths.engine_python()), "-P", "-c", ALLOCATE]
        env = {**os.environ, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # on the card that engines are on
        self._process = subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
    card: Nvml, choice: Choice
) -> None:
    async def switch() -> None:
        async with cycle.turns(models.by_size(choice.entries)[:2], card) as (first, second):
            await first.on()
            with Stranger() as it:
                going = asyncio.create_task(first.off(1))
                await asyncio.to_thread(it.hold, STRANGER_BYTES)
                await going
                others = cycle.strangers(card, first)
                if first.seen.told_apart:
                    assert others.used >= STRANGER_BYTES
                    assert any(str(it.pid) in name for name in others.names)
                else:  # then it looks like the sleeper's
                    assert others.used + first.residual >= STRANGER_BYTES
                await second.on()
                await second.off(1)
                await first.on()
            assert len(set(first.seen.lives[0])) == 1

    asyncio.run(switch())


def test_a_stranger_that_leaves_no_room_makes_a_wake_fail_and_the_engine_goes_without_a_trace(
    card: Nvml, run: Run, choice: Choice
) -> None:
    async def crowded() -> None:
        async with cycle.turns([choice.subject], card) as (turn,):
            await turn.on()
            await turn.off(1)
            engine = turn.engine
            assert engine is not None
            with Stranger() as it:
                room = min(MOST_ROOM_BYTES, (turn.seen.awake[-1] - turn.residual) // 2)
                it.hold(machine.read(card).free - room)
                run.remarks["a wake without room"] = await refusal(turn)
                pids = engine.pids()
                await engine.stop(force=True)
            turn.engine, turn.residual = None, 0
            await until_released(card, DEVICE, pids, 0, others=turn.others)
            await turn.on()  # and it starts as ever

    asyncio.run(crowded())


async def refusal(turn: Turn) -> str:
    """What a wake that has to fail answers, and after how long."""
    assert turn.engine is not None
    began = time.monotonic()
    with pytest.raises(SleepError) as caught:
        await turn.engine.wake()
    return f"after {time.monotonic() - began:.1f} s: {caught.value.text}"
