"""Errors as OpenAI clients know them: what LiteLLM gets wrong is put right here. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from roundhouse.residency.client import Refused

NO_DATABASE = b"No connected db"
"""How LiteLLM without a database answers a key that is not the master key: with status 400."""

STRUCK_OUT = re.compile(rb"\bREDACTED(?=:\d|', \d)")
"""What LiteLLM leaves of an address of loopback or of a private network, before the port: an engine's, mostly."""


def body(message: str, kind: str, code: str | None) -> bytes:
    """An error body in OpenAI's shape."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


def refusal(refused: Refused) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a refusal by residency."""
    headers = {}
    if refused.retry_after_s is not None:
        headers["retry-after"] = f"{max(1.0, refused.retry_after_s):.0f}"
    return refused.status, headers, body(refused.message, "residency_error", refused.code)


def repair(status: int, content: bytes, refused: Refused | None) -> tuple[int, dict[str, str], bytes] | None:
    """What to send instead of LiteLLM's error response, or ``None`` to leave it."""
    if refused is not None:
        return refusal(refused)
    if NO_DATABASE in content:
        return 401, {}, body("Incorrect API key provided.", "authentication_error", "invalid_api_key")
    unnamed, content = content, STRUCK_OUT.sub(b"(private address)", content)
    try:
        document = json.loads(content)
    except ValueError:
        return status, {}, body(content.decode("utf-8", "replace") or f"status {status}", _kind(status), None)
    error = document.get("error") if isinstance(document, dict) else None
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return None if content == unnamed else (status, {}, content)
    if isinstance(document, dict) and isinstance(document.get("detail"), dict):
        error = document["detail"].get("error", error)
    if error is None and isinstance(document, dict):
        error = document.get("detail")
    if isinstance(error, list):  # FastAPI's: what is wrong, and where
        error = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error)
    text = error if isinstance(error, str) else json.dumps(error if error is not None else document)
    return status, {}, body(text, _kind(status), None)


def _kind(status: int) -> str:
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "api_error"
    )
