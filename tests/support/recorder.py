"""A server in a provider's place: it writes down what it is asked, and answers, or has somebody else answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
ANSWER = {
    "id": "chatcmpl-elsewhere",
    "object": "chat.completion",
    "created": 1,
    "model": "elsewhere",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "from elsewhere"}}],
    "usage": USAGE,
}


@dataclass(frozen=True)
class Asked:
    """One request. ``headers``: names in lower case."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Recorder:
    """``forward``: the origin that answers instead, such as ``http://127.0.0.1:7000``."""

    url: str
    forward: str | None = None
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder on a port of its own, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            recorder.asked.append(Asked(self.command, self.path, headers))
            body = self.rfile.read(int(headers.get("content-length", 0)))
            status, content = 200, json.dumps(ANSWER).encode()
            if recorder.forward is not None:
                kept = {name: value for name, value in headers.items() if name not in ("host", "content-length")}
                answer = httpx.request(
                    self.command, recorder.forward + self.path, content=body, headers=kept, timeout=60, trust_env=False
                )
                status, content = answer.status_code, answer.content
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        recorder = Recorder(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, name="recorder")
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
