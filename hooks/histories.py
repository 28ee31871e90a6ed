"""What agents send back of earlier turns on ``/v1/responses``, in the form that vLLM takes. Pure.

Codex and OpenAI's SDK keep the conversation themselves and send all of it with each turn: answers, calls of tools, what
the tools said, and reasoning. vLLM 0.32 knows some of these items only with fields that clients leave out, and some
not at all (``vllm/entrypoints/openai/responses``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Item = Mapping[str, Any]

REASONING = "reasoning"
MADE_BY_SERVERS = frozenset({"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"})
"""What a provider's own tools did: the answer that was made of it stands in the history, too."""


def _reasoning(item: Item) -> Item | None:
    """Reasoning without what only its maker can decrypt; nothing where nothing else is in it."""
    content, summary = item.get("content") or [], item.get("summary") or []
    if not content and not summary:
        return None
    plain = {name: value for name, value in item.items() if name != "encrypted_content" and value is not None}
    return {**plain, "id": item.get("id") or "rs_0", "summary": summary}  # clients that store nothing drop the id


def _shell_call(item: Item) -> Item:
    arguments = json.dumps(item.get("action") or {}, ensure_ascii=False)
    return {"type": "function_call", "call_id": _call_id(item), "name": "local_shell", "arguments": arguments}


def _shell_output(item: Item) -> Item:
    return {"type": "function_call_output", "call_id": _call_id(item), "output": item.get("output") or ""}


def _call_id(item: Item) -> str:
    return str(item.get("call_id") or item.get("id") or "")


FORMS: dict[str, Callable[[Item], Item | None]] = {
    REASONING: _reasoning,
    "local_shell_call": _shell_call,
    "local_shell_call_output": _shell_output,
    **dict.fromkeys(MADE_BY_SERVERS, lambda item: None),
}
"""By the type of an item: what is sent in its place, or nothing."""


def taken(kind: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a call to change, so that vLLM takes its history; nothing where it does as it is."""
    items = kwargs.get("input")
    if kind != "aresponses" or not isinstance(items, list):
        return {}
    if not any(isinstance(item, Mapping) and item.get("type") in FORMS for item in items):
        return {}
    forms = [_form(item) for item in items]
    return {"input": [form for form in forms if form is not None]}


def _form(item: Any) -> Any:
    form = FORMS.get(str(item.get("type"))) if isinstance(item, Mapping) else None
    return item if form is None else form(item)
