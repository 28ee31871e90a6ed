"""Real vLLM engines on one track: every kind of client, every kind of model, nothing cut, nothing left."""

from __future__ import annotations

import base64
import os
import random
import struct
import subprocess
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.support.processes import command, words
from tests.support.refused import EMBED, TALKS, VALUES
from tests.support.stack import Stack
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

MODELS = {"reasoning": "qwen-0.5b", "code": "qwen-coder-0.5b", "vision": "smolvlm-256m", "embedding": "bge-small"}
EMBEDDER = MODELS["embedding"]
"""Small enough to stay awake beside any of the others."""


def messages(text: str = "") -> Any:
    return [{"role": "user", "content": text or f"Hello {time.time_ns()}"}]


def png(width: int = 64, height: int = 48) -> str:
    """A real picture, as a data URI."""
    rows = b"".join(
        b"\0" + bytes((x * 4 % 256, y * 5 % 256, 90)[c] for x in range(width) for c in range(3)) for y in range(height)
    )

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(data).decode()


def engines(stack: Stack) -> list[int]:
    """The vLLM servers of this stack that live now."""
    found = []
    for process in stack.processes():
        with suppress(ProcessLookupError):
            leads = os.getsid(process.pid) == process.pid  # vLLM's own helpers have its command line before they exec
            said = words(process)
            stock = "vllm.entrypoints.launchers.api_server.entry" in said
            forked = said[:1] and said[0].startswith("VLLM::APIServer")
            if leads and (stock or forked):
                found.append(process.pid)
    return found


def chat(stack: Stack, alias: str) -> None:
    with stack.client() as client:
        answer = client.chat.completions.create(model=alias, messages=messages(), max_tokens=8)
    assert answer.choices[0].message.content


def chat_stream(stack: Stack, alias: str) -> None:
    with stack.client() as client:
        pieces = client.chat.completions.create(model=alias, messages=messages(), max_tokens=8, stream=True)
        assert sum(bool(p.choices and p.choices[0].delta.content) for p in pieces) > 1


def completion(stack: Stack, alias: str) -> None:
    with stack.client() as client:
        answer = client.completions.create(model=alias, prompt=f"def {time.time_ns()}", max_tokens=8)
    assert answer.choices[0].text


def responses(stack: Stack, alias: str) -> None:
    with stack.client() as client:
        answer = client.responses.create(model=alias, input=f"Hello {time.time_ns()}", max_output_tokens=16)
    assert answer.output


