"""The errors of vLLM 0.32 in its own form: a request that says ``fault[NAME]`` gets the one of that name.

vLLM's ``ErrorResponse`` has ``message``, ``type`` (the name of a class), ``param``, and a number as ``code``.
"""

from __future__ import annotations

import json
import re
from typing import Any

CONTEXT = (
    "This model's maximum context length is 4096 tokens. However, you requested 32 output tokens and your prompt "
    "contains at least 4065 input tokens, for a total of at least 4097 tokens. Please reduce the length of the input "
    "prompt or the number of requested output tokens."
)
FAULTS: dict[str, tuple[int, str, str, str | None]] = {
    "context": (400, CONTEXT, "BadRequestError", "input_tokens"),
    "max_tokens": (
        400,
        "max_tokens=32000 cannot be greater than max_model_len=4096. Please request fewer output tokens.",
        "BadRequestError",
        "max_tokens",
    ),
    "tools": (
        400,
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "BadRequestError",
        None,
    ),
    "suffix": (400, "suffix is not currently supported", "BadRequestError", None),
    "pictures": (
        400,
        "At most 2 image(s) may be provided in one prompt.",
        "BadRequestError",
        "image",
    ),
    "temperature": (400, "temperature must be non-negative, got -1.0.", "BadRequestError", "temperature"),
    "logprobs": (
        400,
        "Requested sample logprobs of 50, which is greater than max allowed: 20",
        "BadRequestError",
        "logprobs",
    ),
    "grammar": (400, "Invalid grammar specification: {'type': 'x'} isn't one", "BadRequestError", None),
    "validation": (
        400,
        "[{'type': 'float_parsing', 'loc': ('body', 'temperature'), 'msg': 'Input should be a valid number'}]",
        "Bad Request",
        None,
    ),
    "template": (400, "Conversation roles must alternate user/assistant/user/assistant/...", "BadRequestError", None),
    "token_id": (400, "Token id 9906 is out of vocabulary", "BadRequestError", None),
    "lora": (404, "The model `x` does not exist.", "NotFoundError", "model"),
    "no_api": (404, "The model does not support Chat Completions API", "NotFoundError", None),
    "pydantic": (422, "unprocessable", "Unprocessable Entity", None),
    "overloaded": (503, "The engine is paused", "ServiceUnavailableError", None),
    "not_implemented": (501, "That is not implemented", "NotImplementedError", None),
    "internal": (
        500,
        "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "InternalServerError",
        None,
    ),
    "braces": (400, 'a message with {"json": "in it"} and - {dashes}', "BadRequestError", None),
    "window": (400, "sequence of 5000 tokens exceeds the maximum context length, 4096", "BadRequestError", "prompt"),
    "rate": (429, "too many requests wait", "Too Many Requests", None),
}
"""name -> status, message, type, param"""


def asked_for(body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """The status and document of the error that a request asks for."""
    found = re.search(r"fault\[(\w+)\]", json.dumps(body))
    if found is None:
        return None
    status, message, kind, param = FAULTS[found[1]]
    return status, {"error": {"message": message, "type": kind, "param": param, "code": status}}
