"""Leases, over one connection.

The connection carries all leases of one process. When the process dies, the kernel closes it and
every lease is given back. When residency restarts, the client reconnects, says what it still holds
and asks again for what it was waiting for.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import WebSocketException

from roundhouse.residency.codes import Code, Refused

log = logging.getLogger("roundhouse.client")

Event = dict[str, Any]

ABSENT_S = 30.0
"""How long requests wait for a residency that does not answer: it restarts within a second or two."""

RECONNECT_S = 0.25
"""Pause between attempts to reach residency; short against a restart, long against the cost of one."""


def refused(event: Event) -> Refused:
    """What a ``refused`` event says."""
    return Refused(Code(event["code"]), event["message"], event["retry_after_s"])


class Lease:
    """The right to use one resident model. ``release`` may be called any number of times."""

    def __init__(self, client: LeaseClient, id_: int, model: str) -> None:
        self._client: LeaseClient | None = client
        self._id = id_
        self.model = model
        self.on_release: Callable[[], None] | None = None  # called once, by whoever gives the lease back

    @property
    def released(self) -> bool:
        """Whether the lease was given back."""
        return self._client is None

    def release(self, why: str = "", *, missed: bool = False) -> None:
        """Give the lease back; at once, without waiting. ``missed``: whoever should have done it did not."""
        client, self._client = self._client, None
        if client is None:
            return
        client._give_back(self._id, why, missed=missed)
        if self.on_release is not None:
            self.on_release()

    def __repr__(self) -> str:
        return f"<lease {self._id} on {self.model}{', released' if self.released else ''}>"


class _Ask:
    """A request for a lease that has no answer yet."""

    def __init__(self, message: dict[str, Any], on_event: Callable[[Event], None] | None) -> None:
        self.message = message
        self.on_event = on_event
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class LeaseClient:
    """All leases of this process, over one connection.

    Not thread-safe: use it from one event loop.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._ids = itertools.count(1)
        self._asks: dict[int, _Ask] = {}
        self._held: dict[int, dict[str, Any]] = {}
        self._out: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """How many leases this process holds."""
        return len(self._held)

    async def acquire(
        self,
        model: str,
        *,
        caller: str = "",
        weight: float = 1.0,
        max_wait_s: float | None = None,
        may_switch: bool = True,
        on_event: Callable[[Event], None] | None = None,
    ) -> Lease:
        """Wait until ``model`` is ready and return a lease on it.

        ``caller`` is an opaque name of who asks, ``weight`` its priority's; ``max_wait_s`` (seconds) overrides the
        configured bound; with ``may_switch=False`` only a resident model is granted; ``on_event`` sees what happens
        meanwhile.
        Cancelling gives the place in the queue up, or the lease back, whichever it is by then.

        Raises:
            Refused: residency refuses, or could not be reached for ABSENT_S.
        """
        id_ = next(self._ids)
        message = {"op": "ask", "id": id_, "model": model}
        if caller:
            message["caller"] = caller
        if weight != 1.0:
            message["weight"] = weight
        if max_wait_s is not None:
            message["max_wait_s"] = max_wait_s
        if not may_switch:
            message["may_switch"] = False
        ask = self._asks[id_] = _Ask(message, on_event)
        self._out.put_nowait(message)
        self.connect()
        try:
            await ask.answer
        except asyncio.CancelledError:
            self._give_back(id_, "cancelled")
            raise
        finally:
            self._asks.pop(id_, None)
        return Lease(self, id_, model)

    def connect(self) -> None:
        """Have a connection from now on; the first ``acquire`` does it too."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="lease connection")

    async def aclose(self) -> None:
        """Close the connection; every lease is given back by that."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self._held.clear()

    def _give_back(self, id_: int, why: str, *, missed: bool = False) -> None:
        self._held.pop(id_, None)
        self._asks.pop(id_, None)
        log.debug("event=release lease=%d why=%s", id_, why)
        self._out.put_nowait({"op": "gone", "id": id_, **({"missed": True} if missed else {})})

    # --- the connection --------------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep a connection while there is anything to say or to hold."""
        loop = asyncio.get_running_loop()
        absent_since = loop.time()
        while True:
            try:
                connection = await unix_connect(
                    str(self._path),
                    "ws://residency/leases",
                    compression=None,
                    ping_interval=None,
                    max_size=None,
                    open_timeout=ABSENT_S,
                )
            except (OSError, TimeoutError, WebSocketException) as error:
                if loop.time() - absent_since > ABSENT_S:
                    self._refuse_all(error)
                    absent_since = loop.time()
                await asyncio.sleep(RECONNECT_S)
                continue
            try:
                await self._converse(connection)
            except* WebSocketException:
                log.warning("event=residency_lost held=%d asked=%d", len(self._held), len(self._asks))
            except* Exception:  # a bug, here or there: those who wait are not to wait for ever
                log.exception("event=conversation_broken held=%d asked=%d", len(self._held), len(self._asks))
                await asyncio.sleep(RECONNECT_S)
            finally:
                await connection.close()
            absent_since = loop.time()

    async def _converse(self, connection: ClientConnection) -> None:
        """Say what is held and asked, then carry messages both ways until the connection ends."""
        while not self._out.empty():
            self._out.get_nowait()  # it is in _held and _asks, or about a lease that this server never saw
        hello: list[dict[str, Any]] = [ask | {"op": "hold"} for ask in self._held.values()]
        hello += [ask.message for ask in self._asks.values() if not ask.answer.done()]
        await connection.send(json.dumps(hello))
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(self._write(connection), name="lease writer")
            async for text in connection:
                for event in json.loads(text):
                    self._take(event)
            writer.cancel()

    async def _write(self, connection: ClientConnection) -> None:
        while True:
            messages = [await self._out.get()]
            while not self._out.empty():
                messages.append(self._out.get_nowait())
            await connection.send(json.dumps(messages, separators=(",", ":")))

    def _take(self, event: Event) -> None:
        ask = self._asks.get(event["id"])
        if ask is None or ask.answer.done():
            return
        if event["event"] == "granted":
            self._held[event["id"]] = ask.message
            ask.answer.set_result(None)
        elif event["event"] == "refused":
            ask.answer.set_exception(refused(event))
        elif ask.on_event is not None:
            ask.on_event(event)

    def _refuse_all(self, error: Exception) -> None:
        text = f"residency has not answered for {ABSENT_S:.0f} s ({error}); see 'roundhouse status'"
        for ask in self._asks.values():
            if not ask.answer.done():
                ask.answer.set_exception(Refused(Code.SHUTTING_DOWN, text, ABSENT_S))
