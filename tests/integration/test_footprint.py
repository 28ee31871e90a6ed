"""What the stack costs before any engine runs: time until it answers, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress

import httpx
import pytest
import yaml

from roundhouse.bench.overhead import PLAIN
from tests.support import fakes
from tests.support.database import require_parts
from tests.support.stack import Stack, free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

START_RATIO = 1.5
MEMORY_MB = 700
KEYS_START_RATIO = 1.8
KEYS_MEMORY_MB = 350


def plain_start_s(stack: Stack) -> float:
    """Seconds until LiteLLM alone, with the same models, answers."""
    config = fakes.config({"a": []})
    config["litellm_settings"]["callbacks"] = ["prometheus"]
    path = stack.home / "plain.yaml"
    path.write_text(yaml.safe_dump(config))
    port = free_port()
    env = {**stack._env, "PLAIN_PORT": str(port), "CONFIG_FILE_PATH": str(path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    env["REDIS_URL"] = "unix:///nowhere"
    began = time.monotonic()
    plain = subprocess.Popen(
        [sys.executable, "-c", PLAIN], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def answers() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/health/liveliness").status_code == 200
        return False

    wait_for(answers, "LiteLLM answers", 60)
    took = time.monotonic() - began
    plain.kill()
    plain.wait()
    return took


def test_the_stack_answers_nearly_as_soon_as_litellm_alone_and_stays_small() -> None:
    ours, alone = [], []
    for _ in range(2):
        stack = Stack(fakes.config({"a": []}))
        began = time.monotonic()
        with stack:
            ours.append(time.monotonic() - began)
            memory = sum(p.memory_full_info().pss for p in stack.processes() if p.pid != os.getpid())
            alone.append(plain_start_s(stack))
        assert memory < MEMORY_MB * 2**20, f"{memory >> 20} MB"
    assert min(ours) < START_RATIO * min(alone), f"{ours} s against {alone} s"


def database_mb(stack: Stack) -> int:
    """What PostgreSQL, its line and the bridge take, each shared page counted once."""
    total = 0
    for process in stack.processes():
        line = " ".join(process.cmdline())
        if "bridge.mjs" in line or "roundhouse.deploy.services.postgres" in line or process.name() == "postgres":
            total += process.memory_full_info().pss
    return total >> 20


def test_keys_cost_little_memory_and_a_start_takes_little_longer() -> None:
    require_parts()
    with Stack(fakes.config({"a": []})) as without, Stack(fakes.config({"a": []}), keys=True) as with_keys:
        memory = database_mb(with_keys)
        assert 20 < memory < KEYS_MEMORY_MB, f"{memory} MB"
        off, on = zip(*((without.restart(), with_keys.restart()) for _ in range(2)), strict=True)
        print(f"with keys {min(on):.1f} s, without {min(off):.1f} s, {memory} MB")
    assert min(on) < KEYS_START_RATIO * min(off), f"{on} s against {off} s"
