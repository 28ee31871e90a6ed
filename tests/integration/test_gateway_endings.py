"""However a request ends, its lease is back within a second and the engine has stopped working for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import re
import sysconfig
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from roundhouse.bench.stack import litellm_config, model
from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(240)]

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages")
STREAMED = tuple(path for path in PATHS if path != "/v1/embeddings")
SECOND_S = 1.0
KEY = {"ENGINE_KEY": "${ROUNDHOUSE_ENGINE_KEY}"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Each on a device of its own: ``slow`` thinks first, ``bad`` fails every request, ``away`` takes long to start."""
    slow = ["--first-byte-delay", "0.5", "--token-delay", "0.05", "--tokens", "60"]
    launchers = {
        "slow": fakes.launcher("slow", *slow, device="d0", env={**KEY, "VLLM_SERVER_DEV_MODE": "1"}),
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


ODD = (
    "/sleep",
    "/vllm/sleep",
    "/vllm//sleep",
    "/vllm/../sleep",
    "/vllm/v1/../sleep",
    "/vllm/%2e%2e/sleep",
    "/vllm%2Fsleep",
    "/%76llm/sleep",
    "/v1/../vllm/sleep",
    "/v1/..%2fvllm/sleep",
    "//vllm/sleep",
    "/./vllm/sleep",
    "/VLLM/sleep",
    "/vllm/sleep?level=2",
    "/openai_passthrough/sleep",
    "/v1/completions/../../sleep",
    "/v1/responses/..%2f..%2fsleep",
    "/v1/responses/..%2f..%2fsleep/cancel",
)
"""Ways to ask for an engine's own routes, as a browser or a library would not write them."""


def raw(stack: Stack, path: str, document: Any) -> int:
    """POST to a path as it stands, dots and all."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    headers = {"authorization": f"Bearer {stack.key}", "content-type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(document), headers)
        return connection.getresponse().status
    finally:
        connection.close()


def pass_through_prefixes() -> set[str]:
    """Of every route of LiteLLM that hands on a path; it lists them nowhere, and importing them takes seconds."""
    folder = Path(sysconfig.get_path("purelib")) / "litellm" / "proxy" / "pass_through_endpoints"
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
    return {prefix for text in texts for prefix in re.findall(r'"(/[\w./-]+/)\{endpoint(?::path)?\}"', text)}


async def test_no_route_of_the_gateway_reaches_an_engines_sleep_endpoints(
    stack: Stack, document: dict[str, Any]
) -> None:
    await until(lambda: stack.state("slow") == "ready", "the engine is there")
    port = fakes.port_of(document, "slow")
    prefixes = pass_through_prefixes()
    assert {"/vllm/", "/openai/", "/azure/", "/backend-api/codex/"} <= prefixes
    asked = {"model": "slow", "messages": [], "input": "x", "level": 1}
    for path in [*ODD, *(f"{prefix}sleep" for prefix in sorted(prefixes))]:
        status = await asyncio.to_thread(raw, stack, path, asked)
        slept = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/is_sleeping")).json()["is_sleeping"]
        assert (path, slept) == (path, False)
        assert status >= 400, path


@pytest.mark.parametrize("name", ["api_base", "base_url"])
async def test_a_request_cannot_name_another_address_than_its_engines(
    client: httpx.AsyncClient, document: dict[str, Any], name: str
) -> None:
    port = fakes.port_of(document, "slow")
    address = f"http://127.0.0.1:{port}/sleep?x="
    for place in ({name: address}, {"extra_body": {name: address}}, {"litellm_params": {name: address}}):
        response = await client.post("/v1/chat/completions", json=body(PATHS[0], "slow", False) | place)
        slept = (await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{port}/is_sleeping")).json()["is_sleeping"]
        assert (place, slept) == (place, False)
        assert response.status_code in (200, 400, 401, 403, 422)
