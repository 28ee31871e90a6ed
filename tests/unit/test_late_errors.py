"""Errors of a stream that has begun with pings. BerriAI/litellm-docs#929: they come as 200; coder/coder#28185."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roundhouse.proxy.late_errors import Stream
from roundhouse.residency.codes import Code, Refused

OURS = {"message": "model 'a': engine exited", "type": "residency_error", "param": None, "code": "model_failed"}
REFUSED = Refused(Code.FAILED, OURS["message"] or "", 7.2)
DONE = b"data: [DONE]\n\n"


def litellms(**more: Any) -> bytes:
    error = {"message": "{}", "type": "internal_server_error", "param": None, "code": "503", **more}
    return f"data: {json.dumps({'error': error})}\n\n".encode()


def parsed(event: bytes) -> tuple[str | None, dict[str, Any]]:
    """The name of an event and its document; fails where it is not one whole event."""
    assert event.endswith(b"\n\n")
    lines = event.decode().removesuffix("\n\n").split("\n")
    named = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(named) == len(lines)
    return named.get("event"), json.loads(named["data"])


def test_a_chat_stream_has_our_error_where_clients_look() -> None:
    stream = Stream("/v1/chat/completions")
    assert stream.event(b": ping\n\n", REFUSED) == b": ping\n\n"
    name, document = parsed(stream.event(litellms(provider_specific_fields={"error": OURS}), REFUSED))
    assert (name, document) == (None, {"error": {**OURS, "retry_after": 7}})
    assert stream.event(DONE, REFUSED) == DONE


def test_a_messages_stream_has_anthropics_event_and_ends_with_it() -> None:
    stream = Stream("/v1/messages")
    name, document = parsed(stream.event(litellms(provider_specific_fields={"error": OURS}), REFUSED))
    assert (name, document["type"]) == ("error", "error")
    assert document["error"]["type"] == "overloaded_error"
    assert document["error"]["message"] == OURS["message"]
    assert document["error"]["code"] == "model_failed"
    assert stream.event(DONE, REFUSED) == b""


def test_a_responses_stream_has_an_error_event_that_says_it_on_both_levels() -> None:
    stream = Stream("/v1/responses")
    name, document = parsed(stream.event(litellms(provider_specific_fields={"error": OURS}), REFUSED))
    assert (name, document["type"], document["sequence_number"]) == ("error", "error", 0)
    assert document["code"] == document["error"]["code"] == "model_failed"
    assert document["message"] == document["error"]["message"] == OURS["message"]
    assert stream.event(DONE, REFUSED) == b""


@pytest.mark.parametrize("refused", [None, REFUSED])
def test_an_engines_own_error_keeps_its_words(refused: Refused | None) -> None:
    event = litellms(message="the engine failed", code="500", provider_specific_fields={"x": 1})
    _, document = parsed(Stream("/v1/chat/completions").event(event, refused))
    assert document["error"]["message"] == "the engine failed"
    assert "retry_after" not in document["error"]
    _, document = parsed(Stream("/v1/messages").event(event, refused))
    assert document["error"]["type"] == "api_error"


@pytest.mark.parametrize(
    "event", [b"", b": ping\n\n", DONE, b'data: {"error', b'data: {"error": 5}\n\n', b'data: {"id": 1}\n\n']
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_anything_else_goes_through(event: bytes, path: str) -> None:
    assert Stream(path).event(event, REFUSED) == event
