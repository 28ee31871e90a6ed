"""OpenAI's SDK: it reads OPENAI_BASE_URL and OPENAI_API_KEY."""

from __future__ import annotations

import json

import openai
from cases import LONG, TOOL_ANSWER, picture, refused, run, said
from openai import OpenAI
from pydantic import BaseModel

client = OpenAI()
QUESTION = [{"role": "user", "content": "Which files are there?"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "The files.",
        "strict": True,  # then vLLM keeps the arguments to their schema
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


def chat() -> None:
    answer = client.chat.completions.create(model="reasoning", messages=QUESTION, max_tokens=8)
    said(answer.choices[0].message.content)
    assert client.responses.create(model="reasoning", input="Hello", max_output_tokens=16).output


def stream() -> None:
    pieces = client.chat.completions.create(model="reasoning", messages=QUESTION, max_tokens=40, stream=True)
    said(len([it for it in pieces if it.choices and it.choices[0].delta.content]) > 1)
    with client.responses.stream(model="reasoning", input="Hello", max_output_tokens=16) as events:
        assert [it.type for it in events][-1] in ("response.completed", "response.incomplete")


def tools() -> None:
    named = {"type": "function", "function": {"name": "list_files"}}
    first = client.chat.completions.create(
        model="reasoning", messages=QUESTION, tools=[TOOL], tool_choice=named, max_tokens=LONG
    )
    call = first.choices[0].message.tool_calls[0]
    assert call.function.name == "list_files"
    assert isinstance(json.loads(call.function.arguments), dict)
    history = [*QUESTION, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": TOOL_ANSWER}]
    last = client.chat.completions.create(model="reasoning", messages=history, tools=[TOOL], max_tokens=8)
    assert last.choices[0].finish_reason in ("stop", "length", "tool_calls")


class Light(BaseModel):
    on: bool


def structured() -> None:
    answer = client.chat.completions.parse(model="reasoning", messages=QUESTION, response_format=Light, max_tokens=LONG)
    assert isinstance(answer.choices[0].message.parsed, Light)


def embeddings() -> None:
    data = client.embeddings.create(model="embedding", input=["one", "two"]).data
    assert [len(it.embedding) for it in data] == [len(data[0].embedding)] * 2


def vision() -> None:
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": picture()}}]
    answer = client.chat.completions.create(model="vision", messages=[{"role": "user", "content": parts}], max_tokens=8)
    assert answer.usage.prompt_tokens > 100


def errors() -> None:
    refused(openai.BadRequestError, lambda: client.chat.completions.create(model="reasonning", messages=QUESTION))
    refused(openai.AuthenticationError, lambda: OpenAI(api_key="sk-wrong").models.list(), "invalid_api_key")


run("openai", chat, stream, tools, structured, embeddings, vision, errors)
