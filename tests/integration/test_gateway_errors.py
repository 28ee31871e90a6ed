"""Errors a person can read, and requests that cannot work: what clients get, and that nothing moves for it.

An engine's sentence came wrapped in classes, JSON in JSON and advice on LiteLLM's settings.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import fakes, tokenizers
from tests.support.refused import CHAT, COMPLETE, EMBED, MESSAGE, RESPOND, TALKS, TOOLS, VALUES, talk
from tests.support.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(180)]

_spec = importlib.util.spec_from_file_location("faults", Path(__file__).resolve().parents[1] / "fakes" / "faults.py")
assert _spec is not None
assert _spec.loader is not None
_faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_faults)
FAULTS: dict[str, tuple[int, str, str, str | None]] = _faults.FAULTS

NOISE = ("litellm", "Exception", "allback", '{"error"', "{'error'", "Traceback")
PICTURE = "data:image/png;base64,AAAA"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """``a``, ``b`` and ``e`` are fakes; ``v`` and ``w`` are vLLM's, which nothing that is asked of them here starts."""
    config = fakes.config({"a": [], "b": [], "e": [], "v": [], "w": []})
    info = {entry["model_name"]: entry["model_info"] for entry in config["model_list"]}
    folder = tokenizers.model(tmp_path_factory.mktemp("weights"))
    for name in "vw":
        port = info[name]["launcher"]["port"]
        args = ["--max-model-len", "64", "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        info[name]["launcher"] = {"kind": "vllm", "port": port, "model": str(folder), "args": args, "host": "off"}
    info["w"]["mode"] = "embedding"
    info["b"] |= {"mode": "chat", "supports_vision": False, "supports_function_calling": False}
    info["e"]["mode"] = "embedding"
    with Stack(config) as it:
        assert it.chat("a", "hello").status_code == 200
        yield it


def requests(fault: str) -> list[tuple[str, dict[str, Any]]]:
    text = f"fault[{fault}]"
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": talk(text)}),
        ("/v1/completions", {"prompt": text}),
        ("/v1/responses", {"input": text}),
        ("/v1/messages", {"messages": talk(text), "max_tokens": 8}),
    ]
    streamed = [(path, {**body, "stream": True}) for path, body in kinds]
    return [(p, {"model": "a", **b}) for p, b in [*kinds, *streamed, ("/v1/embeddings", {"input": text})]]


