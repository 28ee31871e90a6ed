"""``kill -9`` of every part in turn: the next request succeeds without help."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    models = {
        "a": ["--tokens", "400", "--token-delay", "0.02", "--child"],
        "slow": ["--start-delay", "1.5"],
        "broken": ["--exit-at-once", "3"],
        "deaf": ["--never-healthy"],
    }
    config = fakes.config(models, max_wait_s=30)
    for entry in config["model_list"]:
        if entry["model_name"] == "deaf":
            entry["model_info"]["launcher"]["start_timeout_s"] = 1
    with Stack(config) as it:
        yield it


def ask(stack: Stack, name: str = "a", **more: Any) -> httpx.Response:
    return stack.chat(name, f"{time.time_ns()}", **{"max_tokens": 4, **more})


def test_an_idle_engine_that_is_killed_is_started_again_by_the_next_request(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    pid = stack.kill_engine("a")
    response = ask(stack)
    assert response.status_code == 200, response.text
    assert stack.engine_pid("a") != pid


def test_an_engine_killed_while_it_starts_is_started_once_more_for_who_waits(stack: Stack) -> None:
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, stack, "slow")
        wait_for(lambda: stack.state("slow") == "starting" and stack.engine_pid("slow"), "slow is starting")
        stack.kill_engine("slow")
        assert answer.result(30).status_code == 200


def test_an_engine_killed_mid_stream_ends_the_stream_and_serves_the_next_request(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    body = {"model": "a", "messages": [{"role": "user", "content": str(time.time_ns())}], "stream": True}
    with stack.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        stack.kill_engine("a")
        text = "".join(lines)
    assert "[DONE]" not in text or "error" in text
    wait_for(lambda: stack.leases() == 0, "the lease is back", 5)
    assert ask(stack).status_code == 200


def test_a_killed_proxy_worker_comes_back_and_leaves_the_engine_alone(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    pid = stack.engine_pid("a")
    stack.kill("proxy")

    def served() -> bool:
        try:
            return ask(stack).status_code == 200
        except httpx.TransportError:
            return False  # the connection that the dead worker had

    wait_for(served, "the gateway answers again", 60)
    assert stack.engine_pid("a") == pid


def test_a_killed_residency_comes_back_and_adopts_the_engine(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    pid = stack.engine_pid("a")
    stack.kill("residency")
    assert ask(stack).status_code == 200
    assert stack.engine_pid("a") == pid


def test_a_stream_survives_a_killed_residency_and_is_not_switched_away_from(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    body = {"model": "a", "messages": [{"role": "user", "content": str(time.time_ns())}], "stream": True}
    with stack.http.stream("POST", "/v1/chat/completions", json={**body, "max_tokens": 200}) as response:
        lines = response.iter_lines()
        next(lines)
        stack.kill("residency")
        with ThreadPoolExecutor() as pool:
            other = pool.submit(ask, stack, "slow")
            assert "[DONE]" in "".join(lines)
            assert other.result(30).status_code == 200


def test_redis_killed_stopped_or_gone_costs_no_request(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    server = wait_for(lambda: _redis(stack), "redis runs")
    server.send_signal(signal.SIGSTOP)
    for _ in range(3):
        began = time.monotonic()
        assert ask(stack).status_code == 200
        assert time.monotonic() - began < 1.5  # a second, and the answer itself
    server.kill()
    assert ask(stack).status_code == 200
    wait_for(lambda: _redis(stack), "redis is back")


def _redis(stack: Stack) -> psutil.Process | None:
    for child in psutil.Process(stack._lines["redis"].pid).children():
        if child.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_STOPPED):
            return child
    return None


def test_an_engine_that_cannot_start_is_refused_with_its_last_words(stack: Stack) -> None:
    response = ask(stack, "broken")
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (503, "residency_error", "model_failed")
    assert "CUDA out of memory (fake)" in error["message"]
    assert 1 <= int(response.headers["retry-after"]) <= 5
    assert ask(stack).status_code == 200


def test_an_engine_that_never_answers_is_given_up_after_its_timeout(stack: Stack) -> None:
    response = ask(stack, "deaf")
    assert response.status_code == 503
    assert "did not answer within 1 s" in response.json()["error"]["message"]
    assert ask(stack).status_code == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{not json", 400),
        (b'{"model": "nope", "messages": []}', 400),
        (b'{"model": "a,slow", "messages": [{"role": "user", "content": "x"}]}', 400),
        (b'{"model": "nope", "messages": "' + b"x" * 10_000_000 + b'"}', 400),
        (b"x" * (65 * 2**20), 413),
    ],
    ids=["broken JSON", "unknown model", "list of models", "10 MB", "65 MB"],
)
def test_bad_input_gets_an_error_in_openai_shape_and_starts_nothing(stack: Stack, content: bytes, status: int) -> None:
    starts = stack.counter("starts")
    response = stack.http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert isinstance(response.json()["error"]["message"], str)
    assert stack.counter("starts") == starts


@pytest.mark.parametrize("path", ["/v1/models", "/residency/status", "/metrics"])
@pytest.mark.parametrize("key", ["sk-wrong", None])
def test_a_wrong_or_missing_key_is_401_in_openai_shape(stack: Stack, path: str, key: str | None) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    response = httpx.get(stack.url + path, headers=headers)
    assert response.status_code == 401
    assert isinstance(response.json()["error"]["message"], str)


def test_engines_answer_on_loopback_only_and_only_with_their_key(stack: Stack) -> None:
    assert ask(stack).status_code == 200
    pid = stack.engine_pid("a")
    assert pid is not None
    listening = [c.laddr for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert httpx.get(f"http://127.0.0.1:{listening[0].port}/v1/models").status_code == 401
    assert os.environ.get("LITELLM_MASTER_KEY", stack.key) not in psutil.Process(pid).environ().values()


def test_pass_through_routes_are_closed(stack: Stack) -> None:
    refused = stack.http.get("/vllm/health")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "not_served")
