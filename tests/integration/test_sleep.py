"""vLLM's sleep protocol against engines on an emulated card, and against each of its faults."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.base import LaunchError, Progress, SleepError
from roundhouse.launchers.gauge import Foreign, NotReleased, Nvml, foreign, open_gauge, until_released
from roundhouse.launchers.process.child import Child
from roundhouse.launchers.process.records import read_record, sweep
from roundhouse.launchers.registry import build_launcher
from roundhouse.launchers.vllm import launcher as vllm
from roundhouse.launchers.vllm import sleeping
from roundhouse.launchers.vllm.launcher import VllmProcess, build_host
from tests.support import fake_vllm, fakes
from tests.support.card import GIB, MIB, Card, nvml
from tests.support.stack import free_port
from tests.support.waiting import gone, until

pytestmark = pytest.mark.integration

AWAKE, RESIDUAL = 9 * GIB, 1 * GIB
SIZES = "--weights 6G --kv 2G --residual 1G"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_vllm.make(tmp_path_factory.mktemp("env") / "engine", cuda=True)


@pytest.fixture(autouse=True)
def home(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path))
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_KEY", "key-of-the-engines")
    monkeypatch.setenv("ROUNDHOUSE_ENGINE_PYTHON", str(python))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def card(home: Path) -> Iterator[Any]:
    it = Card.create(home / "card.json")
    yield it
    assert sweep(paths.engine_records()) == []
    assert it.free == it.total


def entry(home: Path, *flags: str, name: str = "m", **more: Any) -> ModelEntry:
    port = free_port()
    words = " ".join(("--card", str(home / "card.json"), *flags))
    spec = {"kind": "vllm", "port": port, "model": str(home / "weights"), "args": [f"--fake={words}"], "host": "off"}
    return ModelEntry.model_validate(
        {
            "name": name,
            "served_name": name,
            "api_base": f"http://127.0.0.1:{port}/v1",
            "device": "d",
            "launcher": {**spec, "stop_grace_s": 2, **more},
        }
    )


def ignore(progress: Progress) -> None:
    """Nobody looks."""


@asynccontextmanager
async def engine(it: ModelEntry) -> AsyncIterator[Child]:
    """The model's engine, awake; ended with the block."""
    engine = await build_launcher(it).start(ignore)
    assert isinstance(engine, Child)
    try:
        yield engine
    finally:
        await engine.stop(force=True)


async def ask(it: ModelEntry, **more: Any) -> httpx.Response:
    body = {"model": "m", "prompt": "Hello", "max_tokens": 8, **more}
    headers = {"authorization": "Bearer key-of-the-engines"}
    async with httpx.AsyncClient(headers=headers, timeout=30, trust_env=False) as client:
        return await client.post(f"http://127.0.0.1:{it.launcher.port}/v1/completions", json=body)


# --- when all is well --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SIZES, f"{SIZES} --pooling"], ids=["text", "embedding"])
@pytest.mark.parametrize(("level", "pinned"), [(1, 6 * GIB), (2, 0)])
async def test_an_engine_sleeps_and_wakes_many_times_and_its_memory_goes_and_comes(
    home: Path, card: Any, level: int, pinned: int, kind: str
) -> None:
    async with engine(entry(home, *kind.split())) as it:
        assert card.by_pid == {it.pid: AWAKE}
        assert it.asleep is None
        for _ in range(3):
            await it.sleep(level)
            assert it.asleep == level
            assert card.by_pid == {it.pid: RESIDUAL}
            await it.wake()
            assert it.asleep is None
            assert card.by_pid == {it.pid: AWAKE}
        assert card.pinned.get(it.pid, 0) == pinned  # torch keeps it
        assert card.overlaps == 0


async def test_both_levels_may_follow_each_other(home: Path, card: Any) -> None:
    model = entry(home, *SIZES.split())
    async with engine(model) as it:
        for level in (1, 2, 1):
            await it.sleep(level)
            await it.wake()
        assert (await ask(model, temperature=0)).json()["choices"][0]["text"].startswith("m greedy")


async def test_an_engine_that_sleeps_is_not_told_so_again_at_another_level(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split())) as it:
        with pytest.raises(SleepError, match="not asleep"):
            await it.wake()
        await it.sleep(1)
        with pytest.raises(SleepError, match="sleeps already"):
            await it.sleep(2)
        assert it.asleep == 1
        await it.wake()