def anthropic(stack: Stack, alias: str) -> None:
    body = {"model": alias, "max_tokens": 8, "messages": messages()}
    response = stack.http.post("/v1/messages", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["content"][0]["text"]


def curl(stack: Stack, alias: str) -> None:
    body = f'{{"model": "{alias}", "max_tokens": 4, "messages": [{{"role": "user", "content": "{time.time_ns()}"}}]}}'
    argv = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"{stack.url}/v1/chat/completions", "-d", body]
    argv += ["-H", f"Authorization: Bearer {stack.key}", "-H", "Content-Type: application/json"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "200"


def picture(stack: Stack, alias: str) -> None:
    parts = [
        {"type": "text", "text": f"What is this? {time.time_ns()}"},
        {"type": "image_url", "image_url": {"url": png()}},
    ]
    with stack.client() as client:
        content: Any = [{"role": "user", "content": parts}]
        answer = client.chat.completions.create(model=alias, messages=content, max_tokens=8)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 100  # the picture's tokens are among them


def embedding(stack: Stack, alias: str) -> None:
    with stack.client() as client:
        answer = client.embeddings.create(model=alias, input=[f"one {time.time_ns()}", "two"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) > 8


TEXT = (chat, chat_stream, completion, responses, anthropic, curl)
CALLS = {"reasoning": TEXT, "code": TEXT, "vision": (picture, chat), "embedding": (embedding,)}


def test_every_client_gets_every_model_in_random_order_from_one_engine_at_a_time(real: Stack) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    order = list(CALLS)
    random.Random(seed).shuffle(order)
    for alias in order:
        for call in CALLS[alias]:
            call(real, alias)
            residents = set(real.status()["devices"][0]["residents"])
            assert MODELS[alias] in residents
            assert len(residents - {EMBEDDER}) <= 1
            assert len(engines(real)) == len(residents)
    assert real.leases() == 0


def test_asked_all_at_once_the_models_come_on_one_after_the_other(real: Stack) -> None:
    before = real.counter("switches")
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(chat, real, ("reasoning", "code")[i % 2]) for i in range(12)]
        while not all(future.done() for future in asked):
            assert len(engines(real)) <= 2  # a chat model, and the embedder beside it
        for future in asked:
            future.result()
    assert real.counter("switches") - before <= 2


def test_a_long_answer_ends_before_another_model_comes_and_a_known_question_needs_no_engine(real: Stack) -> None:
    real.http.post("/residency/switch", json={"model": "qwen-0.5b"}).raise_for_status()
    known = real.chat("reasoning", "A question that is asked again", temperature=0).json()
    with real.client() as client, ThreadPoolExecutor() as pool:
        stream = client.chat.completions.create(
            model="reasoning",
            messages=messages(),
            max_tokens=1500,
            stream=True,
            temperature=1,
            extra_body={"ignore_eos": True},
        )
        pieces = [next(stream)]
        other = pool.submit(chat, real, "code")
        wait_for(lambda: real.status()["models"]["qwen-coder-0.5b"]["waiting"] == 1, "code is asked for")
        assert real.resident() == "qwen-0.5b"
        pieces += list(stream)
        assert pieces[-1].choices[0].finish_reason == "length"
        other.result()
    assert real.resident() == "qwen-coder-0.5b"
    switches = real.counter("switches")
    again = real.chat("reasoning", "A question that is asked again", temperature=0).json()
    assert again["choices"][0]["message"]["content"] == known["choices"][0]["message"]["content"]
    assert (real.resident(), real.counter("switches")) == ("qwen-coder-0.5b", switches)


TOOL = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}


