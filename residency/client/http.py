"""Residency's routes, over its socket: status, events, commands."""

from __future__ import annotations

from pathlib import Path

import httpx


def http_client(socket_path: Path, timeout: float | None = None) -> httpx.AsyncClient:
    """A client for residency's routes; base URL ``http://residency``, ``timeout`` in seconds."""
    transport = httpx.AsyncHTTPTransport(uds=str(socket_path))
    return httpx.AsyncClient(transport=transport, base_url="http://residency", timeout=timeout)