async def test_a_start_costs_no_probe_and_an_engine_that_never_slept_has_none(home: Path, card: Any) -> None:
    it = entry(home, *SIZES.split())
    async with engine(it):
        async with httpx.AsyncClient(trust_env=False) as client:
            stats = (await client.get(f"http://127.0.0.1:{it.launcher.port}/fake/stats")).json()
        assert stats["requests"] == 0
        record = read_record(paths.engine_records(), "m")
        assert record is not None
        assert record.probe is None


async def test_a_request_that_comes_while_it_sleeps_is_answered_after_the_wake(home: Path, card: Any) -> None:
    it = entry(home, *SIZES.split(), "--sleep-delay", "0.2", "--wake-delay", "0.2")
    async with engine(it) as running:
        for level in (1, 2):
            going = asyncio.create_task(running.sleep(level))
            during = [asyncio.create_task(ask(it)) for _ in range(2)]
            await going
            asleep = asyncio.create_task(ask(it))
            coming = asyncio.create_task(running.wake())
            waking = asyncio.create_task(ask(it))
            await coming
            answers = await asyncio.gather(*during, asleep, waking)
            assert [answer.status_code for answer in answers] == [200] * 4


async def test_what_is_left_in_the_engine_ends_first_and_is_aborted_only_after_a_while(
    home: Path, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = entry(home, *SIZES.split(), "--token-delay", "0.1")
    async with engine(it) as running:
        short = asyncio.create_task(ask(it, max_tokens=4))
        await until_busy(it)
        await running.sleep(1)
        assert "tok3" in (await short).json()["choices"][0]["text"]
        await running.wake()
    monkeypatch.setattr(sleeping, "DRAIN_S", 0.2)
    it = entry(home, *SIZES.split(), "--first-byte-delay", "60")
    async with engine(it) as running:
        running._note(probe="['unknown']")  # the probe would take as long
        stuck = asyncio.create_task(ask(it))
        await until_busy(it)
        await running.sleep(1)
        assert running.asleep == 1
        assert (await stuck).status_code == 200


async def until_busy(it: ModelEntry) -> None:
    def busy() -> bool:
        stats = httpx.get(f"http://127.0.0.1:{it.launcher.port}/fake/stats", trust_env=False).json()
        return bool(stats["active"])

    await until(busy, "the engine works")


async def test_a_first_sleep_may_take_longer_than_the_patience_with_requests(
    home: Path, card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sleeping, "DRAIN_S", 0.2)
    async with engine(entry(home, *SIZES.split(), "--first-sleep-delay", "0.8")) as it:
        await it.sleep(1)
        assert card.by_pid == {it.pid: RESIDUAL}
        await it.wake()


async def test_engines_that_may_not_sleep_have_no_sleep_endpoints(home: Path, card: Any) -> None:
    it = entry(home, *SIZES.split(), sleep="off")
    assert build_launcher(it).levels == ()
    async with engine(it) as running:
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"http://127.0.0.1:{it.launcher.port}/sleep")).status_code in (401, 404)
        with pytest.raises(SleepError, match="cannot sleep"):
            await running.sleep(1)


async def test_a_command_can_only_be_stopped(home: Path, card: Any) -> None:
    spec = fakes.launcher("m")
    it = ModelEntry.model_validate(
        {"name": "m", "served_name": "m", "api_base": "", "device": "d", "launcher": {**spec, "env": {}}}
    )
    launcher = build_launcher(it)
    assert launcher.levels == ()
    assert launcher.expected() is None
    async with engine(it) as running:
        assert running.pids() == {running.pid}
        with pytest.raises(SleepError, match="cannot sleep"):
            await running.sleep(1)
        with pytest.raises(SleepError, match="cannot sleep"):
            await running.wake()


async def test_a_forked_engine_sleeps_like_any_other(home: Path, card: Any) -> None:
    it = entry(home, *SIZES.split(), host="auto")
    host = build_host([it])
    assert host is not None
    keeping = asyncio.create_task(host.run())
    await until(lambda: host.state == "ready", "the host is ready")
    running = await build_launcher(it, host).start(ignore)
    try:
        assert running.pids() >= {running.pid}
        assert host.pid not in running.pids()
        for level in (1, 2):
            await running.sleep(level)
            assert card.by_pid == {running.pid: RESIDUAL}
            await running.wake()
    finally:
        await running.stop(force=True)
        keeping.cancel()
        await asyncio.wait([keeping])


# --- every fault -------------------------------------------------------------------------------------

