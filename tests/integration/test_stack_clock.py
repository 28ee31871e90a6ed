"""The clock is set while the stack runs, with residency killed in between: engines are who they were."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roundhouse.bench.stack import litellm_config, model
from tests.support import fake_vllm
from tests.support.card import FAKES, MIB, Card
from tests.support.stack import Stack, free_port
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

HOUR_S = 3600


class Clock:
    """The clock of everything in the stack."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0)

    def set(self, offset_s: float) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(str(offset_s))
        fresh.replace(self.file)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rh-clock-") as name:
        it = Path(name)
        (it / "weights").mkdir()
        (it / "weights" / "config.json").write_text("{}")
        (it / "path").mkdir()
        for part in ("card.py", "pynvml.py", "clock/sitecustomize.py"):
            (it / "path" / Path(part).name).symlink_to(FAKES / part)
        yield it


@pytest.fixture
def clock(folder: Path) -> Clock:
    return Clock(folder / "clock")


@pytest.fixture
def card(folder: Path) -> Any:
    return Card.create(folder / "card.json")


@pytest.fixture
def stack(folder: Path, card: Any, clock: Clock) -> Iterator[Stack]:
    """One model on an emulated card."""
    spec = {
        "kind": "vllm",
        "port": free_port(),
        "model": str(folder / "weights"),
        "args": [f"--fake=--card {folder / 'card.json'} --weights 6G --kv 2G --residual 512M"],
        "memory": "8GiB",
        "stop_grace_s": 2,
        "env": {name: f"${{{name}}}" for name in ("FAKE_CARD", "FAKE_CLOCK")},  # a service gets what the YAML names
    }
    env = {
        "ROUNDHOUSE_ENGINE_PYTHON": str(fake_vllm.make(folder / "engine", cuda=True)),
        "FAKE_CARD": str(folder / "card.json"),
        "FAKE_CLOCK": str(clock.file),
        "PYTHONPATH": str(folder / "path"),
    }
    with Stack(litellm_config([model("a", spec)], gate=True), env) as it:
        yield it


def ask(stack: Stack) -> int:
    """Have an answer; the pid of the engine that gave it."""
    response = stack.chat("a", f"Hello {time.time_ns()}")
    assert response.status_code == 200, response.text
    pid = stack.engine_pid("a")
    assert pid is not None
    return pid


def others(stack: Stack) -> int:
    """What residency thinks that others than its engines have of the card, in bytes."""
    return int(stack.status()["devices"][0]["memory"]["others"])


def test_engines_are_who_they_were_though_the_clock_was_set(stack: Stack, card: Any, clock: Clock) -> None:
    pid = ask(stack)
    steps = [(-HOUR_S, False), (HOUR_S, False), (-HOUR_S, True), (HOUR_S, True)]
    for step, (offset_s, killed) in enumerate(steps, 1):
        if killed:
            stack.kill("residency")
        clock.set(offset_s)
        assert ask(stack) == pid
        card.hold(step * MIB)  # somebody else's: that it is seen, and no more, says that the card was read since
        wait_for(lambda it=step: others(stack) == it * MIB, "only what others have counts as theirs", 10)
    assert stack.counter("starts") == 0  # of the residency that there is now
    card.hold(0)
    clock.set(0)
    down = subprocess.run(
        [sys.executable, "-m", "roundhouse.cli.main", "down"],
        env=stack.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert down.returncode == 0, down.stdout + down.stderr
    assert gone(pid)
    assert card.by_pid == {}
    assert list((stack.home / "run" / "engines").iterdir()) == []
