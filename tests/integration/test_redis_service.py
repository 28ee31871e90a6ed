"""The Procfile's `redis`: a real server, kept running, private, and gone when its line ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from roundhouse.deploy.services import redis as service
from tests.support.waiting import gone

pytestmark = pytest.mark.integration
ODD_PASSWORD = 'p@ss/w:rd #ü "\\x'
DEADLINE_S = 10.0

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if service.program() is None:
        pytest.skip("no Redis server; './roundhouse test' fetches one")
    monkeypatch.setenv("ROUNDHOUSE_HOME", str(tmp_path / "h"))
    monkeypatch.setenv("REDIS_PASSWORD", ODD_PASSWORD)
    monkeypatch.delenv("REDIS_URL", raising=False)
    return tmp_path / "h"


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(**environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "roundhouse.deploy.services.redis"],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def _answers() -> bool:
    with redis.Redis.from_url(service.redis_url()) as client:
        try:
            return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


def _pid(home: Path) -> int:
    """The server's; 0 while there is none."""
    try:
        return int(json.loads((home / "run" / "redis.pid").read_text())["pid"])
    except FileNotFoundError:
        return 0


def test_it_answers_on_a_private_socket_with_the_password_out_of_sight(home: Path, start: Start) -> None:
    start()
    _until(_answers)
    run = home / "run"
    assert (run / "redis.sock").stat().st_mode & 0o077 == 0
    assert (run / "redis.conf").stat().st_mode & 0o077 == 0
    server = psutil.Process(_pid(home))
    assert ODD_PASSWORD not in " ".join(server.cmdline())
    assert server.net_connections() == []
    with redis.Redis.from_url(service.redis_url()) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
        assert client.config_get("save") == {"save": ""}


def test_a_wrong_password_is_refused(home: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    _until(_answers)
    monkeypatch.setenv("REDIS_PASSWORD", "wrong")
    assert not _answers()


def test_a_killed_server_comes_back(home: Path, start: Start) -> None:
    start()
    _until(_answers)
    first = _pid(home)
    os.kill(first, signal.SIGKILL)
    _until(lambda: _pid(home) not in (0, first) and _answers())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_leaves_nothing(home: Path, start: Start, number: int) -> None:
    process = start()
    _until(_answers)
    server = _pid(home)
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == 0
    assert not psutil.pid_exists(server)
    assert not (home / "run" / "redis.sock").exists()
    assert not (home / "run" / "redis.pid").exists()


def test_the_server_dies_with_a_killed_parent_and_a_new_one_takes_over(home: Path, start: Start) -> None:
    process = start()
    _until(_answers)
    server = psutil.Process(_pid(home))
    process.kill()
    _until(lambda: gone(server))
    start()
    _until(_answers)


def test_with_an_address_of_the_users_none_is_started(home: Path, start: Start) -> None:
    process = start(REDIS_URL="redis://127.0.0.1:1/0")
    assert process.stdout is not None
    assert "REDIS_URL is set" in process.stdout.readline()
    assert process.poll() is None
    assert not (home / "run" / "redis.pid").exists()
    process.terminate()
    assert process.wait(DEADLINE_S) == 0


def test_the_address_is_the_users_if_there_is_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert service.redis_url().startswith("unix://")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    assert service.redis_url() == "redis://elsewhere"
