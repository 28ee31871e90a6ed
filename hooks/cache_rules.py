"""What the response cache may answer, and for whom: LiteLLM's own controls of one call, set by our rules. Pure.

LiteLLM answers whatever it was asked before. An answer that is left to chance would come back word for word when
somebody asks for another one; a stream comes back in other events than it first had, without its reasoning; and one key
would read what another key was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roundhouse.config.key_metadata import KeyMetadata
from roundhouse.hooks.kinds import KINDS, TALKS

GENERATING = frozenset(kind for kind, (_, modes) in KINDS.items() if modes is TALKS)
"""Kinds of calls whose answer may be left to chance; embeddings, ranks and transcripts are not."""


def controls(kwargs: Mapping[str, Any], kind: str, key: str | None, of_key: KeyMetadata, space: str) -> dict[str, Any]:
    """The object ``cache`` of a call: LiteLLM's name for what the cache does with it.

    ``key``: the hash of the virtual key that asks; ``None`` for the master key. ``space``: the namespace of who shares:
    the master key, keys that are told to, and everybody where there are no keys. It is never the client's to choose.
    """
    asked = kwargs.get("cache")
    result = dict(asked) if isinstance(asked, dict) else {}
    result["namespace"] = f"{space}:{key[:32]}" if key and of_key.cache == "own" else space
    wanted = result.get("use-cache") is True or of_key.cache_chance
    if kind in GENERATING and (kwargs.get("stream") or (_left_to_chance(kwargs) and not wanted)):
        result |= {"no-cache": True, "no-store": True}
    return result


def forget_name(kwargs: Mapping[str, Any]) -> None:
    """Drop the name of an answer that a client has sent: it would be told whatever is kept under it, or replace it."""
    params = kwargs.get("litellm_params")
    if isinstance(params, dict):
        params.pop("preset_cache_key", None)


def _left_to_chance(kwargs: Mapping[str, Any]) -> bool:
    """Whether two answers to it may differ: engines sample at temperature 1 where none is given."""
    temperature = kwargs.get("temperature")
    return kwargs.get("seed") is None and (temperature is None or temperature != 0)