FAULTS = {
    "--is-sleeping-lies": ("sleep", 1, "told to sleep at level 1 and says that it is awake"),
    "--sleep-fails": ("sleep", 1, r"could not sleep at level 1 \(POST /sleep\): status 500.*last log line"),
    "--garbage-after 1": ("wake", 1, "not what it answered before it slept: '!!!!' instead of 'm greedy"),
    "--garbage-after 1 --pooling": ("wake", 1, r"not what it answered.*instead of \[23.0, 0.5\]"),
    "--reload-fails": ("wake", 2, "could not reload its weights.*another shape"),
    "--wake-hangs 1": ("wake", 1, r"could not wake up \(POST /wake_up\): no answer in 0.5 s"),
}


@pytest.mark.parametrize("flags", list(FAULTS))
async def test_a_fault_is_said(home: Path, card: Any, monkeypatch: pytest.MonkeyPatch, flags: str) -> None:
    step, level, text = FAULTS[flags]
    monkeypatch.setattr(sleeping, "WAKE_S", 0.5)
    async with engine(entry(home, *SIZES.split(), *flags.split())) as it:
        if step == "wake":
            await it.sleep(level)
        with pytest.raises(SleepError, match=text):
            await (it.wake() if step == "wake" else it.sleep(level))
        record = read_record(paths.engine_records(), "m")
        assert record is not None
        assert record.moving  # so that nobody adopts it


async def test_garbage_after_many_good_wakes_is_noticed(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split(), "--garbage-after", "3")) as it:
        for _ in range(2):
            await it.sleep(1)
            await it.wake()
        await it.sleep(1)
        with pytest.raises(SleepError, match="not what it answered"):
            await it.wake()


async def test_a_wake_from_level_2_without_its_weights_would_be_garbage(home: Path, card: Any) -> None:
    """What the fake does if the order is not kept: the probe is there for that."""
    async with engine(entry(home, *SIZES.split())) as it:
        await it.sleep(2)
        it._note(asleep=1)
        with pytest.raises(SleepError, match="not what it answered"):
            await it.wake()