async def test_an_engines_error_keeps_its_sentence_and_nothing_else(stack: Stack) -> None:
    wrong: list[str] = []
    headers = {"authorization": f"Bearer {stack.key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=100) as client:

        async def one(name: str, path: str, body: dict[str, Any]) -> None:
            status, message, _, _ = FAULTS[name]
            answer = await client.post(path, json=body)
            error = answer.json()["error"]
            anthropic = path == "/v1/messages"
            whole = answer.json().get("type") == "error" if anthropic else set(answer.json()) == {"error"}
            long = "context_length_exceeded" if name in ("context", "window", "max_tokens") else str(status)
            right = {"rate": "rate_limit_error"}.get(name, "invalid_request_error" if status < 500 else "api_error")
            typed = anthropic or error["type"] == right
            if not (whole and typed and error["message"] == message and error["code"] == long):
                wrong.append(f"{name} {path} {body.get('stream')}: {answer.status_code} {answer.text}")
            if answer.status_code != status:
                wrong.append(f"{name} {path} {body.get('stream')}: status {answer.status_code}, not {status}")

        await asyncio.gather(*(one(name, path, body) for name in FAULTS for path, body in requests(name)))
    assert not wrong, "\n".join(wrong)


def seen(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


THEIRS = [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]
TOO_LONG = "context_length_exceeded"
CALLS, SEVERAL = "tools_unsupported", "several_streams_unsupported"
KIND, STORED, PICTURES = "wrong_model_kind", "stored_responses_unsupported", "pictures_unsupported"
CANNOT: list[tuple[str, dict[str, Any], str, str]] = [
    *((path, {"model": "e", **body}, KIND, "model") for path, body in TALKS.items()),
    *((path, {"model": "e", "stream": True, **body}, KIND, "model") for path, body in TALKS.items()),
    *((path.removeprefix("/v1"), {"model": "e", **body}, KIND, "model") for path, body in list(TALKS.items())[:3]),
    *(("/v1/embeddings", {"model": "b", "input": it}, KIND, "model") for it in ("x", ["x", "y"], [1, 2], [[1]])),
    ("/embeddings", {"model": "b", "input": "x"}, KIND, "model"),
    *(("/v1/images/generations", {"model": m, "prompt": "x"}, KIND, "model") for m in "be"),
    *(("/v1/audio/speech", {"model": m, "input": "x", "voice": "x"}, KIND, "model") for m in "be"),
    *(("/v1/moderations", {"model": m, "input": "x"}, KIND, "model") for m in "be"),
    *((f"/{v}rerank", {"model": "b", "query": "x", "documents": ["y"]}, KIND, "model") for v in ("", "v1/", "v2/")),
    ("/v1/chat/completions", {"model": "b", "messages": talk("x"), "tools": TOOLS}, CALLS, "tools"),
    ("/v1/messages", {"model": "b", "messages": talk("x"), "max_tokens": 8, "tools": THEIRS}, CALLS, "tools"),
    ("/v1/chat/completions", {"model": "b", "messages": talk("x"), "n": 3, "stream": True}, SEVERAL, "n"),
    ("/v1/completions", {"model": "b", "prompt": "x", "n": 2, "stream": True}, SEVERAL, "n"),
    *(("/v1/completions", {"model": "b", "prompt": it}, "token_ids", "prompt") for it in ([906, 917], [[906]])),
    ("/v1/responses", {"model": "b", "input": "x", "previous_response_id": "resp_1"}, STORED, "previous_response_id"),
    ("/v1/responses", {"model": "b", "input": "x", "background": True}, STORED, "background"),
    ("/v1/responses", {"model": "b", "input": "x", "conversation": "conv_1"}, STORED, "conversation"),
    (
        "/v1/chat/completions",
        {"model": "b", "messages": seen({"type": "image_url", "image_url": {"url": PICTURE}})},
        PICTURES,
        "messages",
    ),
    ("/v1/responses", {"model": "b", "input": seen({"type": "input_image", "image_url": PICTURE})}, PICTURES, "input"),
    (
        "/v1/messages",
        {
            "model": "b",
            "max_tokens": 8,
            "messages": seen(
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
            ),
        },
        PICTURES,
        "messages",
    ),
]


INVALID, UNKNOWN = "invalid_value", "unsupported_parameter"
LONG = "word " * 200
OF_CHATS = ({"tools": TOOLS}, {"response_format": {"type": "json_object"}}, {"max_completion_tokens": 5})
CANNOT += [(p, {"model": "v", **TALKS[p], **more}, INVALID, param) for p, more, param in VALUES if p != EMBED]
CANNOT += [(p, {"model": "w", "input": "x", **more}, INVALID, param) for p, more, param in VALUES if p == EMBED]
CANNOT += [(COMPLETE, {"model": "v", "prompt": "x", **more}, UNKNOWN, next(iter(more))) for more in OF_CHATS]
CANNOT += [
    (RESPOND, {"model": "v", "input": [{"type": "item_reference", "id": "x"}]}, STORED, "item_reference"),
    (CHAT, {"model": "v", "messages": talk(LONG)}, TOO_LONG, "messages"),
    (CHAT, {"model": "v", "messages": seen({"type": "text", "text": LONG})}, TOO_LONG, "messages"),
    (COMPLETE, {"model": "v", "prompt": ["x", LONG]}, TOO_LONG, "prompt"),
    (RESPOND, {"model": "v", "input": "x", "instructions": LONG}, TOO_LONG, "input"),
    (MESSAGE, {"model": "v", "messages": talk("x"), "system": LONG, "max_tokens": 8}, TOO_LONG, "messages"),
    (EMBED, {"model": "w", "input": ["x", LONG]}, TOO_LONG, "input"),
]


def starts(stack: Stack) -> str:
    lines = stack.http.get("/residency/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("roundhouse_starts_total"))


@pytest.mark.parametrize(("path", "body", "code", "param"), CANNOT)
def test_what_cannot_work_is_said_and_nothing_starts(
    stack: Stack, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    before = starts(stack)
    answer = stack.http.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert not any(word in error["message"] for word in NOISE)
    assert starts(stack) == before


def test_a_transcription_by_a_chat_model_is_refused(stack: Stack) -> None:
    before = starts(stack)
    answer = stack.http.post("/v1/audio/transcriptions", data={"model": "b"}, files={"file": ("a.wav", b"RIFF")})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, KIND)
    assert starts(stack) == before


def test_a_body_that_litellm_misreads_is_refused_in_words(stack: Stack) -> None:
    text = json.dumps({"model": "a", "messages": talk("x")}).encode()
    coded = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = stack.http.post("/v1/chat/completions", content=gzip.compress(text), headers=coded)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    for _ in range(2):  # after LiteLLM's exception the server cut the connection, and the next request was lost
        answer = stack.http.post("/v1/chat/completions", json=[1])
        assert answer.status_code == 400
        assert "JSON list" in answer.json()["error"]["message"]


def test_an_unknown_model_and_a_wrong_key_are_one_sentence(stack: Stack) -> None:
    error = stack.chat("nosuch", "x").json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert error["message"] == "there is no model 'nosuch' for this key: GET /v1/models lists those there are"
    error = stack.http.post("/v1/embeddings", json={"model": "A", "input": "x"}).json()["error"]
    assert error["message"].endswith("lists those there are. Did you mean 'a'?")
    answer = stack.http.post("/v1/messages", json={}, headers={"authorization": "Bearer sk-wrong"})
    assert answer.status_code == 401
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "authentication_error"
