"""A fake vLLM that is a real process: OpenAI's routes, vLLM's log lines, and a switch for each misbehaviour.

Standard library alone, so that it starts at once. ``GET /fake/stats`` tells what it has done. With ``--card`` it
takes memory of an emulated card, and with vLLM's VLLM_SERVER_DEV_MODE it can be put to sleep.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from typing import Any

import sleeping
from answers import ANSWERS, GARBAGE, STREAMS
from faults import asked_for

serials = itertools.count(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--start-delay", type=float, default=0.0)
    parser.add_argument("--stop-delay", type=float, default=0.0)
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--exit-at-once", type=int, default=None, metavar="CODE")
    parser.add_argument("--never-healthy", action="store_true")
    parser.add_argument("--health-status", type=int, default=200, help="what /health answers")
    parser.add_argument("--models-status", type=int, default=200, help="what /v1/models answers")
    parser.add_argument("--die-mid-stream", action="store_true")
    parser.add_argument("--first-byte-delay", type=float, default=0.0)
    parser.add_argument("--token-delay", type=float, default=0.0)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--word", default="tok{} ", help="what each token says, with its number in it")
    parser.add_argument("--ctx-size", type=int, default=0, help="what llama.cpp's server is told of its context")
    parser.add_argument("--fail-status", type=int, default=None)
    parser.add_argument("--child", action="store_true", help="start a child in the same session that outlives it")
    parser.add_argument("--pooling", action="store_true", help="embeds, and does nothing else")
    sleeping.add_options(parser)
    parser.add_argument("--semaphore", action="store_true", help="hold a named semaphore, as vLLM does")
    parser.add_argument("--device-file", default=None, help="a file for lines 'start|stop model pid time'")
    return parser.parse_args()


class Fake:
    """The server and its counters."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stats: dict[str, Any] = {
            "requests": 0,
            "inputs": 0,
            "active": 0,
            "aborted": 0,
            "max_active": 0,
            "last": {},
        }
        self.key = os.environ.get("ENGINE_KEY")
        self.memory = sleeping.Memory(options, log)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side closes it."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                method, path, _ = head.split(" ", 2)
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self.route(method, path, headers, body, reader, writer)
        writer.close()

    async def route(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if path == "/fake/stats":
            self.whole(writer, 200, self.stats)
        elif path == "/health":
            self.whole(writer, 503 if self.options.never_healthy else self.options.health_status, {})
        elif os.environ.get("VLLM_SERVER_DEV_MODE") == "1" and path.split("?")[0] in sleeping.ROUTES:
            self.whole(writer, *await self.memory.route(method, path, body))  # the key is not asked for
        elif self.key and headers.get("authorization") != f"bearer {self.key}".lower():
            self.whole(writer, 401, {"error": {"message": "Unauthorized", "type": "authentication_error"}})
        elif path == "/v1/models":
            listed = {"object": "list", "data": [{"id": self.options.model, "object": "model"}]}
            self.whole(writer, self.options.models_status, listed)
        elif method == "POST" and path in ANSWERS and not (self.options.pooling and path != "/v1/embeddings"):
            await self.generate(path, json.loads(body), reader, writer)
        else:
            self.whole(writer, 404, {"error": {"message": f"no route {path}", "type": "NotFoundError"}})

    async def generate(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer while the client is there; stop when it leaves."""
        self.stats["requests"] += 1
        self.stats["inputs"] += len(texts) if isinstance(texts := body.get("input"), list) else 1
        self.stats["last"] = body
        self.stats["active"] += 1
        self.stats["max_active"] = max(self.stats["max_active"], self.stats["active"])
        work = asyncio.create_task(self.answer(path, body, writer))
        left = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            else:
                self.stats["aborted"] += 1
                raise ConnectionResetError
        finally:
            self.stats["active"] -= 1
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        async with self.memory.request() as request:
            await self.say(path, body, writer, request)

    async def say(
        self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter, request: sleeping.Request
    ) -> None:
        await request.nap(self.options.first_byte_delay)
        if fault := asked_for(body):
            self.whole(writer, *fault)
            return
        if self.options.fail_status:
            error = {"message": "the engine failed", "type": "InternalServerError", "code": self.options.fail_status}
            self.whole(writer, self.options.fail_status, {"error": error})
            return
        count = min(self.options.tokens, int(body.get("max_tokens") or body.get("max_output_tokens") or 10**9))
        serial = "greedy " if body.get("temperature") == 0 else f"#{next(serials)}.{time.time_ns()} "
        words = [f"{self.options.model} ", serial, *(self.options.word.format(n) for n in range(2, count))]
        if not self.memory.sane:
            words = [GARBAGE]
        if not body.get("stream"):
            for _ in words:
                await request.nap(self.options.token_delay)
            self.whole(writer, 200, ANSWERS[path](self.options.model, "".join(words), body))
            return
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for number, event in enumerate(STREAMS[path](self.options.model, words)):
            if number:
                await request.nap(self.options.token_delay)
            if request.aborted:
                break
            if self.options.die_mid_stream and number == len(words) // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            self.chunk(writer, event)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    def chunk(writer: asyncio.StreamWriter, event: str) -> None:
        data = event.encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    @staticmethod
    def whole(writer: asyncio.StreamWriter, status: int, document: Any) -> None:
        data = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)


def log(text: str) -> None:
    print(f"(APIServer pid={os.getpid()}) INFO 01-01 00:00:00 [fake.py:1] {text}", flush=True)


def note(options: argparse.Namespace, what: str) -> None:
    """Say on the device file that this engine comes or goes."""
    if options.device_file:
        with open(options.device_file, "a", encoding="utf-8") as file:
            file.write(f"{what} {options.model} {os.getpid()} {time.monotonic()}\n")


async def main() -> None:
    options = parse()
    if options.exit_at_once is not None:
        print("RuntimeError: CUDA out of memory (fake)", flush=True)
        sys.exit(options.exit_at_once)
    note(options, "start")
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, (lambda: None) if options.ignore_term else ended.set)
    if options.child:
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])  # noqa: ASYNC220
    if options.semaphore:
        held = multiprocessing.get_context("spawn").Lock()
        log(f"semaphore sem.{held._semlock.name.strip('/')}")
    log("non-default args: {}")
    log("Starting to load model fake...")
    print("Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:00<00:00,  1.00it/s]", flush=True)
    fake = Fake(options)
    with fake.memory.starting():
        if options.start_delay:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), options.start_delay)
    log("init engine (profile, create kv cache, warmup model) took 0.09 s")
    server = await asyncio.start_server(fake.connection, "127.0.0.1", options.port)
    log(f"Starting vLLM server on http://127.0.0.1:{options.port}")
    await ended.wait()
    if options.stop_delay:
        await asyncio.sleep(options.stop_delay)  # stands for the work of a real engine that ends
    server.close()
    note(options, "stop")


if __name__ == "__main__":
    asyncio.run(main())
