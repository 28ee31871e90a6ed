"""The whole stack on an odd address, with every proxy variable pointing to a port where nobody listens.

One stack is shared; what has to stay idle for a while is begun first and looked at last.
"""

from __future__ import annotations

import asyncio
import json
import select
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest

from tests.support import fakes
from tests.support.database import require_parts
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(240)]

DEAD = "http://127.0.0.1:9"
PROXIES = {name: DEAD for word in ("http", "https") for name in (f"{word}_proxy", f"{word.upper()}_PROXY")}
SOCKS = dict.fromkeys(("all_proxy", "ALL_PROXY"), "socks5://127.0.0.1:9")
PAGE = "http://localhost:5173"

POOLS_KEEP_S = 5.5
"""Python's httpx keeps an idle connection for 5 s; uvicorn closes it after 5 by default, and the two meet."""

TOO_LATE = {"start_timeout_s": 3}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    document = fakes.config({"a": [], "never": ["--never-healthy"]}, devices=[{"id": "d0"}, {"id": "d1"}])
    never = document["model_list"][1]["model_info"]
    never["launcher"].update(TOO_LATE, device="d1")
    document["litellm_settings"]["sse_keepalive_ping_interval_seconds"] = 1
    return document


@pytest.fixture(scope="module")
def stack(document: dict[str, Any]) -> Iterator[Stack]:
    require_parts()
    ours = {"ROUNDHOUSE_HOST": "127.0.0.2", "ROUNDHOUSE_CORS_ORIGINS": PAGE, "ROUNDHOUSE_MEDIA_NETWORKS": "master"}
    with Stack(document, {**PROXIES, **SOCKS, **ours}, keys=True) as it:
        yield it


def roundhouse(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, as a person runs it."""
    argv = [sys.executable, "-m", "roundhouse.cli.main", *arguments]
    return subprocess.run(argv, env=stack.env, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    """A virtual key, made by the command, which finds the gateway past the proxies, too."""
    done = roundhouse(stack, "keys", "create", "guest")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def idle(stack: Stack) -> Iterator[tuple[socket.socket, float]]:
    """A connection on which one request was answered, and when."""
    request = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.key}\r\n\r\n"
    with socket.create_connection(("127.0.0.2", stack.port), timeout=30) as connection:
        connection.sendall(request.encode())
        head, _, body = connection.recv(2**16).partition(b"\r\n\r\n")
        (length,) = [int(line.split(b": ")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        while len(body) < length:
            body += connection.recv(2**16)
        yield connection, time.monotonic()


class Pictures(ThreadingHTTPServer):
    """A web server of this machine, which notes what it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Picture)
        self.asked: list[str] = []


class Picture(BaseHTTPRequestHandler):
    """Says that everything is a picture."""

    server: Pictures

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.end_headers()
        self.wfile.write(b"picture")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def pictures() -> Iterator[Pictures]:
    with Pictures() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def last_asked(document: dict[str, Any]) -> dict[str, Any]:
    """What the engine of ``a`` was asked last."""
    stats = httpx.get(f"http://127.0.0.1:{fakes.port_of(document, 'a')}/fake/stats").json()
    return dict(stats["last"])


# --- addresses and proxies -----------------------------------------------------------------------


def test_a_request_is_answered_past_dead_proxies_with_either_key(stack: Stack, key: str) -> None:
    """ollama/ollama#9141, BerriAI/litellm#2127; Prisma's bridge and the engine are on loopback."""
    assert stack.chat("a", f"{time.time_ns()}").status_code == 200
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as client:
        client.chat.completions.create(model="a", messages=[{"role": "user", "content": f"{time.time_ns()}"}])


def test_a_socks_proxy_without_its_library_is_one_line_of_the_log(stack: Stack) -> None:
    """OpenHands/OpenHands-CLI#632."""
    log = (stack.home / "log" / "proxy.line.log").read_text()
    assert log.count("name a SOCKS proxy") == 1
    assert "Traceback" not in log


def test_env_prints_the_address_that_the_gateway_has(stack: Stack) -> None:
    assert f"export OPENAI_BASE_URL=http://127.0.0.2:{stack.port}/v1\n" in roundhouse(stack, "env").stdout


