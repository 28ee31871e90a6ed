"""Requests whose values vLLM refuses, by endpoint: the gateway knows them before anything is started."""

from __future__ import annotations

from typing import Any


def talk(text: str) -> list[dict[str, Any]]:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


TALKS = {
    "/v1/chat/completions": {"messages": talk("x")},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": talk("x"), "max_tokens": 8},
}
TOOLS = [{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}]
CHAT, COMPLETE, RESPOND, MESSAGE = TALKS
EMBED = "/v1/embeddings"
NAMED = {"type": "function", "function": {"name": "then"}}
GRAMMAR = {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "s: /x/"}}
VALUES: list[tuple[str, dict[str, Any], str]] = [
    *((path, {"temperature": -1}, "temperature") for path in TALKS),
    *((path, {"top_p": 0}, "top_p") for path in TALKS),
    *((path, {"temperature": 2.5}, "temperature") for path in (CHAT, RESPOND)),
    *((path, {"top_k": -5}, "top_k") for path in (CHAT, COMPLETE, MESSAGE)),
    *((path, {"presence_penalty": 3}, "presence_penalty") for path in (CHAT, COMPLETE)),
    *((path, {"frequency_penalty": -3}, "frequency_penalty") for path in (CHAT, COMPLETE)),
    *((path, {"repetition_penalty": 0}, "repetition_penalty") for path in (CHAT, COMPLETE)),
    *((path, {"min_p": 2}, "min_p") for path in (CHAT, COMPLETE)),
    *((path, {"min_tokens": -1}, "min_tokens") for path in (CHAT, COMPLETE)),
    *((path, {"max_tokens": 0}, "max_tokens") for path in (CHAT, COMPLETE, MESSAGE)),
    *((path, {"n": 0}, "n") for path in (CHAT, COMPLETE)),
    *((path, {"seed": 1.5}, "seed") for path in (CHAT, COMPLETE)),
    *((path, {"stop": [""]}, "stop") for path in (CHAT, COMPLETE)),
    *((path, {"stream_options": {"include_usage": True}}, "stream_options") for path in (CHAT, COMPLETE)),
    (CHAT, {"max_tokens": None, "max_completion_tokens": 0}, "max_completion_tokens"),
    (CHAT, {"logprobs": 5}, "logprobs"),
    (CHAT, {"top_logprobs": 3}, "top_logprobs"),
    (CHAT, {"tools": []}, "tools"),
    (CHAT, {"tools": TOOLS, "tool_choice": NAMED}, "tool_choice"),
    (CHAT, {"response_format": {"type": "yaml"}}, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "hello"}, "messages"),
    (MESSAGE, {"messages": []}, "messages"),
    *((COMPLETE, {"prompt": it}, "prompt") for it in ("", [], None, 5)),
    (RESPOND, {"input": []}, "input"),
    (RESPOND, {"tool_choice": "required"}, "tool_choice"),
    (RESPOND, {"tools": [GRAMMAR]}, "tools"),
    (EMBED, {"input": []}, "input"),
    (EMBED, {"encoding_format": "hex"}, "encoding_format"),
    (EMBED, {"dimensions": 32}, "dimensions"),
]
"""Endpoint, what is added to a good request, and the parameter that is refused."""
