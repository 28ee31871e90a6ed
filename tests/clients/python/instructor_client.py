"""instructor: objects instead of text, by a JSON schema, to which vLLM keeps."""

from __future__ import annotations

import instructor
from cases import LONG, picture, refused, run
from instructor.core import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel


class Light(BaseModel):
    """A light."""

    on: bool


client = instructor.from_openai(OpenAI(), mode=instructor.Mode.JSON_SCHEMA)
QUESTION = [{"role": "user", "content": "Is it on?"}]
ASK = {"messages": QUESTION, "response_model": Light, "max_tokens": LONG}


def structured() -> None:
    assert isinstance(client.chat.completions.create(model="reasoning", **ASK), Light)


def stream() -> None:
    parts = client.chat.completions.create_partial(model="reasoning", **ASK)
    assert isinstance(list(parts)[-1].on, bool)


def vision() -> None:
    parts = [{"type": "text", "text": "Is it on?"}, {"type": "image_url", "image_url": {"url": picture()}}]
    messages = [{"role": "user", "content": parts}]
    assert isinstance(client.chat.completions.create(model="vision", **{**ASK, "messages": messages}), Light)


def errors() -> None:
    ask = {**ASK, "model": "reasonning", "max_retries": 0}
    refused(InstructorRetryException, lambda: client.chat.completions.create(**ask))


run("instructor", structured, stream, vision, errors)
