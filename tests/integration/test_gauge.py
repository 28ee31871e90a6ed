"""What the driver says, with the bindings of a fake driver: who has how much, and whether it is back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from roundhouse.launchers import gauge as module
from roundhouse.launchers.gauge import GaugeError, NotReleased, Nvml, Reading, foreign, open_gauge, until_released
from tests.support import card as fake
from tests.support.card import GIB, Card
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ME = os.getpid()
UUID = "GPU-0f0f0f0f-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("CUDA_VISIBLE_DEVICES", "FAKE_CARD_PIDS", "FAKE_CARD_LOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FAKE_CARD", str(tmp_path / "card.json"))
    monkeypatch.setitem(sys.modules, "pynvml", fake.nvml())
    return Card.create(tmp_path / "card.json")


@pytest.fixture
def stranger(card: Any) -> Iterator[int]:
    """Another process, with 2 GiB of the card."""
    with subprocess.Popen(["sleep", "60"]) as process:
        card.hold(2 * GIB, process.pid)
        yield process.pid
        process.kill()


def gauge() -> Nvml:
    it = open_gauge()
    assert it is not None
    return it


def read() -> Reading:
    it = gauge().read("gpu0")
    assert it is not None
    return it


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may run in a container."""
    monkeypatch.setattr(os, "readlink", lambda path: module.INITIAL_PID_NAMESPACE)


def test_a_reading_says_how_much_there_is_and_who_has_it(card: Any, stranger: int) -> None:
    card.hold(3 * GIB)
    reading = read()
    assert (reading.total, reading.used, reading.free) == (16 * GIB, 5 * GIB, 11 * GIB)
    assert reading.by_pid == {ME: 3 * GIB, stranger: 2 * GIB}
    assert reading.held({ME}) == 3 * GIB
    it = gauge()
    assert (it.card, it.total("gpu0"), it.total("cpu")) == ("Fake card, driver 0.0 (fake)", 16 * GIB, None)
    assert it.read("cpu") is None
    it.close()


def test_what_others_have_is_said_with_their_names(card: Any, stranger: int) -> None:
    card.hold(3 * GIB)
    others = foreign(read(), {ME})
    assert (others.used, others.names) == (2 * GIB, (f"sleep (pid {stranger})",))
    nobody = foreign(read(), {ME, stranger})
    assert (nobody.used, nobody.names) == (0, ())


async def test_a_driver_that_does_not_say_who_has_what_is_read_as_a_whole(
    card: Any, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CARD_PIDS", "no")
    card.hold(3 * GIB)
    reading = read()
    assert reading.by_pid is None
    assert reading.held({ME}, others=2 * GIB) == 3 * GIB
    assert foreign(reading, {ME}, booked=3 * GIB).used == 2 * GIB
    assert await until_released(gauge(), "gpu0", {ME}, 3 * GIB, 0.1, others=2 * GIB) == 3 * GIB


async def test_in_a_container_pids_are_the_drivers_only_if_all_are_there(
    card: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[4026532000]")
    assert read().by_pid is None  # nobody is listed: who knows
    card.hold(3 * GIB)
    assert read().by_pid == {ME: 3 * GIB}
    monkeypatch.setattr(psutil, "pid_exists", lambda pid: False)
    assert read().by_pid is None


@pytest.mark.parametrize(
    ("visible", "cards"),
    [(None, 1), ("0", 1), (UUID, 1), ("GPU-0f0f", 1), ("0,7", 1), ("", 0), ("-1", 0), ("7", 0), ("GPU-1", 0)],
)
def test_the_cards_are_those_that_cuda_shows(monkeypatch: pytest.MonkeyPatch, visible: str | None, cards: int) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    it = open_gauge(["gpu0", "gpu1"])
    assert sum(it is not None and it.total(device) is not None for device in ("gpu0", "gpu1")) == cards


def test_where_there_is_no_driver_there_is_no_gauge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKE_CARD")
    assert open_gauge() is None


def test_a_card_that_is_lost_is_said(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    it = gauge()
    monkeypatch.setenv("FAKE_CARD_LOST", "1")
    with pytest.raises(GaugeError, match="driver does not answer for gpu0"):
        it.read("gpu0")


async def test_whoever_waits_goes_on_as_soon_as_the_memory_is_back(card: Any) -> None:
    card.hold(3 * GIB)
    waiting = asyncio.create_task(until_released(gauge(), "gpu0", {ME}, 1 * GIB, 30))
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    card.hold(GIB // 2)
    await until(waiting.done, "it goes on", 5)
    assert await waiting == GIB // 2


async def test_memory_that_does_not_come_back_is_said_with_both_numbers(card: Any) -> None:
    card.hold(3 * GIB)
    with pytest.raises(NotReleased, match=r"3.00 GiB are still held after 0 s, not 1.00 GiB") as error:
        await until_released(gauge(), "gpu0", {ME}, 1 * GIB, 0.2)
    assert (error.value.held, error.value.at_most) == (3 * GIB, 1 * GIB)


async def test_what_a_process_had_is_back_when_it_is_gone(card: Any) -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    card.hold(4 * GIB, child.pid)
    assert read().held({child.pid}) == 4 * GIB
    child.kill()
    assert await until_released(gauge(), "gpu0", {child.pid}, 0, 10) == 0
    await child.wait()
