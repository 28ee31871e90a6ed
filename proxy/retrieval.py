"""``GET /v1/models/{id}``: one entry of the list that the key may see, whatever its name looks like. Pure.

LiteLLM's own route knows neither names with a slash nor aliases, though it lists both. So the list is asked for, and
the entry is taken out of it: what a key may not see it does not find either.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from roundhouse.proxy import errors

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

LISTS = ("/v1/models", "/models")


def asked(scope: Mapping[str, Any]) -> tuple[str, str] | None:
    """The list's path and the name of the model that is asked for; ``None``: it is another request."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    for path in LISTS:
        name = scope["path"].removeprefix(f"{path}/")
        if name not in ("", scope["path"]) and ".." not in name.split("/"):  # that is the way to another route
            return path, name
    return None


class Entry:
    """Sends of a list only what stands in it of ``name``; anything but a list goes through as it is."""

    def __init__(self, send: Send, name: str) -> None:
        self._send = send
        self._name = name
        self._start: Message | None = None
        self._content = bytearray()

    async def send(self, message: Message) -> None:
        """Take LiteLLM's message; send the answer once the list is whole."""
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
            return
        if self._start is None:
            await self._send(message)
            return
        self._content += message.get("body", b"")
        if message.get("more_body", False):
            return
        zipped = (b"content-encoding", b"gzip") in self._start["headers"]
        status, content = entry(gzip.decompress(self._content) if zipped else bytes(self._content), self._name)
        dropped = (b"content-length", b"content-encoding")
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() not in dropped]
        headers.append((b"content-length", str(len(content)).encode()))
        await self._send({**self._start, "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def entry(content: bytes, name: str) -> tuple[int, bytes]:
    """Status and body: what stands in the list ``content`` of ``name``. A name may end with a slash."""
    known = {it["id"]: it for it in json.loads(content)["data"]}
    found = known.get(name) or known.get(name.removesuffix("/"))
    if found is not None:
        return 200, json.dumps(found).encode()
    return 404, errors.body(f"The model {name!r} does not exist", "invalid_request_error", "model_not_found")
