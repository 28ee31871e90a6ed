"""Errors as OpenAI clients know them: what LiteLLM gets wrong is put right here. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from roundhouse.proxy import late_errors
from roundhouse.proxy.wording import plain
from roundhouse.residency.codes import Refused

NO_DATABASE = b"No connected db"
"""How LiteLLM without a database answers a key that is not the master key: with status 400."""

STRUCK_OUT = re.compile(rb"\bREDACTED(?=:\d|', \d)")
"""What LiteLLM leaves of an address of loopback or of a private network, before the port: an engine's, mostly."""


def body(message: str, kind: str, code: str | None) -> bytes:
    """An error body in OpenAI's shape."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


def refusal(refused: Refused, anthropic: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a refusal by residency."""
    return refused.status, refused.headers, _whole(refused.status, refused.error, anthropic)


def repair(
    status: int, content: bytes, refused: Refused | None, anthropic: bool = False, nearest: Sequence[str] = ()
) -> tuple[int, dict[str, str], bytes]:
    """What to send instead of LiteLLM's error response; ``anthropic``: to a client of Anthropic's API.

    ``nearest``: the names that a client may have meant by one that is unknown.
    """
    if refused is not None:
        return refusal(refused, anthropic)
    if NO_DATABASE in content:
        status = 401
    content = STRUCK_OUT.sub(b"(private address)", content)
    error = plain(status, _error(status, content)).error
    if nearest and error["code"] == "model_not_found":
        error["message"] += f". Did you mean {' or '.join(map(repr, nearest))}?"
    return status, {}, _whole(status, error, anthropic)


def _whole(status: int, error: dict[str, Any], anthropic: bool) -> bytes:
    document: dict[str, Any] = {"error": error}
    if anthropic:
        document = {"type": "error", "error": {**error, "type": late_errors.anthropics(status)}}
    return json.dumps(document).encode()


def _error(status: int, content: bytes) -> dict[str, Any]:
    """The error of LiteLLM's or FastAPI's response, in whichever of their forms."""
    try:
        document = json.loads(content)
    except ValueError:
        return {"message": content.decode("utf-8", "replace") or f"status {status}"}
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return error
    if isinstance(document, dict) and isinstance(document.get("detail"), dict):
        error = document["detail"].get("error", error)
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return {"provider_specific_fields": {"error": error}}
    if error is None and isinstance(document, dict):
        error = document.get("detail")
    if isinstance(error, list):  # FastAPI's: what is wrong, and where
        error = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error)
    return {"message": error if isinstance(error, str) else json.dumps(error if error is not None else document)}
