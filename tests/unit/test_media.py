"""Where URLs of pictures, sounds and files stand in the arguments of a call, in each dialect."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from roundhouse.hooks import media
from roundhouse.hooks.media import Media

URL = "http://127.0.0.1:8899/x.png"
PNG = Media("image/png", b"\x89PNG")
DATA = PNG.url


def user(part: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": URL}, part]}]}


def item(part: Any) -> dict[str, Any]:
    return {"input": [{"type": "message", "role": "user", "content": [part]}]}


CALLS = {
    "chat": (user({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}), DATA),
    "chat, no object": (user({"type": "image_url", "image_url": URL}), DATA),
    "chat, no type": (user({"image_url": URL, "uuid": "u"}), DATA),
    "chat, audio": (user({"type": "audio_url", "audio_url": {"url": URL}}), DATA),
    "chat, video": (user({"type": "video_url", "video_url": {"url": URL}}), DATA),
    "chat, input audio": (user({"type": "input_audio", "input_audio": {"data": URL, "format": "wav"}}), DATA),
    "chat, file data": (user({"type": "file", "file": {"file_data": URL}}), DATA),
    "chat, file id, which LiteLLM makes a video's URL": (
        user({"type": "file", "file": {"file_id": URL, "format": "video/mp4"}}),
        {"file_data": DATA, "format": "video/mp4"},
    ),
    "responses": (item({"type": "input_image", "image_url": URL}), DATA),
    "responses, file": (item({"type": "input_file", "file_url": URL}), DATA),
    "responses, from a tool": (
        {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": URL}]}]},
        DATA,
    ),
    "messages": (user({"type": "image", "source": {"type": "url", "url": URL}}), {"type": "base64"}),
    "messages, document": (user({"type": "document", "source": {"type": "url", "url": URL}}), {"type": "base64"}),
    "messages, from a tool": (
        user({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": URL}}]}),
        {"type": "base64"},
    ),
    "transformers": (user({"type": "image", "image": URL}), DATA),
    "embeddings of pictures": ({"input": [], "extra_body": user({"type": "image_url", "image_url": URL})}, DATA),
    "rerank": ({"documents": [{"content": [{"type": "image_url", "image_url": {"url": URL}}]}], "query": "q"}, DATA),
}


def holds(value: Any, wanted: Any) -> bool:
    """Whether ``wanted`` is somewhere in ``value``; of an object at least its keys."""
    if isinstance(wanted, dict) and isinstance(value, dict) and wanted.items() <= value.items():
        return True
    if value == wanted:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(holds(it, wanted) for it in inner)


@pytest.mark.parametrize(("call", "wanted"), CALLS.values(), ids=CALLS)
def test_a_url_is_found_and_what_it_leads_to_takes_its_place(call: dict[str, Any], wanted: Any) -> None:
    before = copy.deepcopy(call)
    assert media.urls(call) == [URL]
    after = media.replaced(call, {URL: PNG})
    assert holds(after, wanted)
    assert not media.urls(after)
    assert call == before, "a log, or another attempt, has it as it was"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://a/x", "//127.0.0.1/x", "x", "", " " + URL]
)
def test_what_is_no_data_stands_nowhere_where_a_url_may_be(url: str) -> None:
    assert media.urls(user({"type": "image_url", "image_url": {"url": url}})) == [url]


def test_data_and_ids_and_words_are_left_alone() -> None:
    parts = [
        {"type": "text", "text": URL},
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "image_url", "image_url": "DATA:image/png;base64,AAAA"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-123"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "tool_use", "name": "fetch", "input": {"image_url": URL, "source": {"type": "url", "url": URL}}},
        {"type": "web_search_call", "action": {"sources": [{"type": "url", "url": URL}]}},
    ]
    call = {
        "messages": [{"role": "user", "content": parts}],
        "tools": [{"function": {"parameters": {"properties": {"image_url": {"type": "string", "default": URL}}}}}],
        "metadata": {"image_url": URL},
        "proxy_server_request": {"body": user({"image_url": URL})},
        "api_base": URL,
    }
    assert media.urls(call) == []


def test_a_url_that_stands_there_twice_is_fetched_once() -> None:
    part = {"type": "image_url", "image_url": {"url": URL}}
    assert media.urls({"messages": [{"role": "user", "content": [part, part]}]}) == [URL]
