"""Fetches what a request names by URL, from where it may lead to and nowhere else.

The name is looked up once, every address it has is checked, and the connection is made to a checked address: a name
that changes its address in between (DNS rebinding) gains nothing. Every redirect is a new URL. No proxy is used: it
would look the name up again.
"""

from __future__ import annotations

import asyncio
import mimetypes
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import cache

import httpx
import psutil

from roundhouse.hooks.media import Media
from roundhouse.hooks.reach import Reach

DEADLINE_S = 30.0
"""For one URL with all its redirects: vLLM's own limit for a film, the most patient that it has."""

CONNECT_S = 5.0
"""For one address, so that there is time for the next."""

MAX_BYTES = 32 * 2**20
"""For one URL. The gateway takes bodies of 64 MiB, and base64 adds a third."""

MAX_URLS = 32
MAX_REDIRECTS = 5
AT_ONCE = 8
"""So many are fetched at a time by one worker: each may hold MAX_BYTES of memory."""

Resolve = Callable[[str, int], Awaitable[list[str]]]


class MediaRefused(Exception):
    """A URL that is not fetched, or cannot be; the text says which and why."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of ``host``, however it is written. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Fetcher:
    """Fetches for whoever asks, as far as ``reach`` goes."""

    def __init__(self, reach: Reach, resolve: Resolve = resolve) -> None:
        self._reach = reach
        self._resolve = resolve
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, urls: list[str], *, admin: bool) -> dict[str, Media]:
        """What lies at ``urls``; ``admin``: it is an admin's key that asks. Raises MediaRefused."""
        if len(urls) > MAX_URLS:
            raise MediaRefused(f"{len(urls)} URLs in one request; {MAX_URLS} are fetched at most")
        async with asyncio.TaskGroup() as group:
            tasks = {url: group.create_task(self._one(url, admin), name="fetch media") for url in urls}
        outcomes = {url: task.result() for url, task in tasks.items()}
        for it in outcomes.values():
            if isinstance(it, MediaRefused):
                raise it
        return {url: it for url, it in outcomes.items() if isinstance(it, Media)}

    async def _one(self, url: str, admin: bool) -> Media | MediaRefused:
        shown = url if len(url) <= 200 else f"{url[:200]}..."
        try:
            async with self._turn, asyncio.timeout(DEADLINE_S):
                return await self._follow(url, admin)
        except MediaRefused as error:
            return MediaRefused(f"{shown}: {error}")
        except TimeoutError:
            return MediaRefused(f"{shown}: not there within {DEADLINE_S:.0f} s")
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
            return MediaRefused(f"{shown}: it cannot be fetched ({type(error).__name__})")

    async def _follow(self, url: str, admin: bool) -> Media:
        target = httpx.URL(url.strip())
        # Nothing is kept between two fetches: no cookie, no connection of somebody else's.
        async with httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=DEADLINE_S) as client:
            for _ in range(MAX_REDIRECTS + 1):
                response = await self._ask(client, target, admin)
                try:
                    if not response.has_redirect_location:
                        return await _content(response, target)
                    target = target.join(response.headers["location"])
                finally:
                    await response.aclose()
        raise MediaRefused(f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, client: httpx.AsyncClient, target: httpx.URL, admin: bool) -> httpx.Response:
        """The beginning of the answer of the first address that can be reached."""
        if target.scheme not in ("http", "https"):
            raise MediaRefused("only http and https are fetched, and data: URLs are taken")
        host = target.raw_host.decode("ascii").rstrip(".")
        port = target.port or {"http": 80, "https": 443}[target.scheme]
        if port > 65535:
            raise MediaRefused(f"there is no port {port}")
        headers = {"host": target.netloc.decode("ascii"), "user-agent": "roundhouse", "accept-encoding": "identity"}
        addresses = await self._addresses(host, port, admin)
        for address in addresses:
            request = client.build_request(
                "GET",
                target.copy_with(host=address),
                headers=headers,
                timeout=httpx.Timeout(DEADLINE_S, connect=CONNECT_S),
                extensions={"sni_hostname": host},  # the certificate is still the name's
            )
            try:
                return await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == addresses[-1]:
                    raise
        raise AssertionError("there is an address")

    async def _addresses(self, host: str, port: int, admin: bool) -> list[str]:
        """Those of ``host``. Raises MediaRefused, in the same words for a name that is unknown and for one of ours."""
        try:
            found = await self._resolve(host, port)
        except (OSError, UnicodeError):
            found = []
        own = {it.address.split("%")[0] for group in psutil.net_if_addrs().values() for it in group}
        if not found or not all(self._reach.allows(it, admin=admin, own=own) for it in found):
            raise MediaRefused(f"no public address is known for {host}; docs/network.md says how to open others")
        return found


async def _content(response: httpx.Response, target: httpx.URL) -> Media:
    if response.status_code != 200:
        raise MediaRefused(f"it answers with status {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise MediaRefused("it is compressed, though that was not asked for")
    named = re.match(r"\s*([\w.+-]+/[\w.+-]+)\s*(;|$)", response.headers.get("content-type", ""))
    kind = named[1].lower() if named else ""
    if kind == "text/html":
        raise MediaRefused("it is a page, no picture, sound or file")
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_BYTES:
            raise MediaRefused(f"it is larger than {MAX_BYTES // 2**20} MiB")
    guessed = mimetypes.guess_type(target.path)[0]
    return Media(kind or guessed or "application/octet-stream", bytes(content))


@cache
def _tls() -> ssl.SSLContext:
    """One for all: reading the authorities takes 20 ms."""
    return httpx.create_ssl_context()
