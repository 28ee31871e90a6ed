"""Tools with ``strict: true``: vLLM keeps the arguments to their schema, if it is told. Pure.

LiteLLM takes ``strict`` and ``additionalProperties`` out of tools for vLLM (``llms/hosted_vllm/chat``), which old
releases did not know. What stands in ``extra_body`` goes to the engine as it is, in place of what LiteLLM made.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any


def kept(kind: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a call to change, so that its tools reach the engine as they are; nothing where none is strict."""
    tools = kwargs.get("tools")
    if kind != "acompletion" or not isinstance(tools, list):
        return {}
    functions = [it.get("function") for it in tools if isinstance(it, Mapping) and it.get("type") == "function"]
    strict = any(isinstance(it, Mapping) and it.get("strict") is True for it in functions)
    if not strict or len(functions) < len(tools):  # of other types LiteLLM makes functions
        return {}
    # A copy, for LiteLLM changes what it was given.
    return {"extra_body": {**(kwargs.get("extra_body") or {}), "tools": deepcopy(tools)}}
