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

from roundhouse.deploy.setup import card as setup_card
from roundhouse.launchers import gauge as module
from roundhouse.launchers.gauge import GaugeError, NotReleased, Nvml, Reading, foreign, open_gauge, until_released
from tests.support import card as fake
from tests.support.card import GIB, MIB, Card
from tests.support.machine import LINUX, WSL, kernel
from tests.support.nvml import pretend_driver, with_driver
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ME = os.getpid()
UUID = "GPU-0f0f0f0f-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("CUDA_VISIBLE_DEVICES", "FAKE_CARD_PIDS", "FAKE_CARD_LOST", "FAKE_CARD_INIT"):
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


@pytest.mark.parametrize(("used", "by_pid"), [(GIB // 2, {}), (13 * GIB, None)])
def test_an_empty_list_is_knowledge_only_while_little_is_used(
    card: Any, monkeypatch: pytest.MonkeyPatch, used: int, by_pid: dict[int, int] | None
) -> None:
    monkeypatch.setenv("FAKE_CARD_PIDS", "nobody")
    card.hold(used)
    reading = read()
    assert reading.by_pid == by_pid
    assert foreign(reading, {ME}, booked=used).used == (0 if by_pid is None else used)


def test_a_list_without_an_engine_that_lives_is_not_about_engines(
    card: Any, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_CARD_PIDS", str(stranger))
    card.hold(9 * GIB)
    reading = read()
    assert reading.by_pid == {stranger: 2 * GIB}
    assert reading.held({ME}, others=2 * GIB) == 9 * GIB
    assert foreign(reading, {ME}, booked=9 * GIB).used == 2 * GIB
    assert reading.held({dead()}, others=2 * GIB) == 0  # a process that is gone is rightly in no list
    card.hold(GIB // 2)
    assert read().held({ME}, others=2 * GIB) == 0  # all but little is listed: it has nothing of the card


def dead() -> int:
    """The pid of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def test_a_list_that_we_may_not_see_is_none(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CARD_PIDS", "denied")
    assert read().by_pid is None


async def test_where_the_card_is_read_as_a_whole_a_stop_lets_a_desktop_s_changes_pass(
    card: Any, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.hold(2 * GIB + 100 * MIB, stranger)  # it has grown since it was last looked at
    monkeypatch.setenv("FAKE_CARD_PIDS", "no")
    assert await until_released(gauge(), "gpu0", {dead()}, 0, 0.1, others=2 * GIB) == 100 * MIB
    card.hold(2 * GIB + 300 * MIB, stranger)
    with pytest.raises(NotReleased, match=r"0\.29 GiB are still held after 0 s, not 0\.25 GiB"):
        await until_released(gauge(), "gpu0", {dead()}, 0, 0.1, others=2 * GIB)
    monkeypatch.delenv("FAKE_CARD_PIDS")
    assert await until_released(gauge(), "gpu0", {dead()}, 0, 0.1) == 0


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


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [(4, "ls -l /dev/nvidia"), (15, "turn the machine off and on"), (18, "reboot"), (999, "nvidia-smi")],
    ids=["no permission", "lost", "mismatch", "unknown"],
)
def test_a_driver_that_does_not_answer_is_not_no_driver(
    monkeypatch: pytest.MonkeyPatch, answer: int, remedy: str
) -> None:
    monkeypatch.setenv("FAKE_CARD_INIT", str(answer))
    with pytest.raises(GaugeError, match=f"the driver does not answer .*{answer}.*: .*{remedy}"):
        open_gauge()


def test_on_wsl2_the_remedy_is_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CARD_INIT", "15")
    kernel(monkeypatch, WSL)
    with pytest.raises(GaugeError, match="wsl --shutdown"):
        open_gauge()


@pytest.mark.parametrize(("kind", "there"), [("0x030000", True), ("0x040300", False), (None, False)])
def test_a_driver_that_is_not_loaded_is_none_unless_there_is_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, there: bool
) -> None:
    monkeypatch.setattr(setup_card, "PCI", tmp_path / "pci")
    monkeypatch.setenv("FAKE_CARD_INIT", "9")
    kernel(monkeypatch, LINUX)
    if kind is not None:
        device = tmp_path / "pci" / "0000:01:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text(f"{kind}\n")
    if there:
        with pytest.raises(GaugeError, match="modprobe"):
            open_gauge()
    else:
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


TELL = """
import os, sys
from roundhouse.launchers import gauge

gauge.INITIAL_PID_NAMESPACE = os.readlink("/proc/self/ns/pid") if sys.argv[1] == "initial" else "another"
it = gauge.open_gauge()
for line in sys.stdin:
    open(os.environ["FAKE_NVML_FILE"], "w").write(line.replace(" ", "\\n").replace("ME", str(os.getpid())))
    by_pid = it.read("gpu0").by_pid
    print(by_pid if not by_pid else {"ME" if pid == os.getpid() else pid: size for pid, size in by_pid.items()})
"""


@pytest.mark.parametrize(
    ("namespace", "answers"),
    [
        ("initial", {"ME:5": "{'ME': 5}", "ME:N/A": "None", "ME:5,9:N/A": "None", "": "{}", "unsupported": "{}"}),
        ("another", {"ME:5": "{'ME': 5}", "4194305:5": "None", "ME:5,4194305:5": "None", "": "None"}),
    ],
)
def test_the_driver_s_own_library_is_read_alike(tmp_path: Path, namespace: str, answers: dict[str, str]) -> None:
    """Through NVIDIA's bindings: as on bare Linux, WSL2, MIG and in a container; 4194305 is no process's pid."""
    env = with_driver(pretend_driver(tmp_path))
    env["FAKE_NVML_FILE"] = str(tmp_path / "answers")
    lines = [f"FAKE_NVML_PROCESSES={who}" for who in answers]
    lines.append("FAKE_NVML_PROCESSES=unsupported FAKE_NVML_USED=13000000000")
    done = subprocess.run(
        [sys.executable, "-c", TELL, namespace],
        input="\n".join(lines) + "\n",
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [*answers.values(), "None"]
