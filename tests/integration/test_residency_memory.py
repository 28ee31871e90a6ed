"""What residency does about the card's memory: it looks before it decides, and says once that it cannot."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from roundhouse.bench.stack import litellm_config, model
from roundhouse.config import paths
from roundhouse.launchers.gauge import GaugeError, Reading
from roundhouse.residency.client.http import http_client
from roundhouse.residency.server.memory import Memory
from tests.support.card import CARD_VARIABLES, FAKES, GIB, Card
from tests.support.stack import free_port
from tests.support.waiting import until

pytestmark = pytest.mark.integration


class ScriptedGauge:
    """A card that answers while it is told to."""

    card = "scripted"

    def __init__(self) -> None:
        self.answers = True

    def total(self, device: str) -> int:
        return self.read(device).total

    def read(self, device: str) -> Reading:
        if not self.answers:
            raise GaugeError("the driver does not answer: reboot")
        return Reading(16 * GIB, 3 * GIB, None)


async def test_a_card_that_stops_answering_is_said_once_and_once_that_it_answers_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gauge = ScriptedGauge()
    memory = Memory(gauge)
    nobody: frozenset[int] = frozenset()
    for _ in range(2):
        caplog.clear()
        gauge.answers = False
        for _ in range(3):
            assert await memory.foreign("gpu0", nobody, 0) is None
            assert await memory.held("gpu0", nobody, 0) is None
            assert memory.total("gpu0") is None
            with pytest.raises(GaugeError):
                await memory.released("gpu0", nobody, 0, 0)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "the driver does not answer: reboot" in caplog.text
        gauge.answers = True
        for _ in range(3):
            assert await memory.foreign("gpu0", nobody, GIB) == 2 * GIB
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An emulated card whose driver does not tell who has what, as Windows' does not."""
    (tmp_path / "driver").mkdir()
    for part in ("card.py", "pynvml.py"):
        (tmp_path / "driver" / part).symlink_to(FAKES / part)
    port = free_port()
    named = {name: f"${{{name}}}" for name in CARD_VARIABLES}  # a service gets what the YAML names
    launcher = {"kind": "command", "port": port, "argv": ["sleep", "60"], "memory": "9GiB", "env": named}
    config = litellm_config([model("m", launcher)], gate=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for name, value in {
        "ROUNDHOUSE_HOME": str(tmp_path / "home"),
        "ROUNDHOUSE_CONFIG": str(tmp_path / "config.yaml"),
        "FAKE_CARD": str(tmp_path / "card.json"),
        "FAKE_CARD_PIDS": "no",
        "PYTHONPATH": str(tmp_path / "driver"),
    }.items():
        monkeypatch.setenv(name, value)
    return Card.create(tmp_path / "card.json")


@pytest.fixture
def desktop(card: Any) -> Iterator[int]:
    """Another program, with 3 GiB of the card."""
    with subprocess.Popen(["sleep", "60"]) as process:
        card.hold(3 * GIB, process.pid)
        yield process.pid
        process.kill()


@asynccontextmanager
async def residency(log: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The real process, as the Procfile starts it."""
    out = os.open(log, os.O_CREAT | os.O_WRONLY)
    argv = [sys.executable, "-m", "roundhouse.residency"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=out, stderr=out)
    os.close(out)
    try:
        await until(paths.control_socket().exists, "it listens")
        async with http_client(paths.control_socket(), timeout=30) as client:
            yield client
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


def said(log: Path) -> list[str]:
    """The lines about a card that does not answer."""
    return [line for line in log.read_text().splitlines() if "event=card_not_read" in line]


async def test_what_others_have_is_known_before_the_first_request(card: Any, desktop: int, tmp_path: Path) -> None:
    async with residency(tmp_path / "log") as client:
        memory = (await client.get("/status")).json()["devices"][0]["memory"]
        assert (memory["others"], memory["capacity"]) == (3 * GIB, 16 * GIB)


@pytest.mark.parametrize("fault", ["FAKE_CARD_INIT", "FAKE_CARD_LOST"])
async def test_a_driver_that_does_not_answer_at_the_start_is_said_once_and_residency_serves(
    card: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setenv(fault, "18" if fault == "FAKE_CARD_INIT" else "1")
    log = tmp_path / "log"
    async with residency(log) as client:
        assert (await client.get("/status")).json()["devices"][0]["memory"]["others"] == 0
        (line,) = said(log)
        assert "does not answer" in line
