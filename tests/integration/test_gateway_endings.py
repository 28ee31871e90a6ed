"""However a request ends, its lease is back within a second and the engine has stopped working for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from roundhouse.bench.stack import litellm_config, model
from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
STREAMED = tuple(path for path in PATHS if path != "/v1/embeddings")
SECOND_S = 1.0


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Each on a device of its own: ``slow`` thinks first, ``bad`` fails every request, ``away`` takes long to start."""
    slow = ["--first-byte-delay", "0.5", "--token-delay", "0.05", "--tokens", "60"]
    launchers = {
        "slow": fakes.launcher("slow", *slow, device="d0"),
        "bad": fakes.launcher("bad", "--fail-status", "500", device="d1"),
        "away": fakes.launcher("away", "--start-delay", "60", device="d2"),
    }
    devices = [{"id": "d0"}, {"id": "d1"}, {"id": "d2"}]
    return litellm_config([model(n, spec) for n, spec in launchers.items()], gate=True, devices=devices)


@pytest.fixture(scope="module")
def stack(document: dict[str, Any]) -> Iterator[Stack]:
    with Stack(document) as it:
        it.http.post("/residency/switch", json={"model": "slow"}).raise_for_status()
        it.http.post("/residency/switch", json={"model": "bad"}).raise_for_status()
        yield it


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    headers = {"authorization": f"Bearer {stack.key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60, limits=limits) as it:
        yield it


def body(path: str, name: str, stream: bool) -> dict[str, Any]:
    text = f"{time.time_ns()} {random.random()}"
    more: dict[str, Any] = {"stream": True} if stream else {}
    match path:
        case "/v1/completions":
            return {"model": name, "prompt": text, "max_tokens": 10, **more}
        case "/v1/embeddings":
            return {"model": name, "input": text}
        case "/v1/responses":
            return {"model": name, "input": text, "max_output_tokens": 10, **more}
    return {"model": name, "messages": [{"role": "user", "content": text}], "max_tokens": 10, **more}


def stats(document: dict[str, Any], name: str) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"http://127.0.0.1:{fakes.port_of(document, name)}/fake/stats").json()
    return found


async def nothing_is_left(stack: Stack, document: dict[str, Any]) -> None:
    """Within a second: no lease, nobody waiting, no engine at work. And the backstop was not what did it."""
    await until(lambda: stack.leases() == 0, "the leases are back", SECOND_S)
    waiting = lambda: sum(m["waiting"] for m in stack.status()["models"].values())  # noqa: E731
    await until(lambda: waiting() == 0, "nobody waits", SECOND_S)
    await until(lambda: stats(document, "slow")["active"] == 0, "the engine has stopped", SECOND_S)
    text = await asyncio.to_thread(lambda: stack.http.get("/residency/metrics").text)
    assert "roundhouse_backstop_releases_total 0.0" in text


async def whole(client: httpx.AsyncClient, path: str, name: str, stream: bool) -> int:
    """A request to its end; its status."""
    if not stream:
        return (await client.post(path, json=body(path, name, False))).status_code
    async with client.stream("POST", path, json=body(path, name, True)) as response:
        await response.aread()
        return response.status_code


async def left(client: httpx.AsyncClient, path: str, name: str, stream: bool, after_s: float) -> None:
    """A request whose client hangs up after a while, wherever the request is by then."""
    task = asyncio.create_task(whole(client, path, name, stream))
    await asyncio.wait([task], timeout=after_s)
    task.cancel()
    with suppress(asyncio.CancelledError, httpx.HTTPError):
        await task


async def left_mid_stream(client: httpx.AsyncClient, path: str) -> None:
    async with client.stream("POST", path, json=body(path, "slow", True)) as response:
        lines = response.aiter_lines()
        seen = 0
        async for line in lines:
            seen += line.startswith("data:")
            if seen == 3:
                break
        await lines.aclose()  # type: ignore[attr-defined]


CELLS = [(path, stream) for path in PATHS for stream in (False, True) if not stream or path in STREAMED]


@pytest.mark.parametrize(("path", "stream"), CELLS)
async def test_a_complete_answer(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    assert await whole(client, path, "slow", stream) == 200
    await nothing_is_left(stack, document)


@pytest.mark.parametrize(("path", "stream"), CELLS)
async def test_an_engine_that_fails(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    status = await whole(client, path, "bad", stream)
    assert status >= 500 or stream  # once a stream has begun, its status is sent
    await nothing_is_left(stack, document)


@pytest.mark.parametrize(("path", "stream"), CELLS)
async def test_a_client_that_leaves_while_it_waits_for_the_model(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    task = asyncio.create_task(whole(client, path, "away", stream))
    await until(lambda: stack.status()["models"]["away"]["waiting"] == 1, "it waits")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await nothing_is_left(stack, document)
    await until(lambda: stack.state("away") == "stopped", "the start that nobody wants is ended", 5)


@pytest.mark.parametrize(("path", "stream"), CELLS)
async def test_a_client_that_leaves_before_the_first_byte(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient, path: str, stream: bool
) -> None:
    before = stats(document, "slow")["aborted"]
    task = asyncio.create_task(whole(client, path, "slow", stream))
    await until(lambda: stats(document, "slow")["active"] == 1, "the engine works")
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await nothing_is_left(stack, document)
    assert stats(document, "slow")["aborted"] == before + 1


@pytest.mark.parametrize("path", STREAMED)
async def test_a_client_that_leaves_mid_stream(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient, path: str
) -> None:
    before = stats(document, "slow")["aborted"]
    await left_mid_stream(client, path)
    await nothing_is_left(stack, document)
    assert stats(document, "slow")["aborted"] == before + 1


async def test_a_thousand_endings_leave_nothing(
    stack: Stack, document: dict[str, Any], client: httpx.AsyncClient
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lanes = asyncio.Semaphore(40)

    async def one() -> None:
        async with lanes:
            path, stream = rng.choice(CELLS)
            name = rng.choice(("slow", "slow", "slow", "bad", "away"))
            await left(client, path, name, stream, rng.uniform(0.0, 0.9))

    async with asyncio.timeout(150):
        await asyncio.gather(*(one() for _ in range(1000)))
    await until(lambda: stack.leases() == 0, "the worker has caught up", 10)
    await nothing_is_left(stack, document)
    assert await whole(client, "/v1/chat/completions", "slow", True) == 200