@pytest.mark.parametrize("alias", ["reasoning", "code"])
def test_what_agents_send_is_answered(real: Stack, alias: str) -> None:
    """Cline and Continue send tools with all they ask (vllm-project/vllm#12349), Claude Code wants 32,000 tokens."""
    history = [*messages(), {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    history.append({"role": "tool", "tool_call_id": "call_1", "content": "noon"})
    noise = {"model": alias, "max_tokens": 32_000, "stop": [" ", "a", "e", "i", "o", "s", "t"], "temperature": 1}
    chats = [{"messages": words, "stream": stream} for words in (messages(), history) for stream in (False, True)]
    for body in chats:
        answer = real.http.post("/v1/chat/completions", json={**noise, **body, "tools": [TOOL]})
        assert answer.status_code == 200, answer.text
        assert "error" not in answer.text
    tool = {"name": "now", "input_schema": {"type": "object", "properties": {}}}
    answer = real.http.post("/v1/messages", json={**noise, "messages": messages(), "tools": [tool]})
    assert answer.status_code == 200, answer.text


def test_an_agents_second_turn_is_answered(real: Stack) -> None:
    """openai/codex sends the whole conversation with each turn, and items that vLLM knows only in part."""
    shell = {"type": "function", "name": "shell", "parameters": {"type": "object", "properties": {}}}
    first = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": f"{time.time_ns()}"}]}
    reasoning = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAA"}
    call = {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{}"}
    local = {"type": "local_shell_call", "call_id": "c2", "status": "completed", "action": {"command": ["ls"]}}
    outputs = [{"type": kind, "call_id": id_, "output": "a.txt"} for kind, id_ in OUTPUTS]
    body = {
        "model": "reasoning",
        "input": [first, reasoning, call, outputs[0], local, outputs[1], {"type": "web_search_call", "id": "w"}],
        "tools": [shell, {"type": "local_shell"}, {"type": "web_search"}],
        "instructions": "You are an agent.",
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "max_output_tokens": 16,
    }
    answer = real.http.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    answer = real.http.post("/v1/responses", json={**body, "stream": True})
    assert answer.status_code == 200, answer.text
    assert "response.completed" in answer.text or "response.incomplete" in answer.text


OUTPUTS = (("function_call_output", "c1"), ("local_shell_call_output", "c2"))


@pytest.mark.parametrize("model", ["qwen-0.5b", "bge-small"])
def test_what_the_gateway_refuses_vllm_refuses_too(real: Stack, model: str) -> None:
    """Else a request that works would be refused."""
    real.http.post("/residency/switch", json={"model": model}).raise_for_status()
    pid, ours = real.engine_pid(model), model == EMBEDDER
    assert pid is not None
    port = next(c.laddr.port for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN)
    headers = {"authorization": f"Bearer {real._env['ROUNDHOUSE_ENGINE_KEY']}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as engine:
        name = engine.get("/v1/models").json()["data"][0]["id"]
        bodies = [(path, {"model": name, **TALKS.get(path, {"input": "x"}), **more}) for path, more, _ in VALUES]
        mine = [(path, body) for path, body in bodies if (path == EMBED) is ours]
        taken = [(path, body) for path, body in mine if engine.post(path, json=body).status_code not in (400, 422)]
    assert len(mine) >= 3
    assert taken == []


def test_questions_and_embeddings_in_turn_start_two_engines(real: Stack) -> None:
    real.http.post("/residency/unload", json={"model": None}).raise_for_status()
    starts = real.counter("starts")
    for _ in range(5):
        embedding(real, "embedding")
        chat(real, "reasoning")
    assert real.counter("starts") - starts == 2


def test_the_coder_fills_a_gap(real: Stack) -> None:
    body = {"model": "code", "prompt": f"# {time.time_ns()}\ndef f(", "suffix": "):", "max_tokens": 4}
    answer = real.http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text


def test_a_conversation_has_as_many_pictures_as_the_context_holds(real: Stack) -> None:
    """vllm-project/vllm#5843: clients send all pictures of a conversation again, and the third was one too many."""
    part = {"type": "image_url", "image_url": {"url": png()}}
    said = [{"role": "user", "content": [{"type": "text", "text": f"{time.time_ns()}"}, *[part] * 3]}]
    answer = real.http.post("/v1/chat/completions", json={"model": "vision", "max_tokens": 4, "messages": said})
    assert answer.status_code == 200, answer.text


def test_a_killed_engine_leaves_nothing_and_the_next_request_succeeds(real: Stack) -> None:
    chat(real, "code")
    pid = real.engine_pid("qwen-coder-0.5b")
    assert pid is not None
    core = psutil.Process(pid).children()
    assert core, "vLLM has no EngineCore of its own any more: is this test still needed?"
    real.kill_engine("qwen-coder-0.5b")
    chat(real, "code")
    assert all(gone(process) for process in core)


def test_a_client_that_leaves_stops_the_generation(real: Stack) -> None:
    chat(real, "code")
    body = {"model": "code", "messages": messages(), "max_tokens": 3000, "ignore_eos": True, "stream": True}
    with real.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        assert real.leases() == 1
    wait_for(lambda: real.leases() == 0, "the lease is back", 1)
    pid = real.engine_pid("qwen-coder-0.5b")
    assert pid is not None
    port = next(c.laddr.port for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN)

    def running() -> float:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        return sum(float(x.rsplit(" ", 1)[1]) for x in lines if x.startswith("vllm:num_requests_running"))

    wait_for(lambda: running() == 0, "the engine stops generating", 5)


def test_nothing_secret_is_in_a_command_line_or_in_what_any_key_may_read(real: Stack) -> None:
    chat(real, "code")
    secrets = [
        v for k, v in real._env.items() if k in ("ROUNDHOUSE_ENGINE_KEY", "LITELLM_MASTER_KEY", "REDIS_PASSWORD")
    ]
    shown = real.http.get("/model/info").text + real.logs(10**6)
    for process in real.processes():
        if process.pid != os.getpid():
            shown += command(process)
    assert not [secret for secret in secrets if secret in shown]


def test_the_backstop_was_never_needed(real: Stack) -> None:
    assert "roundhouse_backstop_releases_total 0.0" in real.http.get("/residency/metrics").text
