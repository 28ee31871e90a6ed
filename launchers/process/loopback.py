"""How we speak to engines: plain HTTP on this machine, whatever proxies the environment names."""

from __future__ import annotations

import httpx


def loopback_client() -> httpx.AsyncClient:
    """A client for an engine's port."""
    return httpx.AsyncClient(verify=False, trust_env=False)
