"""The whole product on an emulated card: the real vLLM launcher, engines as real processes, sleep and its faults."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from roundhouse.bench.stack import litellm_config, model
from tests.support import fake_vllm
from tests.support.card import FAKES, GIB, Card
from tests.support.stack import Stack, free_port
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

RESIDUAL = GIB // 2
START_S = 0.6
"""Long against a sleep and a wake: an engine that starts in no time is rightly stopped instead."""

RAM = "10GiB"
"""For the weights of one of the three: the others sleep at level 2."""

SIZES = {"vision": 9, "thinker": 12, "coder": 8}
SMALL = {"small-1": 3, "small-2": 4}
FAULTS = {
    "keeps-all": "--sleep-frees-nothing",
    "half-asleep": "--sleep-fails",
    "garbage": "--garbage-after 1",
    "lies": "--is-sleeping-lies",
}


def engine(name: str, gib: int, folder: Path, *flags: str, **more: Any) -> dict[str, Any]:
    """A vLLM model whose engine takes ``gib`` of the emulated card, a quarter of it for its KV cache."""
    sizes = f"--card {folder / 'card.json'} --weights {gib * 0.75}G --kv {gib * 0.25 - 0.5}G --residual {RESIDUAL}"
    spec: dict[str, Any] = {
        "kind": "vllm",
        "port": free_port(),
        "model": str(folder / "weights"),
        "args": [f"--fake={sizes} --start-delay {START_S} {' '.join(flags)}"],
        "memory": f"{gib}GiB",
        "stop_grace_s": 2,
        "env": {"FAKE_CARD": "${FAKE_CARD}"},
    }
    return model(name, spec | more)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rh-card-") as name:
        it = Path(name)
        (it / "weights").mkdir()
        (it / "weights" / "config.json").write_text("{}")
        (it / "driver").mkdir()
        for part in ("card.py", "pynvml.py"):
            (it / "driver" / part).symlink_to(FAKES / part)
        yield it


@pytest.fixture(scope="module")
def card(folder: Path) -> Any:
    return Card.create(folder / "card.json")


@pytest.fixture(scope="module")
def stack(folder: Path, card: Any) -> Iterator[Stack]:
    models = [engine(name, gib, folder) for name, gib in (SIZES | SMALL).items()]
    models.append(engine("deep", 9, folder, sleep=2))
    models.append(engine("huge", 20, folder))
    models += [engine(name, 9, folder, flag) for name, flag in FAULTS.items()]
    env = {
        "ROUNDHOUSE_ENGINE_PYTHON": str(fake_vllm.make(folder / "engine", cuda=True)),
        "FAKE_CARD": str(folder / "card.json"),
        "PYTHONPATH": str(folder / "driver"),
    }
    with Stack(litellm_config(models, gate=True, max_wait_s=60, ram_budget=RAM), env) as it:
        yield it
    assert card.by_pid == {}
    assert card.overlaps == 0
    assert card.peak <= card.total


def ask(stack: Stack, name: str) -> str:
    """What the model answers; its name is in it."""
    response = stack.chat(name, f"Hello {time.time_ns()}")
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def settled(stack: Stack) -> dict[str, Any]:
    """The status once nothing moves."""

    def still() -> dict[str, Any] | None:
        status = stack.status()
        moving = [m for m in status["models"].values() if m["state"] in ("starting", "sleeping", "waking", "stopping")]
        return None if moving else status

    return wait_for(still, "nothing moves") or {}


def test_three_models_that_do_not_fit_take_turns_asleep_and_each_keeps_its_process(stack: Stack, card: Any) -> None:
    pids = {}
    for turn in range(3):
        for name in SIZES:
            assert name in ask(stack, name)
            status = stack.status()
            assert pids.setdefault(name, stack.engine_pid(name)) == stack.engine_pid(name), f"turn {turn}"
            assert card.by_pid[pids[name]] == SIZES[name] * GIB
    assert {name: m["state"] for name, m in status["models"].items() if name in SIZES} == {
        "vision": "asleep",
        "thinker": "asleep",
        "coder": "ready",
    }
    assert [status["models"][name]["sleep_level"] for name in SIZES] == [1, 2, None]
    assert status["models"]["vision"]["memory"]["residual"] == RESIDUAL
    assert status["models"]["vision"]["measured"]["wake_s"] < status["models"]["vision"]["measured"]["start_s"]
    assert card.by_pid[pids["vision"]] == RESIDUAL
    assert status["counters"]["starts"] == 3
    assert status["counters"]["sleep_failures"] == 0


def test_two_that_fit_side_by_side_answer_together(stack: Stack) -> None:
    for name in SMALL:
        ask(stack, name)
    switches = stack.counter("switches")
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(ask, stack, list(SMALL)[i % 2]) for i in range(16)]
        for future in asked:
            future.result()
    assert set(SMALL) <= set(stack.status()["devices"][0]["residents"])
    assert stack.counter("switches") == switches


def test_a_model_at_level_2_comes_back_with_its_weights(stack: Stack, card: Any) -> None:
    assert "deep" in ask(stack, "deep")
    pid = stack.engine_pid("deep")
    ask(stack, "thinker")
    assert stack.status()["models"]["deep"]["sleep_level"] == 2
    assert "deep" in ask(stack, "deep")
    assert stack.engine_pid("deep") == pid
    assert pid not in card.pinned


@pytest.mark.parametrize("name", FAULTS)
def test_an_engine_that_cannot_be_trusted_is_ended_and_the_next_answer_is_right(stack: Stack, name: str) -> None:
    ask(stack, name)
    pid, failures = stack.engine_pid(name), stack.counter("sleep_failures")
    assert "thinker" in ask(stack, "thinker")
    assert name in ask(stack, name)
    assert stack.engine_pid(name) != pid
    assert stack.counter("sleep_failures") == failures + 1
    said = stack.status()["models"][name]["failure"]
    assert said is None or name in said


def test_a_model_that_can_never_fit_is_refused_at_once(stack: Stack) -> None:
    response = stack.chat("huge", "Hello")
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("residency_error", "model_does_not_fit")
    assert "it needs 20.0 GiB, models can have 15.5" in error["message"]


def test_a_game_is_seen_and_named_and_gets_the_memory_of_idle_engines(stack: Stack, card: Any) -> None:
    stack.http.post("/residency/unload", json={"model": None}).raise_for_status()
    ask(stack, "thinker")
    settled(stack)
    card.hold(taken := card.free)  # all that is free, as a game takes it
    try:
        wait_for(lambda: _others(stack) == taken, "the game is seen")
        (program,) = stack.status()["devices"][0]["memory"]["programs"]
        assert "python" in program
        wait_for(lambda: card.free > 11 * GIB, "the engine gives its memory back")
        card.hold(10 * GIB)
        wait_for(lambda: _others(stack) == 10 * GIB, "it is seen again")
        refused = stack.chat("thinker", "Hello")
        assert refused.json()["error"]["code"] == "model_does_not_fit"
        assert "other programs use 10.0" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "30"
        assert "small-1" in ask(stack, "small-1")  # that fits beside it
    finally:
        card.hold(0)
    wait_for(lambda: _others(stack) == 0, "it is gone")
    assert "thinker" in ask(stack, "thinker")


def _others(stack: Stack) -> int:
    return int(stack.status()["devices"][0]["memory"]["others"])


def test_sleepers_survive_a_killed_residency_and_what_was_measured_too(stack: Stack) -> None:
    for name in ("coder", "thinker"):
        ask(stack, name)
    before = settled(stack)["models"]
    assert before["coder"]["state"] == "asleep"
    stack.kill("residency")
    wait_for(lambda: _state(stack, "coder") == "asleep", "the sleeper is taken over")
    after = stack.status()["models"]
    assert after["coder"]["memory"] == before["coder"]["memory"]
    assert after["coder"]["measured"]["start_s"] == before["coder"]["measured"]["start_s"]
    assert "coder" in ask(stack, "coder")
    assert stack.engine_pid("coder") == before["coder"]["pid"]


def _state(stack: Stack, name: str) -> str | None:
    try:
        return stack.state(name)
    except Exception:  # residency is being started again
        return None


def test_a_sleeper_that_is_killed_is_cleaned_up_and_comes_back(stack: Stack, card: Any) -> None:
    for name in ("coder", "thinker"):
        ask(stack, name)
    pid = stack.kill_engine("coder")
    wait_for(lambda: stack.state("coder") == "stopped", "it is cleaned up")
    assert pid not in card.by_pid
    assert "coder" in ask(stack, "coder")


def test_unload_frees_all_of_the_card(stack: Stack, card: Any) -> None:
    stack.http.post("/residency/unload", json={"model": None}).raise_for_status()
    assert card.by_pid == {}
    assert {m["state"] for m in stack.status()["models"].values()} == {"stopped"}
