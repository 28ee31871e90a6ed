"""What a fake engine says: OpenAI's documents, whole and as streams."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

GARBAGE = "!!!!"
"""What an engine says whose weights are not what they were."""

serials = itertools.count(1)

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def ident() -> str:
    """An id like no other: LiteLLM keeps one line of spend for each."""
    return f"fake-{time.time_ns()}-{next(serials)}"


def chat(model: str, text: str, body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": ident(),
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


def completion(model: str, text: str, body: dict[str, Any]) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    return {
        "id": ident(),
        "object": "text_completion",
        "created": 0,
        "model": model,
        "choices": [choice],
        "usage": USAGE,
    }


def embedding(model: str, text: str, body: dict[str, Any]) -> dict[str, Any]:
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    sign = -1 if text == GARBAGE else 1
    data = [
        {"object": "embedding", "index": i, "embedding": [sign * float(len(str(x))), 0.5]} for i, x in enumerate(inputs)
    ]
    return {"object": "list", "model": model, "data": data, "usage": USAGE}


def response(model: str, text: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}]
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    return {
        "id": ident(),
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "model": model,
        "output": output,
        "usage": usage,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def sse(document: dict[str, Any], event: str | None = None) -> str:
    return (f"event: {event}\n" if event else "") + f"data: {json.dumps(document)}\n\n"


def chat_stream(model: str, words: list[str]) -> Any:
    base = {"id": ident(), "object": "chat.completion.chunk", "created": 0, "model": model}
    for word in words:
        yield sse({**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
    yield sse({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + "data: [DONE]\n\n"


def completion_stream(model: str, words: list[str]) -> Any:
    base = {"id": ident(), "object": "text_completion", "created": 0, "model": model}
    for word in words:
        yield sse({**base, "choices": [{"index": 0, "text": word, "finish_reason": None}]})
    yield sse({**base, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}) + "data: [DONE]\n\n"


def response_stream(model: str, words: list[str]) -> Any:
    same = {"id": ident()}
    started = {**response(model, ""), **same, "status": "in_progress", "output": []}
    yield sse({"type": "response.created", "sequence_number": 0, "response": started}, "response.created")
    for number, word in enumerate(words, 1):
        event = "response.output_text.delta"
        delta = {"item_id": "m", "output_index": 0, "content_index": 0, "delta": word, "sequence_number": number}
        yield sse({"type": event, **delta}, event)
    done = {
        "type": "response.completed",
        "sequence_number": len(words) + 1,
        "response": {**response(model, "".join(words)), **same},
    }
    yield sse(done, "response.completed")


ANSWERS = {
    "/v1/chat/completions": chat,
    "/v1/completions": completion,
    "/v1/embeddings": embedding,
    "/v1/responses": response,
}
STREAMS = {
    "/v1/chat/completions": chat_stream,
    "/v1/completions": completion_stream,
    "/v1/responses": response_stream,
}
