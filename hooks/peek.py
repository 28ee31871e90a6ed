"""A look into the response cache before a lease is taken: what it has needs no engine."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import litellm
from litellm.caching.caching_handler import LLMCachingHandler

PEEK_S, INPUT_S = 1.5, 0.003
"""How long the cache may take to answer the peek, and for each text of a batch besides, which has an entry of its own:
one of 8 kB takes a millisecond to fetch and read. A look-up that fails does so by the cache's own socket timeout."""


def space() -> str:
    """The cache's namespace by the YAML, which stacks that share a Redis may set."""
    return getattr(litellm.cache, "namespace", None) or "roundhouse"


def _named(name: str) -> Any:
    """LiteLLM's cache handler reads the call's kind from a function's name."""

    def function(*args: Any, **kwargs: Any) -> None: ...

    function.__name__ = name
    return function


async def would_answer(kwargs: dict[str, Any], kind: str) -> bool:
    """Whether the lookup that LiteLLM makes next will hit.

    It is the very same lookup; a hit stays in the worker's memory, so that the second one is local. When
    anything goes wrong it is a miss: a needless switch beats a failed request.
    """
    cache = litellm.cache
    if cache is None or kind not in (cache.supported_call_types or ()):
        return False
    if kwargs.get("caching") is False or (kwargs.get("cache") or {}).get("no-cache") is True:
        return False
    try:
        handler = LLMCachingHandler(
            original_function=_named(kind), request_kwargs=kwargs, start_time=datetime.datetime.now()
        )
        texts = kwargs.get("input")
        async with asyncio.timeout(PEEK_S + INPUT_S * (len(texts) if isinstance(texts, list) else 0)):
            found = await handler._retrieve_from_cache(call_type=kind, kwargs=dict(kwargs), args=())
    except Exception:
        return False
    return all(item is not None for item in found) if isinstance(found, list) else found is not None
