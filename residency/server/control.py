"""The control plane: HTTP and one WebSocket on a unix socket that only this user can open.

A lease is an open connection: closing it, whoever does it, gives the lease back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.residency.machine.facts import (
    Asked,
    Fact,
    Gone,
    Held,
    ShutdownCommanded,
    SwitchCommanded,
    Ticket,
    UnloadCommanded,
)
from roundhouse.residency.server.metrics import Collector
from roundhouse.residency.server.scheduler import Event, Scheduler

FINAL = frozenset({"granted", "refused"})


@dataclass(eq=False)
class Queue:
    """The events of one ticket, on their way into a response."""

    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)

    def __call__(self, event: Event) -> None:
        """Take an event from the scheduler."""
        self.events.put_nowait(event)


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


class Control:
    """The routes, over one scheduler and, if there is one, an engine host.

    ``on_shutdown`` is called when an ordered shutdown is complete.
    """

    def __init__(self, scheduler: Scheduler, host: EngineHost | None, on_shutdown: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._host = host
        self._on_shutdown = on_shutdown
        self._registry = CollectorRegistry()
        self._registry.register(Collector(scheduler.status))

    def app(self, lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]]) -> Starlette:
        """The ASGI application; ``lifespan`` brings up and ends what it serves."""
        return Starlette(
            lifespan=lifespan,
            routes=[
                Route("/status", self.status),
                Route("/metrics", self.metrics),
                Route("/events", self.events),
                Route("/lease", self.lease, methods=["POST"]),
                WebSocketRoute("/leases", self.leases),
                Route("/switch", self.switch, methods=["POST"]),
                Route("/unload", self.unload, methods=["POST"]),
                Route("/shutdown", self.shutdown, methods=["POST"]),
            ],
        )

    # --- looking -------------------------------------------------------------------------------

    async def status(self, request: Request) -> Response:
        """GET /status: the public JSON."""
        host = self._host.status() if self._host is not None else None
        return JSONResponse(self._scheduler.status() | {"engine_host": host})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus text, read from the same status."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def events(self, request: Request) -> Response:
        """GET /events: every public event as SSE, the status first."""

        async def stream() -> AsyncIterator[bytes]:
            queue = Queue()
            unwatch = self._scheduler.watch(queue)
            try:
                yield b"event: status\ndata: " + _line(self._scheduler.status()) + b"\n"
                while True:
                    yield b"data: " + _line(await queue.events.get()) + b"\n"
            finally:
                unwatch()

        return StreamingResponse(stream(), media_type="text/event-stream")

    # --- leases and commands ---------------------------------------------------------------------

    async def lease(self, request: Request) -> Response:
        """POST /lease {"model", "max_wait_s"?, "may_switch"?, "caller"?, "weight"?}: NDJSON events; open = held."""
        body = await _body(request)
        if body is None or not isinstance(body.get("model"), str):
            return _bad('the body must be JSON: {"model": NAME}')
        return self._follow(lambda t: _asked(t, body), body["model"], hold=True)

    async def switch(self, request: Request) -> Response:
        """POST /switch {"model"}: NDJSON events; the last is ``granted`` or ``refused``."""
        body = await _body(request)
        if body is None or not isinstance(body.get("model"), str):
            return _bad('the body must be JSON: {"model": NAME}')
        model = body["model"]
        return self._follow(lambda t: SwitchCommanded(t, model), model)

    async def unload(self, request: Request) -> Response:
        """POST /unload {"model": NAME | null, "force"}: NDJSON events; the last: ``done`` or ``refused``."""
        body = await _body(request)
        model, force = (body or {}).get("model", 0), (body or {}).get("force", False)
        if not isinstance(model, str | None) or not isinstance(force, bool):  # a slip must not unload everything
            return _bad('the body must be JSON: {"model": NAME or null, "force": false}')
        return self._follow(lambda t: UnloadCommanded(t, model, force), None, done="done")

    async def shutdown(self, request: Request) -> Response:
        """POST /shutdown {"force"?}: drains and stops every engine, then ends residency."""
        body = await _body(request) or {}
        force = bool(body.get("force"))
        return self._follow(lambda t: ShutdownCommanded(t, force), None, done="done", after=self._on_shutdown)

    def _follow(
        self,
        fact: Callable[[Ticket], Fact],
        model: str | None,
        *,
        hold: bool = False,
        done: str = "granted",
        after: Callable[[], None] | None = None,
    ) -> Response:
        """Answer with the events of a new ticket until the last; with ``hold``, stay open after a grant."""
        scheduler = self._scheduler

        async def stream() -> AsyncIterator[bytes]:
            queue = Queue()
            unwatch = scheduler.watch(queue) if model is None else lambda: None
            ticket = scheduler.ticket(queue)
            try:
                scheduler.post(fact(ticket))
                if queue.events.empty() and model in scheduler.machine.engines:
                    yield _line(scheduler.queued(str(model), ticket))
                while True:
                    event = await queue.events.get()
                    final = event["event"] in FINAL
                    yield _line(event | {"event": done} if event["event"] == "granted" else event)
                    if final:
                        break
                if hold and event["event"] == "granted":
                    await asyncio.Event().wait()
            finally:
                unwatch()
                scheduler.forget(ticket)
                scheduler.post(Gone(ticket))
            if after is not None:
                after()

        return StreamingResponse(stream(), media_type="application/x-ndjson")

    async def leases(self, socket: WebSocket) -> None:
        """WS /leases: all leases of one worker on one connection.

        In: ``{"op": "ask", "id", "model", "max_wait_s"?, "may_switch"?}``, ``{"op": "gone", "id", "missed"?}``,
        ``{"op": "hold", "id", "model"}``, or a list of these. Out: a list of events, each with its ``id``.
        """
        await socket.accept()
        await LeaseConnection(self._scheduler, socket).serve()


class LeaseConnection:
    """One worker's connection. When it ends, all that it held or waited for is given back."""

    def __init__(self, scheduler: Scheduler, socket: WebSocket) -> None:
        self._scheduler = scheduler
        self._socket = socket
        self._tickets: dict[int, Ticket] = {}
        self._out: asyncio.Queue[Event] = asyncio.Queue()

    async def serve(self) -> None:
        """Read and write until the other side is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(), name="lease writer")
                await self._read()
        except* WebSocketDisconnect:
            pass
        finally:
            for ticket in self._tickets.values():
                self._scheduler.forget(ticket)
                self._scheduler.post(Gone(ticket))

    async def _read(self) -> None:
        """Take messages in until the other side is gone, which is a WebSocketDisconnect."""
        while True:
            messages = json.loads(await self._socket.receive_text())
            for message in messages if isinstance(messages, list) else [messages]:
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        id_, scheduler = int(message["id"]), self._scheduler
        match message["op"]:
            case "gone":
                ticket = self._tickets.pop(id_, None)
                if ticket is not None:
                    scheduler.forget(ticket)
                    scheduler.post(Gone(ticket, message.get("missed", False)))
            case "hold":
                self._tickets[id_] = ticket = scheduler.ticket(lambda _event: None)
                scheduler.post(Held(ticket, message["model"], message.get("caller", "")))
            case "ask":
                model = message["model"]
                self._tickets[id_] = ticket = scheduler.ticket(lambda event: self._out.put_nowait(event | {"id": id_}))
                scheduler.post(_asked(ticket, message))
                engine = scheduler.machine.engines.get(model)
                if engine is not None and ticket in engine.waiting:
                    self._out.put_nowait(scheduler.queued(model, ticket) | {"id": id_})

    async def _write(self) -> None:
        while True:
            events = [await self._out.get()]
            while not self._out.empty():
                events.append(self._out.get_nowait())
            await self._socket.send_text(json.dumps(events, separators=(",", ":")))


def _asked(ticket: Ticket, message: dict[str, Any]) -> Asked:
    """The fact for a message with ``model`` and optional ``max_wait_s``, ``may_switch``, ``caller``, ``weight``."""
    return Asked(
        ticket,
        message["model"],
        message.get("max_wait_s"),
        message.get("may_switch", True),
        message.get("caller", ""),
        message.get("weight", 1.0),
    )


async def _body(request: Request) -> dict[str, Any] | None:
    try:
        body = json.loads(await request.body() or b"{}")
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _bad(message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "invalid_request_error", "code": "bad_request"}}, 400)
