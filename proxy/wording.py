"""What an error says without what LiteLLM wraps round it: its classes, JSON in JSON, advice on its own settings.

Pure. The sentence of the engine, or of a hook, is kept as it is.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from roundhouse.residency.codes import ERROR_TYPE

APPENDED = re.compile(
    r"\n\nLiteLLM: model group .*"
    r"|\n\nDeployment Info: .*"
    r"|\nmodel=\S+ context_window_fallbacks=.*"
    r"|\.? ?Received Model Group=.*"
    r"| LiteLLM Retried: \d+ times.*"
    r"|[\s.]*Original exception: .*",
    re.DOTALL,
)
PREPENDED = re.compile(r"(litellm\.\w+: |\w*(Error|Exception)(:| -) |Timeout Error: |Error code: \d{3} - )")
LITELLMS = re.compile(r"litellm\.\w+: |\d{3}: (?=\{)|\w+Exception - |Error code: \d{3} - ")
STATUS = re.compile(r"\d{3}: (?=\{)")
ROUTE = re.compile(r"^[/\w]+: (?=Invalid model name|Missing required parameter)")

TIMED_OUT = re.compile(r"(?:Connection timed out|Request timed out)(?:\. Timeout passed=([\d.]+))?")
CUT_OFF = re.compile(
    r"payload is not completed|peer closed connection|Server disconnected|Connection reset by peer|Connection error\."
    r"|Cannot connect to host|incomplete chunked read"
)
TOO_LONG = re.compile(
    r"maximum context length|cannot be greater than max_model_len|longer than the maximum model length"
)
NO_MODEL = re.compile(r"Invalid model name passed in model=(.*?)\. Call ", re.DOTALL)
NO_KEY = re.compile(r"Invalid proxy server token|LiteLLM_VerificationToken|No connected db|No api key passed in")
INVALID = re.compile(r"(\d+) validation erro(?:rs?:|\w*REDACTED)\s*\{")
"""How vLLM begins what pydantic says of a request; LiteLLM takes the end of the word for a secret."""
PLACE = re.compile(r"'loc': '(?:body\.)?([^']*)', 'msg': (?:'([^']*)'|\"([^\"]*)\")")
INDEX = re.compile(r"^(\w+\.\d+)\.")
NO_OBJECT = re.compile(r"validation error for AnthropicResponseContentBlockToolUse")
PARAMETER = re.compile(r" \(parameter=[^()]*\)$")
RESETS = re.compile(r"[.,;]? ?Limit resets at:? [^.\n]*( UTC)?")

KINDS = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
"""OpenAI's types by status; below 500 any other is an ``invalid_request_error``, from there an ``api_error``."""

ENDED = "the engine ended, or closed the connection, before the answer was whole: send the request again"
INCORRECT = "Incorrect API key provided."


@dataclass(frozen=True)
class Said:
    """An error as a client gets it."""

    message: str
    kind: str
    param: str | None
    code: str | None

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape, without the outermost braces."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}


def kind(status: int) -> str:
    """OpenAI's type of an error with ``status``."""
    return KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")


def plain(status: int, error: dict[str, Any]) -> Said:
    """LiteLLM's ``error`` of a response with ``status``, in plain words."""
    inner, message = _unwrapped(str(error.get("message")))
    ours = (error.get("provider_specific_fields") or {}).get("error")
    if isinstance(ours, dict) and isinstance(ours.get("message"), str):
        inner, message = ours, ours["message"]
    fields = {**error, **{name: inner[name] for name in ("param", "code") if inner.get(name) is not None}}
    param = fields.get("param")
    if invalid := _invalid(message):
        message, param = f"{invalid[0]}: {invalid[1]}", invalid[0]
    message = PARAMETER.sub("", message)
    code = _code(status, message) or _word(fields.get("code")) or str(status)
    named = inner.get("type")
    return Said(
        message if inner else _sentence(message),
        named if named in {*KINDS.values(), "invalid_request_error", ERROR_TYPE} else kind(status),
        param if isinstance(param, str) and param != "None" else ("model" if code == "model_not_found" else None),
        code,
    )


def _invalid(message: str) -> tuple[str, str] | None:
    """Where a request is wrong, and how, of all that pydantic says; ``None``: the message is none of its."""
    found = INVALID.match(message)
    places = PLACE.findall(message) if found else []
    if found is None or not places:
        return None
    if int(found[1]) == 1:
        return places[0][0], places[0][1] or places[0][2]
    deep = next((index[1] for place, *_ in places if (index := INDEX.match(place))), places[0][0])
    return deep, "it has none of the forms that the engine knows"


def _unwrapped(message: str) -> tuple[dict[str, Any], str]:
    """The error inside ``message``, if there is one, and its sentence."""
    text = APPENDED.sub("", message) if "litellm" in message.lower() or "Exception" in message else message
    if LITELLMS.match(text):
        while found := PREPENDED.match(text) or STATUS.match(text):
            text = text[found.end() :]
    text = ROUTE.sub("", text).strip()
    inner = _document(text)
    return inner, str(inner.get("message", text))


def _document(text: str) -> dict[str, Any]:
    """The error that ``text`` is, written as JSON or as Python writes it."""
    if not text.startswith("{"):
        return {}
    try:
        document = json.loads(text)
    except ValueError:
        try:
            document = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return {}
    error = document.get("error", document) if isinstance(document, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else {}


def _code(status: int, message: str) -> str | None:
    if status == 400 and TOO_LONG.search(message):
        return "context_length_exceeded"
    if NO_MODEL.search(message):
        return "model_not_found"
    if status == 401:
        return "invalid_api_key"
    return None


def _word(code: Any) -> str | None:
    """A code that is not just the status again."""
    return code if isinstance(code, str) and code != "None" and not code.isdigit() else None


def _sentence(message: str) -> str:
    """``message``, or what it means where only a programmer of the gateway could tell."""
    if NO_OBJECT.search(message):
        return "the model called a tool with arguments that are no object: ask again, or give the tool strict: true"
    if NO_KEY.search(message):
        return INCORRECT
    if found := TIMED_OUT.search(message):
        within = f" within {float(found[1]):g} s" if found[1] else " in time"
        return f"the engine gave no answer{within} (litellm_params.timeout): ask for fewer tokens, or raise the limit"
    if CUT_OFF.search(message):
        return ENDED
    if found := NO_MODEL.search(message):
        return f"there is no model {found[1]!r} for this key: GET /v1/models lists those there are"
    return RESETS.sub("", message)
