"""Three agents on three models, through real LiteLLM and real engines: the loads of virtual time."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from roundhouse.bench import journal
from roundhouse.bench.stack import litellm_config
from roundhouse.bench.stack import model as entry
from roundhouse.bench.switching import play
from roundhouse.bench.workload import Workload
from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MODELS = "abc"
SWITCH_S, SERVICE_S, THINK_S, STEPS = 6.0, 0.6, 0.3, 5
"""Switches are long against the tenths of a second that a busy machine adds to a pause."""
TOKENS = 3


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    flags = ["--start-delay", str(SWITCH_S), "--tokens", str(TOKENS), "--token-delay", str(SERVICE_S / TOKENS)]
    with Stack(fakes.config(dict.fromkeys(MODELS, flags), journal=True)) as it:
        yield it


def agent(stack: Stack, name: str) -> None:
    """Ask the model of this name again and again, with a session of its own, and think in between."""
    for _ in range(STEPS):
        body = {"model": name, "messages": [{"role": "user", "content": f"{name} {time.time_ns()}"}]}
        response = stack.http.post("/v1/chat/completions", json=body, headers={"x-session-id": name})
        assert response.status_code == 200, response.text
        Event().wait(THINK_S)  # an agent's thinking is time that passes, and nothing else


def in_virtual_time() -> int:
    steps: list[dict[str, Any]] = [{"service_s": SERVICE_S, "think_s": THINK_S} for _ in range(STEPS)]
    document = {
        "models": {name: {"switch_s": SWITCH_S} for name in MODELS},
        "agents": [{"caller": name, "steps": [{"model": name, **step} for step in steps]} for name in MODELS],
        "name": "three agents",
    }
    return len(play(Workload.model_validate(document), "ours").switches)


def test_three_agents_cost_as_many_loads_as_in_virtual_time(stack: Stack) -> None:
    with ThreadPoolExecutor(len(MODELS)) as pool:
        for asked in [pool.submit(agent, stack, name) for name in MODELS]:
            asked.result()
    expected = in_virtual_time()
    assert expected < len(MODELS) * STEPS / 3
    assert stack.counter("starts") == expected
    assert stack.counter("refused") == 0


def test_its_journal_is_private_and_can_be_played_again(stack: Stack) -> None:
    file = stack.home / "journal.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    digest = hashlib.sha256(stack.key.encode()).hexdigest()  # LiteLLM's name of the key
    assert not any(it in text for it in ("content", "user", "sk-", stack.key, digest))
    (day,) = journal.workloads(file)
    assert day.requests == len(MODELS) * STEPS
    assert len(play(day, "ours").switches) == in_virtual_time()
    stack.kill("residency")
    assert stack.chat(stack.resident() or "", "and now").status_code == 200
    (whole,) = journal.workloads(file)
    assert whole.requests == day.requests + 1


def test_a_model_that_is_about_to_be_asked_for_is_there_before() -> None:
    start_s = 4.0
    flags = ["--start-delay", str(start_s), "--tokens", "2"]
    launchers = {
        "a": fakes.launcher("a", *flags, memory="1GiB"),
        "b": fakes.launcher("b", *flags, memory="1GiB", idle_stop_s=1.0),  # nobody has to leave for it
    }
    devices = [{"id": "gpu0", "memory": "8GiB", "reserve": 0}]
    document = litellm_config([entry(n, spec) for n, spec in launchers.items()], gate=True, devices=devices)
    with Stack(document) as stack:
        for turn, model in enumerate("ababa"):
            if turn == 4:
                wait_for(lambda: stack.state("b") == "stopped", "it rests", 20.0)
            assert stack.chat(model, f"turn {turn}").status_code == 200
            Event().wait(3.0)  # the pause from which the habit is learned
        wait_for(lambda: stack.state("b") == "ready", "the model that comes next", 20.0)
        began = time.monotonic()
        assert stack.chat("b", "the last turn").status_code == 200
        assert time.monotonic() - began < start_s  # no less if it had to be started
        (device,) = stack.status()["devices"]
        assert device["decisions"]["foresight"] >= 1
