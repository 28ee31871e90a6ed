"""Why requests are refused: the codes, their HTTP statuses, and the error that a client gets. Pure.

Part of the public contract: the README has the table.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

ERROR_TYPE = "residency_error"
"""The ``type`` of every error that has one of these codes."""


class Code(StrEnum):
    """Why a request was refused."""

    LOADING_TIMEOUT = "model_loading_timeout"
    QUEUE_FULL = "queue_full"
    FAILED = "model_failed"
    DOES_NOT_FIT = "model_does_not_fit"
    SHUTTING_DOWN = "shutting_down"
    WOULD_SWITCH = "would_switch"
    UNKNOWN = "unknown_model"
    NOT_SERVED = "not_served"
    MEDIA_REFUSED = "media_refused"

    @property
    def status(self) -> int:
        """The HTTP status that goes with the code."""
        return _STATUS[self]


_STATUS = {
    Code.LOADING_TIMEOUT: 503,
    Code.QUEUE_FULL: 429,
    Code.FAILED: 503,
    Code.DOES_NOT_FIT: 503,
    Code.SHUTTING_DOWN: 503,
    Code.WOULD_SWITCH: 503,
    Code.UNKNOWN: 404,
    Code.NOT_SERVED: 400,
    Code.MEDIA_REFUSED: 400,
}


class Refused(Exception):
    """The request is not served: ``code`` says why, ``retry_after_s`` (seconds) when asking again may help."""

    def __init__(self, code: Code, message: str, retry_after_s: float | None = None) -> None:
        self.code, self.message, self.retry_after_s = code, message, retry_after_s
        super().__init__(message)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.code.status

    @property
    def retry_after(self) -> int | None:
        """The value of ``Retry-After``, in whole seconds: 0 would mean that there is no need to wait."""
        return None if self.retry_after_s is None else max(1, round(self.retry_after_s))

    @property
    def headers(self) -> dict[str, str]:
        """What of it stands in the headers of a response."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, without the outermost braces."""
        return {"message": self.message, "type": ERROR_TYPE, "param": None, "code": self.code.value}
