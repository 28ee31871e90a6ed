"""How long an answer may get: what a client asks for beyond the context means what is left of it. Pure.

Agents send a number of their own for every model, or the model's whole context. vLLM refuses more than the context
(``vllm/renderers/params.py``), and takes what lies within it for the rest that the prompt leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What the four dialects call it."""


def within(kwargs: Mapping[str, Any]) -> dict[str, int]:
    """What of a call to change, so that it asks for no more than the model's context."""
    context = (kwargs.get("model_info") or {}).get("max_input_tokens")
    if not isinstance(context, int):
        return {}
    asked = {name: kwargs.get(name) for name in NAMES}
    return {name: context for name, value in asked.items() if isinstance(value, int) and value > context}