@pytest.fixture
def gauge(card: Any, monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """The card as the driver says it."""
    monkeypatch.setenv("FAKE_CARD", str(card.path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    it = open_gauge(["d"])
    assert it is not None
    return it


@pytest.mark.parametrize("fault", ["--sleep-frees-nothing", "without sleep mode"])
async def test_only_the_driver_tells_that_a_sleep_has_freed_nothing(
    home: Path, card: Any, gauge: Nvml, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "without sleep mode":
        monkeypatch.setattr(vllm, "SLEEP_MODE", "--disable-log-stats")
    async with engine(entry(home, *SIZES.split(), *([fault] if fault.startswith("-") else []))) as it:
        await it.sleep(1)  # it says that it sleeps
        with pytest.raises(NotReleased, match=r"9.00 GiB are still held after 0 s, not 1.00 GiB"):
            await until_released(gauge, "d", it.pids(), RESIDUAL, 0.1)


async def test_the_driver_tells_when_memory_is_back_and_what_strangers_have(home: Path, card: Any, gauge: Nvml) -> None:
    async with engine(entry(home, *SIZES.split())) as it:
        stranger = await asyncio.create_subprocess_exec("sleep", "60")
        card.hold(5 * GIB, stranger.pid)
        reading = gauge.read("d")
        assert reading is not None
        assert foreign(reading, it.pids()) == Foreign(5 * GIB, (f"sleep (pid {stranger.pid})",))
        await it.sleep(1)
        assert await until_released(gauge, "d", it.pids(), RESIDUAL) == RESIDUAL
        stranger.kill()
        await stranger.wait()
        pids = it.pids()
        await it.stop(force=True)
        assert await until_released(gauge, "d", pids, 0) == 0


async def test_a_wake_without_room_ends_the_engine_and_says_why(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split())) as it:
        await it.sleep(1)
        card.hold(10 * GIB)
        with pytest.raises(SleepError, match="out of memory at cumem_allocator"):
            await it.wake()
        assert (await it.exited()).code == 1
        card.hold(0)


async def test_ram_that_may_not_be_pinned_ends_the_engine_and_says_why(home: Path, card: Any) -> None:
    Card.create(card.path, ram=4 * GIB)
    async with engine(entry(home, *SIZES.split())) as it:
        with pytest.raises(SleepError, match=r"out of memory.*pinned RAM"):
            await it.sleep(1)


async def test_two_engines_that_move_at_once_crash_as_vllm_does(home: Path, card: Any) -> None:
    """Why there is one transition at a time on a card."""
    small = entry(home, "--weights 1G --kv 1G --residual 1G --sleep-delay 0.6", name="small")
    async with engine(small) as it:
        going = asyncio.create_task(it.sleep(1))
        await until(lambda: card.overlaps == 0 and bool(card._read()["moving"]), "it is on its way")
        async with engine(entry(home, *SIZES.split())):
            assert card.overlaps == 1
            with pytest.raises(SleepError, match="Memory usage increased after sleeping"):
                await going


async def test_a_start_without_room_says_so(home: Path, card: Any) -> None:
    card.hold(8 * GIB)
    with pytest.raises(LaunchError, match="Free memory on device cuda:0"):
        await build_launcher(entry(home, *SIZES.split())).start(ignore)
    card.hold(0)


async def test_an_engine_that_dies_on_the_way_is_a_sleep_error(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split(), "--sleep-delay", "30")) as it:
        going = asyncio.create_task(it.sleep(1))
        await until(lambda: bool(card._read()["moving"]), "it is on its way")
        os.kill(it.pid, 9)
        with pytest.raises(SleepError, match="could not sleep at level 1"):
            await going


async def test_a_cancelled_step_leaves_an_engine_that_can_be_stopped(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split(), "--sleep-delay", "30")) as it:
        going = asyncio.create_task(it.sleep(1))
        await until(lambda: bool(card._read()["moving"]), "it is on its way")
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        began = time.monotonic()
        await it.stop(force=True)
        assert time.monotonic() - began < 5
        assert card.free == card.total


async def test_every_cycle_may_leave_something_on_the_card(home: Path, card: Any) -> None:
    async with engine(entry(home, *SIZES.split(), "--residual-growth", "300M")) as it:
        held = []
        for _ in range(3):
            await it.sleep(1)
            held.append(card.by_pid[it.pid])
            await it.wake()
        assert held == [RESIDUAL + n * 300 * MIB for n in range(3)]


# --- adoption ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2])
async def test_a_sleeping_engine_is_adopted_asleep_and_wakes(home: Path, card: Any, level: int) -> None:
    model = entry(home, *SIZES.split())
    async with engine(model) as it:
        await it.sleep(level)
        adopted = await build_launcher(model).adopt()
        assert adopted is not None
        assert (adopted.pid, adopted.asleep) == (it.pid, level)
        await adopted.wake()
        assert adopted.asleep is None
        again = await build_launcher(model).adopt()
        assert again is not None
        assert again.asleep is None
        await again.sleep(level)  # and it knows what it answered
        await again.wake()


@pytest.mark.parametrize("how", ["moving", "lies"])
async def test_an_engine_of_which_nobody_knows_whether_it_sleeps_is_ended(home: Path, card: Any, how: str) -> None:
    model = entry(home, *SIZES.split())
    async with engine(model) as it:
        await it.sleep(1)
        it._note(**({"moving": True} if how == "moving" else {"asleep": None}))
        assert await build_launcher(model).adopt() is None
        assert gone(it.pid)


async def test_a_sleeping_engine_that_may_not_sleep_any_more_is_ended(home: Path, card: Any) -> None:
    model = entry(home, *SIZES.split())
    async with engine(model) as it:
        await it.sleep(1)
        changed = model.model_copy(update={"launcher": model.launcher.model_copy(update={"sleep": "off"})})
        assert await build_launcher(changed).adopt() is None
        assert gone(it.pid)


# --- what a launcher says of itself ------------------------------------------------------------------


def test_the_levels_are_those_of_the_file(home: Path) -> None:
    levels = {sleep: build_launcher(entry(home, sleep=sleep)).levels for sleep in ("auto", "off", 1, 2)}
    assert levels == {"auto": (1, 2), "off": (), 1: (1,), 2: (2,)}


def test_what_was_measured_holds_for_the_same_flags_and_version_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = entry(home)
    first = build_launcher(it).identity
    assert build_launcher(it).identity == first
    other = it.model_copy(update={"launcher": it.launcher.model_copy(update={"env": {"X": "1"}})})
    assert build_launcher(other).identity != first
    assert build_launcher(it, exact_pinning=True).identity != first  # RAM that it pins is another amount
    monkeypatch.setattr(VllmProcess, "version", lambda self: "vllm-99")
    assert build_launcher(it).identity != first


def test_records_of_before_can_be_read() -> None:
    folder = paths.engine_records()
    (folder / "m.json").write_text('{"model": "m", "pid": 1, "created": 2.0, "identity": "x", "port": 3}')
    record = read_record(folder, "m")
    assert record is not None
    assert (record.asleep, record.moving, record.probe) == (None, False, None)
