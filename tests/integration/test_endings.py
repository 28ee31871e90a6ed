"""How ``up`` begins and ends: what it prints, its exit code, and that nothing is left. The gateway is a fake."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from roundhouse.cli import absence
from tests.support.light import LINES, READY, Home
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

Up = subprocess.Popen[str]


@pytest.fixture
def home() -> Iterator[Home]:
    with tempfile.TemporaryDirectory(prefix="rh-", ignore_cleanup_errors=True) as folder:
        it = Home(Path(folder))
        yield it
        it.end()


def told(number: signal.Signals) -> Callable[[Home, Up], None]:
    return lambda home, up: up.send_signal(number)


def killed(name: str) -> Callable[[Home, Up], None]:
    return lambda home, up: home.service(name).kill()


def manager(number: signal.Signals) -> Callable[[Home, Up], None]:
    return lambda home, up: home.honcho().send_signal(number)


def down_elsewhere(home: Home, up: Up) -> None:
    down = home.run("down")
    assert (down.returncode, down.stdout) == (0, "down\n")


@dataclass(frozen=True)
class Ending:
    """One row: what happens to an ``up`` that is ready, the exit code, and what it says of it."""

    how: Callable[[Home, Up], None]
    code: int
    says: str
    afterwards: str = "not running; start it with"


ENDINGS = {
    "Ctrl-C": Ending(told(signal.SIGINT), 0, "\ndown\n"),
    # `up` died, and 16 processes went on, when it was told to end otherwise than by Ctrl-C
    "SIGTERM": Ending(told(signal.SIGTERM), 0, "\ndown\n"),
    "SIGHUP": Ending(told(signal.SIGHUP), 0, ""),
    # it was called a crash, with code 143, and exit code 1
    "down elsewhere": Ending(down_elsewhere, 0, "stopped by 'roundhouse down'"),
    **{
        f"crash of {name}": Ending(
            killed(name), 1, f"{name} was killed (SIGKILL) and took the others with it", f"{name} was killed (SIGKILL)"
        )
        for name in LINES
    },
    "end of the process manager": Ending(
        manager(signal.SIGTERM), 1, "the process manager was told to end (SIGTERM)", "told to end (SIGTERM)"
    ),
    "crash of the process manager": Ending(
        manager(signal.SIGKILL), 1, "the process manager was killed", "the process manager was killed"
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_however_up_ends_nothing_is_left_and_the_reason_is_said(
    home: Home, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, up = ENDINGS[name], home.up()
    it.how(home, up)
    said = up.communicate(timeout=60)[0]
    assert (up.returncode, it.says in said) == (it.code, True), said
    assert "Traceback" not in said
    assert home.processes() == []
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(home.folder))
    assert it.afterwards in absence.why()  # what every command says from now on


def test_a_closed_terminal_ends_it(home: Home) -> None:
    terminal, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(theirs), os.O_RDWR))  # the first one that is opened becomes ours

    up = home.start("up", stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take_terminal)
    os.close(theirs)
    said = b""
    while READY.encode() not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert up.wait(60) == 0
    assert home.processes() == []


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        (told(signal.SIGINT), 130, "stopping"),  # it was 0: what comes after `up --detach &&` went on
        (told(signal.SIGTERM), 143, "stopping"),
        (lambda home, up: home.run("down"), 1, "stopped by 'roundhouse down' before it was ready"),
    ],
    ids=["Ctrl-C", "SIGTERM", "down elsewhere"],
)
def test_a_start_that_is_broken_off_is_no_success(
    home: Home, how: Callable[[Home, Up], None], code: int, says: str
) -> None:
    home.env["ROUNDHOUSE_FAKE_GATEWAY"] = "deaf"
    up = home.start("up", "--detach")
    home.listens()
    how(home, up)
    said = up.communicate(timeout=60)[0]
    assert (up.returncode, says in said) == (code, True), said
    assert home.processes() == []


def test_a_service_that_does_not_start_has_its_own_last_words_shown(home: Home) -> None:
    """The reason was above the 15 lines in which the others said goodbye."""
    home.env["ROUNDHOUSE_FAKE_GATEWAY"] = "broken"
    up = home.run("up", "--detach")
    assert up.returncode == 1
    assert "proxy ended (code 3) and took the others with it" in up.stderr
    assert up.stderr.endswith("  proxy: the last words of the gateway\n")
    assert home.processes() == []


def test_output_that_nobody_reads_stops_nothing(home: Home) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    up = home.start("up", "--detach", stdout=writer, stderr=writer)
    os.close(writer)
    assert up.wait(60) == 0
    assert home.run("status").returncode == 0
    assert home.run("down").returncode == 0


def test_ctrl_c_again_and_again_leaves_nothing(home: Home) -> None:
    up = home.up()
    while up.poll() is None:
        up.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            up.wait(0.1)
    up.communicate()
    assert home.processes() == []


def test_a_second_up_waits_for_the_first(home: Home) -> None:
    """It said 'down' to whoever was faster than the start, and ended the start with that."""
    first = home.start("up", "--detach")
    wait_for(lambda: _locked(home), "the first is at work")
    second = home.run("up", "--detach")
    first.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert f"it is being started by process {first.pid}; waiting for that" in second.stderr
    assert "runs already" in second.stdout
    assert home.run("down").returncode == 0


def _locked(home: Home) -> bool:
    lock = home.folder / "run" / "up.lock"
    return lock.exists() and lock.read_text() != ""


def test_a_stack_that_dies_alone_is_not_one_that_was_never_started(home: Home) -> None:
    assert home.run("up", "--detach").returncode == 0
    home.service("postgres").kill()
    wait_for(lambda: not home.processes(), "all have ended")
    for command in ("status", "down", "switch a"):
        it = home.run(*command.split())
        assert it.returncode == 3
        assert "not running: it died at" in it.stderr
        assert "postgres was killed (SIGKILL)" in it.stderr
        assert it.stderr.count("\n") == 1
