"""Who gets as far as LiteLLM: a request for a route that is served, and that has not been here before. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from roundhouse.hooks import via
from roundhouse.proxy import errors
from roundhouse.proxy.served import Routes
from roundhouse.residency.codes import Code, Refused

Scope = MutableMapping[str, Any]

_VIA = via.HEADER.encode()
_PREFLIGHT = b"access-control-request-method"

SHOWN = 200
"""So many characters of a path are repeated in a refusal."""

WEBSOCKET = "no engine holds a session, and there is no pass-through: a WebSocket is not served"
CIRCLE = "this request comes from this gateway itself: the api_base of a model in the YAML leads back here"


@dataclass(frozen=True)
class Answer:
    """What is sent instead of asking LiteLLM."""

    status: int
    headers: dict[str, str]
    content: bytes


class Door:
    """Lets the requests for ``routes`` in, but for those that the gateway ``identity`` has sent itself."""

    def __init__(self, routes: Routes, identity: str) -> None:
        self._routes = routes
        self._identity = identity

    def admit(self, scope: Scope) -> Scope | Answer:
        """The scope that LiteLLM gets, or the answer. The path is looked at as LiteLLM will: decoded."""
        if scope["type"] != "http":
            return _not_served(WEBSOCKET)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        seen = b",".join(value for name, value in headers if name == _VIA)
        if seen and via.circular(seen.decode("latin-1"), self._identity):
            return _not_served(CIRCLE)
        method, path = scope["method"], scope["path"]
        decision = self._routes.decide(method, path)
        if decision.path == path:
            return scope
        if decision.path is not None:
            return {**scope, "path": decision.path, "raw_path": quote(decision.path).encode()}
        if decision.methods and method == "OPTIONS" and _PREFLIGHT in {name for name, _ in headers}:
            return scope  # a browser asks whether it may; LiteLLM's CORS layer answers, no route does
        where = f"{method} {path[:SHOWN]}"
        if decision.methods:
            text = f"{where}: {decision.why}"
            allow = {"allow": ", ".join(sorted(decision.methods))}
            return Answer(405, allow, errors.body(text, "invalid_request_error", "method_not_allowed"))
        return _not_served(f"{where} is not served: {decision.why}; docs/security.md says what is")


def _not_served(text: str) -> Answer:
    return Answer(*errors.refusal(Refused(Code.NOT_SERVED, text)))
