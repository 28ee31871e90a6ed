"""A trivial OpenAI-compatible server: an engine that costs next to nothing, to measure what stands before it.

``python bench/engine.py --port N [--start-delay S] [--sleep-delay S --wake-delay S]``. It has vLLM's sleep endpoints,
which do nothing for so long. Standard library alone, so that it starts quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator
from typing import Any

ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "trivial",
    "choices": [
        {"index": 0, "finish_reason": "stop", "text": "yes", "message": {"role": "assistant", "content": "yes"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """One server-sent event of a streamed answer, in vLLM's form: no space in it that is not text."""
    body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "trivial", "choices": choices, **more}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def events(tokens: int, usage: bool) -> Iterator[bytes]:
    """A streamed answer of ``tokens``, no two alike side by side: plain LiteLLM takes a hundred alike for a fault.

    Without ``usage`` LiteLLM counts them itself, which it need not for vLLM.
    """
    for number in range(tokens):
        yield event([{"index": 0, "delta": {"content": f"txt{number % 10} "}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if usage:
        counts = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1}
        yield event([], usage=counts)
    yield b"data: [DONE]\n\n"


class Engine:
    """Answers, asleep or awake: ``delays`` are the seconds that a path takes."""

    def __init__(self, delays: dict[str, float]) -> None:
        self._delays = delays
        self._sleeps = False

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: any POST with a body is a chat completion, anything else is healthy."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            path = lines[0].split(" ")[1].split("?")[0]
            length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
            body = json.loads(await reader.readexactly(length)) if length else {}
            if path in self._delays:
                await asyncio.sleep(self._delays[path])
                self._sleeps = path == "/sleep"
            if body.get("stream"):
                usage = bool((body.get("stream_options") or {}).get("include_usage"))
                await _stream(writer, events(int(body.get("max_tokens") or 50), usage))
            else:
                _whole(writer, json.dumps(ANSWER if length else {"is_sleeping": self._sleeps}).encode())
            await writer.drain()


def _whole(writer: asyncio.StreamWriter, body: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def _stream(writer: asyncio.StreamWriter, answer: Iterator[bytes]) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for data in answer:
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--start-delay", type=float, default=0.0, help="seconds before the port is opened")
    parser.add_argument("--sleep-delay", type=float, default=0.0, help="seconds that falling asleep takes")
    parser.add_argument("--wake-delay", type=float, default=0.0, help="seconds that waking takes")
    options, _ = parser.parse_known_args()  # vLLM's flags mean nothing to it
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    if options.start_delay:
        await asyncio.sleep(options.start_delay)
    engine = Engine({"/sleep": options.sleep_delay, "/wake_up": options.wake_delay})
    server = await asyncio.start_server(engine.answer, "127.0.0.1", options.port)
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
