"""The ASGI wrapper round LiteLLM's app: the lease scope of each exchange, limits, and honest errors."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from roundhouse.hooks import lease_scope
from roundhouse.hooks.lease_scope import LeaseScope
from roundhouse.proxy import errors, late_errors, retrieval
from roundhouse.proxy.door import Answer, Door

log = logging.getLogger("roundhouse.proxy")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 64 * 2**20
"""Some pictures as data URIs fit; what is larger would only fill the worker's memory."""


UNSAID = frozenset({b"x-litellm-cache-key"})
"""Headers of LiteLLM's that are not for clients: this one tells a key that another has asked the same."""


class TooLarge(Exception):
    """The request's body is longer than MAX_BODY_BYTES."""


class Gateway:
    """Wraps LiteLLM's ASGI app.

    What ``door`` does not admit never reaches LiteLLM, whoever asks: it is answered before a key is looked at.
    ``on_starting`` is awaited before LiteLLM starts; there is one where there are virtual keys.
    ``on_started`` is called once LiteLLM is up.
    """

    def __init__(
        self,
        app: App,
        door: Door,
        on_starting: Callable[[], Awaitable[None]] | None,
        on_started: Callable[[], None],
    ) -> None:
        self._app = app
        self._door = door
        self._on_starting = on_starting
        self._on_started = on_started

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's message exchange."""
        if scope["type"] == "lifespan":
            if self._on_starting is not None:
                await self._on_starting()
            await self._app(scope, receive, self._watching_start(send))
            return
        if scope["type"] == "http" and scope["path"] == "/metrics":
            # LiteLLM redirects to it, and Prometheus follows without its key.
            scope = {**scope, "path": "/metrics/", "raw_path": b"/metrics/"}
        if one := retrieval.asked(scope):
            path, name = one
            scope, send = {**scope, "path": path, "raw_path": path.encode()}, retrieval.Entry(send, name).send
        admitted = self._door.admit(scope)
        if isinstance(admitted, Answer):
            await _turn_away(scope, receive, send, admitted)
            return
        scope = admitted
        exchange = LeaseScope()
        token = lease_scope.current.set(exchange)
        body = _Body(scope, receive)
        response = _Response(send, exchange, late_errors.Stream(scope["path"]), body)
        try:
            if body.declared > MAX_BODY_BYTES:
                raise TooLarge
            if body.coding not in (b"", b"identity"):
                text = (
                    f"the body is coded ({body.coding.decode('latin-1')}): send it as it is, without Content-Encoding"
                )
                await _answer(send, 415, {}, errors.body(text, "invalid_request_error", "unsupported_encoding"))
                return
            await self._app(scope, body.receive, response.send)
        except TooLarge:
            if not response.started:
                text = f"the request is longer than {MAX_BODY_BYTES // 2**20} MiB"
                await _answer(send, 413, {}, errors.body(text, "invalid_request_error", "request_too_large"))
        except Exception:
            if not response.said:
                raise
            log.exception("event=unhandled path=%s", scope["path"])  # raised on, the server would cut the connection
        finally:
            lease_scope.current.reset(token)
            await exchange.close()

    def _watching_start(self, send: Send) -> Send:
        async def watched(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._on_started()

        return watched


class _Body:
    """The request's body, counted."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        self.coding: bytes = dict(scope["headers"]).get(b"content-encoding", b"").lower()
        self.is_list = False
        self.declared = int(lengths[0]) if lengths and lengths[0].isdigit() else 0

    async def receive(self) -> Message:
        message = await self._receive()
        if not self._seen:
            self.is_list = message.get("body", b"").lstrip().startswith(b"[")
        self._seen += len(message.get("body", b""))
        if self._seen > MAX_BODY_BYTES:
            raise TooLarge
        return message


class _Response:
    """The response: passed through, unless it is an error, which is gathered and put right."""

    def __init__(self, send: Send, exchange: LeaseScope, events: late_errors.Stream, body: _Body) -> None:
        self._send = send
        self._events = events
        self._body = body
        self._exchange = exchange
        self._error: Message | None = None
        self._content = bytearray()
        self.started = False
        self.said = False
        """Whether an error was sent, whole."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._error = message
            self.started = True
            return
        if self._error is None:
            self.started = True
            if message["type"] == "http.response.start":
                message = {**message, "headers": [it for it in message["headers"] if it[0].lower() not in UNSAID]}
            if message.get("body"):
                message = {**message, "body": self._events.event(message["body"], self._exchange.refused)}
            await self._send(message)
            return
        self._content += message.get("body", b"")
        if not message.get("more_body", False):
            await self._send_error(self._error, bytes(self._content))

    async def _send_error(self, start: Message, content: bytes) -> None:
        plain = gzip.decompress(content) if (b"content-encoding", b"gzip") in start["headers"] else content
        status, anthropic = start["status"], self._events.anthropic
        if status == 500 and self._body.is_list:  # LiteLLM falls over it
            status, plain = 400, b"the body is a JSON list: send a JSON object"
        status, headers, content = errors.repair(
            status, plain, self._exchange.refused, anthropic, self._exchange.nearest
        )
        await _answer(self._send, status, headers, content, start["headers"])
        self.said = True


async def _turn_away(scope: Scope, receive: Receive, send: Send, answer: Answer) -> None:
    """Send ``answer``; to a WebSocket before there is one."""
    if scope["type"] == "websocket":
        await receive()

        async def denial(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await _answer(denial, answer.status, answer.headers, answer.content)
    else:
        await _answer(send, answer.status, answer.headers, answer.content)


async def _answer(
    send: Send, status: int, headers: dict[str, str], content: bytes, others: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send a whole JSON response; of ``others``' headers those about the body are left out."""
    ours = {"content-type": "application/json", "content-length": str(len(content)), **headers}
    kept = [
        (k, v) for k, v in others or () if k.lower().decode() not in {*ours, "content-encoding", "transfer-encoding"}
    ]
    encoded = [(k.encode(), v.encode()) for k, v in ours.items()]
    await send({"type": "http.response.start", "status": status, "headers": kept + encoded})
    await send({"type": "http.response.body", "body": content})
