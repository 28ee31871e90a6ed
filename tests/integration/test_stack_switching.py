"""The whole product with fake engines: who is served when, and that one engine at a time is on the device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import until, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(180)]

MODELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def device_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("device") / "device.txt"


@pytest.fixture(scope="module")
def stack(device_file: Path) -> Iterator[Stack]:
    flags = ["--device-file", str(device_file), "--start-delay", "0.2", "--token-delay", "0.005"]
    flags += ["--tokens", "400"]
    with Stack(fakes.config(dict.fromkeys(MODELS, flags), max_wait_s=8)) as it:
        yield it


def never_two_at_once(device_file: Path) -> None:
    """Assert that every engine stopped before the next one started."""
    on: str | None = None
    for line in device_file.read_text().splitlines():
        what, name, pid, _ = line.split()
        if what == "start":
            assert on is None, f"{name} ({pid}) started while {on} was on"
            on = f"{name} ({pid})"
        else:
            on = None


async def test_sixty_interleaved_requests_need_three_loads_and_all_are_answered(
    stack: Stack, device_file: Path
) -> None:
    before = stack.counter("switches")
    async with stack.async_client() as client:

        async def one(index: int) -> str:
            name = MODELS[index % 3]
            messages = [{"role": "user", "content": f"{index} {time.time_ns()}"}]
            answer = await client.chat.completions.create(  # type: ignore[call-overload]
                model=name, messages=messages, max_tokens=40
            )
            assert (answer.choices[0].message.content or "").startswith(name)
            return name

        answers = await asyncio.gather(*(one(i) for i in range(60)))
    assert len(answers) == 60
    assert stack.counter("switches") - before <= 4
    assert stack.counter("refused") == 0
    never_two_at_once(device_file)


async def test_a_long_answer_is_never_cut_by_a_request_for_another_model(stack: Stack) -> None:
    async with stack.async_client() as client:
        messages = [{"role": "user", "content": f"long {time.time_ns()}"}]
        stream = await client.chat.completions.create(model="a", messages=messages, stream=True)  # type: ignore[call-overload]
        pieces = [await anext(stream)]
        other = asyncio.create_task(asyncio.to_thread(stack.chat, "b", f"other {time.time_ns()}"))
        await until(lambda: stack.status()["models"]["b"]["waiting"] == 1, "b is asked for")
        assert stack.resident() == "a"
        pieces += [piece async for piece in stream]
        assert pieces[-1].choices[0].finish_reason == "stop"
        assert len(pieces) >= 40
        assert (await other).status_code == 200
    assert stack.resident() == "b"


async def test_a_model_that_is_asked_for_again_and_again_does_not_starve_another(stack: Stack) -> None:
    """max_wait is 8 s, a drain takes up to 2 s, a switch 0.5 s.

    Every answer of 2 s is overlapped by the next one of the same caller, so that "a" has no dry moment.
    """
    async with stack.async_client() as client:
        answers: list[asyncio.Task[None]] = []
        done = asyncio.Event()

        async def answer(going: asyncio.Event) -> None:
            messages = [{"role": "user", "content": f"busy {time.time_ns()}"}]
            stream = await client.chat.completions.create(  # type: ignore[call-overload]
                model="a", messages=messages, stream=True, max_tokens=400
            )
            async for _ in stream:
                going.set()

        async def relay() -> None:
            while not done.is_set():
                going = asyncio.Event()
                answers.append(asyncio.create_task(answer(going)))
                await going.wait()
                await asyncio.sleep(0.5)

        await asyncio.to_thread(stack.chat, "a", f"warm {time.time_ns()}")
        callers = [asyncio.create_task(relay()) for _ in range(2)]
        await until(lambda: stack.leases() > 1, "a is busy")
        began = time.monotonic()
        response = await asyncio.to_thread(stack.chat, "b", f"once {time.time_ns()}")
        waited = time.monotonic() - began
        done.set()
        await asyncio.gather(*callers)
        await asyncio.gather(*answers)
    assert response.status_code == 200
    assert waited < 8 + 2 + 0.5 + 3  # max_wait, a drain, a switch; 3 s for a busy machine. The gate may shut sooner.


def test_a_repeated_question_is_answered_from_the_cache_without_a_switch(stack: Stack) -> None:
    question = f"again {time.time_ns()}"
    first = stack.chat("a", question, temperature=0).json()
    wait_for(lambda: stack.chat("a", question, temperature=0).json() == first, "the answer is in the cache", 5)
    stack.chat("b", f"other {time.time_ns()}")
    switches = stack.counter("switches")
    assert stack.chat("a", question, temperature=0).json()["choices"] == first["choices"]
    assert stack.resident() == "b"
    assert stack.counter("switches") == switches


@pytest.mark.parametrize(
    "more", [{"min_p": 0.5}, {"structured_outputs": {"choice": ["x"]}}, {"chat_template_kwargs": {"x": 1}}]
)
def test_what_only_vllm_knows_makes_another_question(stack: Stack, more: dict[str, object]) -> None:
    question = f"param {time.time_ns()}"
    first = stack.chat("b", question, seed=1).json()
    wait_for(lambda: stack.chat("b", question, seed=1).json() == first, "the answer is in the cache", 5)
    assert stack.chat("b", question, seed=1, **more).json()["choices"] != first["choices"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/health",
        "/health/liveliness",
        "/health/readiness",
        "/model/info",
        "/metrics",
        "/residency/status",
    ],
)
def test_looking_never_starts_anything(stack: Stack, path: str) -> None:
    starts = stack.counter("starts")
    response = stack.http.get(path, follow_redirects=True)
    assert response.status_code == 200, response.text
    assert stack.counter("starts") == starts


def test_switch_and_unload_over_the_gateway(stack: Stack) -> None:
    response = stack.http.post("/residency/switch", json={"model": "c"})
    assert response.status_code == 200
    assert response.json()["devices"][0]["resident"] == "c"
    response = stack.http.post("/residency/unload", json={"model": None, "force": False})
    assert response.status_code == 200
    assert stack.resident() is None
    response = stack.http.post("/residency/switch", json={"model": "nope"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_model")


def test_nothing_ever_needed_the_backstop(stack: Stack) -> None:
    assert "roundhouse_backstop_releases_total 0.0" in stack.http.get("/residency/metrics").text
    assert stack.leases() == 0


def test_a_question_that_the_cache_does_not_know_is_looked_up_once(stack: Stack) -> None:
    """By us, before the wait: LiteLLM need not ask again."""
    path = str(stack.home / "run" / "redis.sock")
    with redis.Redis(unix_socket_path=path, password=stack._env["REDIS_PASSWORD"]) as server:
        before = server.info("commandstats")["cmdstat_get"]["calls"]
        assert stack.chat("a", f"new {time.time_ns()}", temperature=0).status_code == 200
        assert server.info("commandstats")["cmdstat_get"]["calls"] == before + 1
