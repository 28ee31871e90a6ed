"""Who asks, and how much that weighs: from a key's metadata and a request's headers. Pure, but for the clock.

A header can only lower what the key was given: a shorter wait, a lower priority.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from roundhouse.config.key_metadata import SECTION, KeyMetadata, Priority

log = logging.getLogger("roundhouse.hook")

SESSION_HEADERS = ("x-litellm-session-id", "x-session-id")
PRIORITY_HEADER = "x-roundhouse-priority"
MAX_WAIT_HEADER = "x-roundhouse-max-wait"

OFFICE_HOURS = range(8, 19)
"""Local hours in which a key with ``may_switch: off-hours`` takes what is there."""


@dataclass(frozen=True)
class Asking:
    """One request's side of the matter. ``caller``: the key's hash and the client's session, never the key."""

    caller: str = ""
    priority: Priority = Priority.NORMAL
    max_wait_s: float | None = None
    may_switch: bool = True


def asking(kwargs: Mapping[str, Any], max_wait_s: float, now: datetime | None = None) -> Asking:
    """What LiteLLM's ``kwargs`` of a call tell; ``max_wait_s`` is the bound of keys that have none of their own.

    What is malformed is ignored, with a warning once a key.
    """
    metadata = metadata_of(kwargs)
    headers = _headers(kwargs, metadata)
    own = of_key(kwargs)
    hour = (now or datetime.now()).hour
    return Asking(
        caller=f"{key_hash(kwargs)}/{_session(kwargs, metadata, headers)}".strip("/"),
        priority=_lowered(own.priority, headers.get(PRIORITY_HEADER)),
        max_wait_s=_shortened(own.max_wait, headers.get(MAX_WAIT_HEADER), max_wait_s),
        may_switch=own.may_switch == "always" or (own.may_switch == "off-hours" and hour not in OFFICE_HOURS),
    )


def key_hash(kwargs: Mapping[str, Any]) -> str:
    """The hash of the key that a call came with; empty where there are no keys."""
    return str(metadata_of(kwargs).get("user_api_key_hash") or "")


def of_key(kwargs: Mapping[str, Any]) -> KeyMetadata:
    """What the call's key says to us in its metadata. What is malformed is ignored, with a warning once a key."""
    said = (metadata_of(kwargs).get("user_api_key_metadata") or {}).get(SECTION)
    return _of_key(key_hash(kwargs), json.dumps(said, default=str))


def metadata_of(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What LiteLLM notes of a call's key and headers; it has two names for it, by route."""
    return {**(kwargs.get("metadata") or {}), **(kwargs.get("litellm_metadata") or {})}


def _headers(kwargs: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    raw = metadata.get("headers") or (kwargs.get("proxy_server_request") or {}).get("headers") or {}
    return {str(name).lower(): str(value) for name, value in raw.items()} if isinstance(raw, Mapping) else {}


def _session(kwargs: Mapping[str, Any], metadata: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """What tells one conversation or program under a key from another."""
    candidates = [kwargs.get("litellm_session_id"), metadata.get("session_id")]
    candidates += [headers.get(name) for name in SESSION_HEADERS]
    candidates += [kwargs.get("safety_identifier"), kwargs.get("user")]
    return next((str(it)[:64] for it in candidates if it), "")


@lru_cache(maxsize=1000)
def _of_key(key: str, text: str) -> KeyMetadata:
    """The key's own settings, from their JSON."""
    try:
        return KeyMetadata() if text == "null" else KeyMetadata.model_validate_json(text)
    except ValidationError as error:
        what = error.errors()[0]
        log.warning("event=key_metadata_ignored key=%s at=%s why=%r", key[:8], what["loc"], what["msg"])
        return KeyMetadata()


def _lowered(given: Priority, header: str | None) -> Priority:
    try:
        return given if header is None else given.lowered_to(Priority(header.strip().lower()))
    except ValueError:
        return given


def _shortened(given: float | None, header: str | None, default: float) -> float | None:
    try:
        wished = None if header is None else float(header)
    except ValueError:
        return given
    if wished is None or not wished > 0:
        return given
    return min(wished, default if given is None else given)