def test_up_finds_the_gateway_on_an_ipv6_address_behind_dead_proxies_and_no_page_may_talk_to_it() -> None:
    """jundot/omlx#963: a custom address, and "starting" for ever. The other settings are what they are by default."""
    stack = Stack(fakes.config({"a": []}), {**PROXIES, **SOCKS, "ROUNDHOUSE_HOST": "::1"})
    try:
        up = roundhouse(stack, "up", "--detach")
        assert up.returncode == 0, up.stdout + up.stderr
        assert f"Roundhouse answers at http://[::1]:{stack.port}/v1 " in up.stdout
        said = shlex.split(roundhouse(stack, "env").stdout)
        assert f"OPENAI_BASE_URL=http://[::1]:{stack.port}/v1" in said
        assert "no_proxy=127.0.0.1,localhost,::1" in said, "curl asks the proxy of its shell else"
        assert stack.chat("a", "?").status_code == 200
        assert roundhouse(stack, "status").returncode == 0
        answer = stack.http.get("/v1/models", headers={"origin": "http://localhost:3000"})
        assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)
    finally:
        roundhouse(stack, "down", "--force")
        assert stack.stop() == []


def test_an_address_that_is_not_this_machines_is_one_line_before_anything_starts() -> None:
    stack = Stack(fakes.config({"a": []}), {"ROUNDHOUSE_HOST": "192.0.2.1"})
    up = roundhouse(stack, "up", "--detach")
    assert (up.returncode, len(up.stderr.splitlines())) == (1, 1), up.stderr
    assert "cannot listen on 192.0.2.1" in up.stderr
    assert stack.stop() == []


# --- pages in a browser --------------------------------------------------------------------------


@pytest.mark.parametrize(("origin", "may"), [(PAGE, True), ("https://example.com", False), ("http://localhost", False)])
def test_only_a_page_that_is_named_may_talk_to_the_gateway(stack: Stack, origin: str, may: bool) -> None:
    """logancyang/obsidian-copilot#2877: named origins work; nobody else's do."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    preflight = stack.http.options("/v1/chat/completions", headers={"origin": origin, **asks})
    assert preflight.is_success is may
    for answer in (
        preflight,
        *(stack.http.get(path, headers={"origin": origin}) for path in ("/v1/models", "/v1/models/x")),
    ):
        assert answer.headers.get("access-control-allow-origin") == (origin if may else None)


def test_prometheus_is_answered_where_it_asks_with_the_master_key_alone(stack: Stack, key: str) -> None:
    for path, name in (("/metrics", "litellm_"), ("/residency/metrics", "roundhouse_")):
        answer = stack.http.get(path, follow_redirects=False)
        assert (answer.status_code, name in answer.text) == (200, True), answer.text
        refused = httpx.get(f"{stack.url}{path}", headers={"authorization": f"Bearer {key}"})
        assert refused.status_code in (401, 403)
    assert httpx.get(f"{stack.url}/metrics").status_code == 401


# --- pictures by URL -----------------------------------------------------------------------------


def in_chat(url: str) -> tuple[str, dict[str, Any]]:
    content = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def in_responses(url: str) -> tuple[str, dict[str, Any]]:
    content = [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": url}]
    return "/v1/responses", {"input": [{"role": "user", "content": content}]}


def in_messages(url: str) -> tuple[str, dict[str, Any]]:
    content = [{"type": "text", "text": "?"}, {"type": "image", "source": {"type": "url", "url": url}}]
    return "/v1/messages", {"max_tokens": 8, "messages": [{"role": "user", "content": content}]}


def in_audio(url: str) -> tuple[str, dict[str, Any]]:
    content = [{"type": "audio_url", "audio_url": {"url": url}}]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def in_file(url: str) -> tuple[str, dict[str, Any]]:
    content = [{"type": "file", "file": {"file_id": url, "format": "video/mp4"}}]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def in_extra(url: str) -> tuple[str, dict[str, Any]]:
    path, inner = in_chat(url)
    return path, {"messages": [{"role": "user", "content": "?"}], "extra_body": inner}


DIALECTS = [in_chat, in_responses, in_messages, in_audio, in_file, in_extra]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x.mp4", "file:///etc/passwd"])
def test_a_key_cannot_have_anything_fetched_from_this_machine(
    stack: Stack, key: str, pictures: Pictures, dialect: Any, url: str
) -> None:
    """vllm-project/vllm#57157, sgl-project/sglang#17269."""
    stack.http.post("/residency/unload", json={"model": "a"})
    starts = stack.counter("starts")
    path, body = dialect(url.format(port=pictures.server_port))
    answer = stack.http.post(path, json={"model": "a", **body}, headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, "media_refused" in answer.text) == (400, True), answer.text
    assert pictures.asked == []
    assert stack.counter("starts") == starts


