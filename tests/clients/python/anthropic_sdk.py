"""Anthropic's SDK: its base URL has no /v1."""

from __future__ import annotations

import base64
import os

import anthropic
from anthropic import Anthropic
from cases import LONG, TOOL_ANSWER, png, refused, run, said

BASE = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
client = Anthropic(base_url=BASE, api_key=os.environ["OPENAI_API_KEY"])
QUESTION = [{"role": "user", "content": "Which files are there?"}]
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"name": "list_files", "description": "The files.", "strict": True, "input_schema": SCHEMA}


def chat() -> None:
    answer = client.messages.create(model="reasoning", messages=QUESTION, max_tokens=8)
    said(answer.content and answer.content[0].text)


def stream() -> None:
    with client.messages.stream(model="reasoning", messages=QUESTION, max_tokens=40) as pieces:
        said(len(list(pieces.text_stream)) > 1)
    assert pieces.get_final_message().stop_reason in ("end_turn", "max_tokens")


def tools() -> None:
    choice = {"type": "tool", "name": "list_files"}
    first = client.messages.create(
        model="reasoning", messages=QUESTION, max_tokens=LONG, tools=[TOOL], tool_choice=choice
    )
    call = next(it for it in first.content if it.type == "tool_use")
    assert call.name == "list_files"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_ANSWER}
    history = [*QUESTION, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = client.messages.create(model="reasoning", messages=history, max_tokens=8, tools=[TOOL])
    assert last.stop_reason in ("end_turn", "max_tokens", "tool_use")


def vision() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()}
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "source": source}]
    answer = client.messages.create(model="vision", messages=[{"role": "user", "content": parts}], max_tokens=8)
    assert answer.usage.input_tokens > 100


def errors() -> None:
    body = {"messages": QUESTION, "max_tokens": 8}
    refused(anthropic.BadRequestError, lambda: client.messages.create(model="reasonning", **body))
    wrong = Anthropic(base_url=BASE, api_key="sk-wrong")
    refused(anthropic.AuthenticationError, lambda: wrong.messages.create(model="reasoning", **body), "API key")


run("anthropic", chat, stream, tools, vision, errors)
