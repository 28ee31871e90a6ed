"""Requests that no ordinary client makes: they cost nobody else an answer, and start nothing for nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from roundhouse.hooks import limits
from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(180)]

CONTEXT = 4096


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    flags = ["--token-delay", "0.02", "--tokens", "100", "--ctx-size", str(CONTEXT)]
    config = fakes.config({"a": flags, "b": ["--tokens", "150", "--word=----"]})
    config["router_settings"]["model_group_alias"] = {"first": "a"}
    config["model_list"][1]["model_info"]["launcher"]["infill"] = ["<P>", "<S>", "<M>"]
    config["model_list"][1]["model_info"] |= {"max_input_tokens": 1000, "supports_vision": True}
    with Stack(config) as it:
        yield it


async def test_two_requests_of_one_call_id_have_a_lease_each(stack: Stack) -> None:
    """LiteLLM takes a call's id from the client's header: the end of one call is not the end of the other."""
    async with stack.async_client() as client:

        async def answer(words: int, begun: asyncio.Event) -> str | None:
            stream = await client.chat.completions.create(
                model="a",
                messages=[{"role": "user", "content": f"{time.time_ns()}"}],
                max_tokens=words,
                stream=True,
                extra_headers={"x-litellm-call-id": "the-same"},
            )
            reason = None
            async for piece in stream:
                begun.set()
                reason = piece.choices[0].finish_reason
            return reason

        begun = asyncio.Event()
        long = asyncio.create_task(answer(100, begun))
        await begun.wait()
        short = asyncio.create_task(answer(20, asyncio.Event()))
        await until(lambda: stack.leases() == 2, "each has its lease")
        assert await short == "stop"
        other = asyncio.create_task(asyncio.to_thread(stack.chat, "b", f"{time.time_ns()}"))
        assert await long == "stop"
        assert (await other).status_code == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "max_tokens"),
        ("/v1/chat/completions", "max_completion_tokens"),
        ("/v1/completions", "max_tokens"),
        ("/v1/responses", "max_output_tokens"),
        ("/v1/messages", "max_tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_more_tokens_than_the_context_has_means_what_is_left_of_it(
    stack: Stack, path: str, name: str, stream: bool
) -> None:
    """anthropics/claude-code#47702: agents ask for 32,000 tokens of any model; vLLM refuses more than its context."""
    text = f"{time.time_ns()}"
    question = {"prompt": text, "input": text, "messages": [{"role": "user", "content": text}]}
    key = {"/v1/completions": "prompt", "/v1/responses": "input"}.get(path, "messages")
    body = {"model": "first", name: 32_000, "stream": stream, key: question[key], "temperature": 1}
    assert stack.http.post(path, json=body).status_code == 200
    document = yaml.safe_load(stack.config_file.read_text(encoding="utf-8"))
    last = httpx.get(f"http://127.0.0.1:{fakes.port_of(document, 'a')}/fake/stats").json()["last"]
    assert [last[it] for it in limits.NAMES if it in last] == [CONTEXT]


def test_clients_learn_what_a_model_can_do_and_nothing_is_started_for_it(stack: Stack) -> None:
    """cline/cline#2950: a client that finds no context length takes a wrong one."""
    starts = stack.counter("starts")
    listed = {it["id"]: it for it in stack.http.get("/v1/models").json()["data"]}
    assert {name: it["max_input_tokens"] for name, it in listed.items()} == {"a": CONTEXT, "first": CONTEXT, "b": 1000}
    info = {it["model_name"]: it["model_info"] for it in stack.http.get("/model/info").json()["data"]}
    assert (info["a"]["max_input_tokens"], info["b"]["max_input_tokens"]) == (CONTEXT, 1000)
    codex = stack.http.get("/v1/models", params={"client_version": "0.159.3"}).json()
    assert {it["context_window"] for it in codex["models"] if it["slug"] in ("a", "first")} == {CONTEXT}
    assert stack.counter("starts") == starts


@pytest.mark.parametrize("stream", [False, True])
def test_an_editors_suffix_goes_into_the_prompt(stack: Stack, stream: bool) -> None:
    """arbs-io/github-copilot-llm-gateway#51: vLLM answers 400 to it at every keystroke."""
    body = {"model": "b", "prompt": "def f(", "suffix": "):", "max_tokens": 3, "stream": stream}
    assert stack.http.post("/v1/completions", json=body).status_code == 200
    document = yaml.safe_load(stack.config_file.read_text(encoding="utf-8"))
    last = httpx.get(f"http://127.0.0.1:{fakes.port_of(document, 'b')}/fake/stats").json()["last"]
    assert (last["prompt"], last.get("suffix")) == ("<P>def f(<S>):<M>", None)


