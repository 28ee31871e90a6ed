"""Errors of a stream that has begun, with pings or with words: the form that each of the three dialects knows. Pure.

Once a ping is out the status is 200 and LiteLLM writes the error as a chat chunk, for whatever route, with ours inside.
"""

from __future__ import annotations

import json
import re
from typing import Any

from roundhouse.proxy.wording import plain
from roundhouse.residency.codes import ERROR_TYPE, Refused

LITELLMS = b'data: {"error"'
DONE = b"data: [DONE]"
FAILED = re.compile(rb"^event: (error|response\.failed)\ndata: (.*)$", re.MULTILINE)

ANTHROPICS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    408: "timeout_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's types by status; below 500 any other is an ``invalid_request_error``, from there an ``api_error``."""


def anthropics(status: int) -> str:
    """Anthropic's type of an error with ``status``."""
    return ANTHROPICS.get(status, "invalid_request_error" if status < 500 else "api_error")


class Stream:
    """The events of the response to one request for ``path``. LiteLLM sends each in a message of its own."""

    def __init__(self, path: str) -> None:
        path = path.rstrip("/")
        self.anthropic = path.endswith("/messages")
        self._responses = path.endswith("/responses")
        self._failed = False

    def event(self, content: bytes, refused: Refused | None) -> bytes:
        """What to send instead of ``content``; ``refused``: by what the request was refused, if it was."""
        if content.startswith(LITELLMS):
            error = _error(content)
            if error is not None:
                self._failed = True
                return self._said(error, refused)
        if (self.anthropic or self._responses) and (found := FAILED.search(content)):
            return self._in_words(content, found)
        if self._failed and content.startswith(DONE) and (self.anthropic or self._responses):
            return b""  # theirs end with the error
        return content

    def _said(self, error: dict[str, Any], refused: Refused | None) -> bytes:
        ours = refused if refused is not None and refused.code == error.get("code") else None
        if ours is not None and ours.retry_after is not None:
            error = {**error, "retry_after": ours.retry_after}  # there is no header any more
        status = ours.status if ours else _status(error)
        if ours is None:
            error = plain(status, error).error
        if self.anthropic:
            kind = anthropics(status)
            return _event("error", {"type": "error", "error": {**error, "type": kind}})
        if self._responses:
            flat = {name: error.get(name) for name in ("code", "message", "param")}
            return _event("error", {"type": "error", "sequence_number": 0, **flat, "error": error})
        return b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

    def _in_words(self, content: bytes, found: re.Match[bytes]) -> bytes:
        """An event of the dialect's own that LiteLLM made of an error."""
        try:
            document = json.loads(found[2])
        except ValueError:
            return content
        holder = document.get("response", document) if isinstance(document, dict) else {}
        error = holder.get("error") if isinstance(holder, dict) else None
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            return content
        error["message"] = plain(500, {"message": error["message"]}).message
        return content[: found.start(2)] + json.dumps(document).encode() + content[found.end(2) :]


def _error(content: bytes) -> dict[str, Any] | None:
    """The error that LiteLLM's event carries, ours if it has one inside."""
    try:
        error = json.loads(content.removeprefix(b"data: "))["error"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(error, dict):
        return None
    inner = (error.get("provider_specific_fields") or {}).get("error")
    return inner if isinstance(inner, dict) and inner.get("type") == ERROR_TYPE else error


def _status(error: dict[str, Any]) -> int:
    code = str(error.get("code"))
    return int(code) if code.isdigit() else 500


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