@pytest.mark.parametrize("dialect", [in_chat, in_responses, in_messages, in_audio])
def test_with_the_setting_an_admin_has_a_picture_of_this_machine_and_the_engine_gets_no_url(
    stack: Stack, pictures: Pictures, document: dict[str, Any], dialect: Any
) -> None:
    url = f"http://127.0.0.1:{pictures.server_port}/{time.time_ns()}.png"
    path, body = dialect(url)
    answer = stack.http.post(path, json={"model": "a", **body})
    assert answer.status_code == 200, answer.text
    got = json.dumps(last_asked(document))
    assert "cGljdHVyZQ==" in got
    assert url not in got
    pictures.asked.clear()


def test_a_picture_that_was_asked_about_before_is_answered_from_the_cache(stack: Stack, pictures: Pictures) -> None:
    path, body = in_chat(f"http://127.0.0.1:{pictures.server_port}/{time.time_ns()}.png")
    first, second = (
        stack.http.post(path, json={"model": "a", "temperature": 0, **body}).json()["id"] for _ in range(2)
    )
    assert first == second
    pictures.asked.clear()


# --- errors after a ping -------------------------------------------------------------------------


async def test_an_error_after_a_ping_is_one_that_each_sdk_knows(stack: Stack) -> None:
    """BerriAI/litellm-docs#929: the status is 200 by then; the cause has to be where clients look."""

    words: Any = [{"role": "user", "content": "?"}]

    async def read(stream: AsyncIterator[Any]) -> None:
        async for _ in stream:
            pass

    async def chat() -> str:
        async with stack.async_client() as client:
            stream = await client.chat.completions.create(model="never", messages=words, stream=True)
            with pytest.raises(openai.APIError) as caught:
                await read(stream)
        assert (caught.value.type, caught.value.code) == ("residency_error", "model_failed")
        return caught.value.message

    async def responses() -> str:
        async with stack.async_client() as client:
            stream = await client.responses.create(model="never", input="?", stream=True)
            with pytest.raises(openai.APIError) as caught:
                await read(stream)
        assert (caught.value.type, caught.value.code) == ("residency_error", "model_failed")
        return caught.value.message

    async def messages() -> str:
        async with anthropic.AsyncAnthropic(base_url=stack.url, api_key=stack.key, max_retries=0) as client:
            stream = await client.messages.create(model="never", max_tokens=8, messages=words, stream=True)
            with pytest.raises(anthropic.APIStatusError) as caught:
                await read(stream)
        body: Any = caught.value.body
        assert body["error"]["code"] == "model_failed"
        return str(body["error"]["message"])

    async def wire() -> str:
        body = {"model": "never", "messages": words, "stream": True}
        headers = {"authorization": f"Bearer {stack.key}"}
        async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as client:
            answer = await client.post("/v1/chat/completions", json=body)
        *pings, error, done, rest = answer.text.split("\n\n")
        assert (answer.status_code, set(pings), done, rest) == (200, {": ping"}, "data: [DONE]", "")
        return str(json.loads(error.removeprefix("data: "))["error"]["message"])

    said = await asyncio.gather(chat(), responses(), messages(), wire())
    assert all("was not ready within 3 s" in text for text in said), said


# --- idle connections: last, for they have been idle since the beginning --------------------------


def connections(stack: Stack, port: int) -> list[Any]:
    """What the gateway's worker has open to an engine."""
    with suppress(psutil.Error):
        found = stack.worker("proxy").net_connections("tcp")
        return [it for it in found if it.raddr and it.raddr.port == port and it.status == psutil.CONN_ESTABLISHED]
    return []


def test_an_idle_connection_is_kept_for_longer_than_clients_keep_theirs(idle: tuple[socket.socket, float]) -> None:
    """peonist-ai/halogen-flash-server#25: an agent's next request went into a connection that was just closed."""
    connection, since = idle
    left = max(0.0, since + POOLS_KEEP_S - time.monotonic())
    assert select.select([connection], [], [], left)[0] == [], "it was closed"


def test_litellm_gives_an_idle_connection_to_an_engine_up_before_a_server_would(
    stack: Stack, document: dict[str, Any]
) -> None:
    """llm-d/llm-d#1564: the same between a proxy and vLLM, which closes after 5 s. The fake never does."""
    port = fakes.port_of(document, "a")
    assert stack.chat("a", f"{time.time_ns()}").status_code == 200
    wait_for(lambda: not connections(stack, port), "the worker has none to the engine", 10)
    assert stack.state("a") == "ready"
