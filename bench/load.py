"""A client that costs next to nothing, over raw sockets: else the client is what limits the engine's own figures.

It counts tokens by their text, not by events: whatever merges deltas has fewer events and no fewer tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

TOKEN = b"txt"
"""What each token of the trivial engine says. The text stands in nothing else of an answer."""

_serial = itertools.count(time.time_ns())


@dataclass(frozen=True)
class Target:
    """Who is asked: a port of this machine, a key, and the model's name there."""

    port: int
    key: str
    model: str

    def request(self, **body: Any) -> bytes:
        """A chat that nobody has asked before, as it goes over the wire; it keeps the connection."""
        message = {"role": "user", "content": f"Question {next(_serial)}"}
        content = json.dumps({"model": self.model, "messages": [message], "temperature": 0, **body}).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        return head.encode() + content


class Connection:
    """A connection to a target that is kept from one request to the next."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._target.port, limit=2**20)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()

    async def ask(self, **body: Any) -> int:
        """One request to its end; the tokens of its answer. Raises RuntimeError where the status is not 200."""
        self._writer.write(self._target.request(**body))
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            content = await self._chunks()
        else:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            content = await self._reader.readexactly(length)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{head.splitlines()[0].decode()}: {content[:300].decode('utf-8', 'replace')}")
        return content.count(TOKEN)

    async def _chunks(self) -> bytes:
        whole = bytearray()
        while size := int(await self._reader.readline(), 16):
            whole += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return bytes(whole)


async def requests_per_s(target: Target, at_once: int, requests: int) -> float:
    """Short answers a second, ``requests`` of them over ``at_once`` connections."""

    async def lane(connection: Connection) -> None:
        for _ in range(requests // at_once):
            await connection.ask(max_tokens=1)

    return requests / await _together(target, at_once, lane)


async def tokens_per_s(target: Target, streams: int, tokens: int) -> float:
    """Streamed tokens a second, ``tokens`` in each of ``streams`` that begin together.

    Raises:
        RuntimeError: not all of them came.
    """

    async def lane(connection: Connection) -> None:
        came = await connection.ask(max_tokens=tokens, stream=True)
        if came != tokens:
            raise RuntimeError(f"{came} tokens of {tokens} came")

    return streams * tokens / await _together(target, streams, lane)


async def _together(target: Target, lanes: int, run: Callable[[Connection], Coroutine[Any, Any, None]]) -> float:
    """The seconds that ``run`` takes on ``lanes`` connections at once, which are open before the clock starts."""
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection(target)) for _ in range(lanes)]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(run(connection))
        return time.perf_counter() - began