def test_a_strict_tool_reaches_the_engine_as_it_is(stack: Stack) -> None:
    """LiteLLM takes strict and additionalProperties out, and vLLM kept no arguments to their schema."""
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}
    for path, tools in (
        ("/v1/chat/completions", [tool]),
        ("/v1/messages", [{"name": "f", "strict": True, "input_schema": parameters}]),
    ):
        body = {"model": "a", "max_tokens": 2, "messages": [{"role": "user", "content": f"{time.time_ns()}"}]}
        stack.http.post(path, json={**body, "tools": tools}).raise_for_status()
        port = fakes.port_of_file(stack.config_file, "a")
        function = httpx.get(f"http://127.0.0.1:{port}/fake/stats").json()["last"]["tools"][0]["function"]
        assert (function["strict"], function["parameters"]) == (True, parameters)


def test_an_answer_may_say_the_same_a_hundred_times(stack: Stack) -> None:
    """LiteLLM ends a stream of 100 chunks alike as a fault of the engine's; a table has that many dashes."""
    answer = stack.chat("b", f"{time.time_ns()}", stream=True, max_tokens=150)
    assert answer.text.count("----") == 148
    assert "error" not in answer.text


BATCH = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h", "model": "a"}


@pytest.mark.parametrize(
    ("method", "path", "request_"),
    [
        ("GET", "/v1/files?model=a", {}),
        ("GET", "/v1/files?target_model_names=a", {}),
        ("POST", "/v1/batches", {"json": BATCH}),
        ("GET", "/v1/batches?model=a", {}),
        ("POST", "/v1/videos", {"json": {"model": "a", "prompt": "x"}}),
        ("POST", "/azure/openai/deployments/a/chat/completions", {"json": {"model": "a", "messages": []}}),
        ("POST", "/bedrock/model/a/invoke", {"json": {"model": "a"}}),
    ],
)
def test_what_no_engine_does_is_refused_without_starting_one(
    stack: Stack, method: str, path: str, request_: dict[str, Any]
) -> None:
    starts = stack.counter("starts")
    response = stack.http.request(method, path, **request_)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (400, "residency_error", "not_served")
    assert stack.counter("starts") == starts


@pytest.mark.parametrize("path", ["/v1/realtime?model=a", "/v1/responses?model=a"])
async def test_a_websocket_session_does_not_hold_the_device(stack: Stack, path: str) -> None:
    starts = stack.counter("starts")
    url = stack.url.replace("http:", "ws:") + path
    with pytest.raises(InvalidStatus):
        async with connect(url, additional_headers={"authorization": f"Bearer {stack.key}"}):
            pass
    assert stack.leases() == 0
    assert stack.counter("starts") == starts


def test_a_tag_that_is_no_list_is_no_fault_of_ours(stack: Stack) -> None:
    assert stack.chat("a", f"{time.time_ns()}", metadata={"tags": 5}).status_code != 500


@pytest.mark.parametrize("secret", ["os.environ/LITELLM_MASTER_KEY", "oidc/env/LITELLM_MASTER_KEY"])
def test_a_request_cannot_have_a_secret_of_the_gateways_sent_in_its_name(stack: Stack, secret: str) -> None:
    response = stack.chat("a", f"{time.time_ns()}", api_key=secret)
    assert response.status_code == 401
    assert "secret reference" in response.json()["error"]["message"]


def test_models_are_switched_to_and_unloaded_by_their_aliases_too(stack: Stack) -> None:
    stack.http.post("/residency/switch", json={"model": "first"}).raise_for_status()
    assert stack.resident() == "a"
    stack.http.post("/residency/unload", json={"model": "first"}).raise_for_status()
    assert stack.resident() is None


@pytest.mark.parametrize(("body", "status"), [(b"", 422), (b"{", 422), (b"{}", 400), (b'{"modle": "a"}', 400)])
def test_a_command_without_a_model_says_what_is_missing(stack: Stack, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    for command in ("switch", "unload"):
        response = stack.http.post(f"/residency/{command}", content=body, headers=headers)
        assert response.status_code == status
        assert not response.json()["error"]["message"].startswith("[")
