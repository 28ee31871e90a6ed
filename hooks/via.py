"""A request that a gateway has sent out says so in a header, so that one that comes back to it ends at once. Pure.

A model elsewhere may be this very gateway, by its address or by a name that leads here: without an end such a call
would call itself until the machine is full. The header lists the gateways that a request has come through, so that a
circle of several ends, too, while a gateway behind a gateway works.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

HEADER = "x-roundhouse-via"

IDENTITY = "ROUNDHOUSE_GATEWAY_ID"
"""The environment variable with what tells this gateway from others; its workers share it."""

LONGEST = 8
"""More gateways than that in a row are a circle of ones that forget who they are."""


def own() -> str:
    """Who this gateway is."""
    return os.environ.get(IDENTITY, "")


def circular(header: str, identity: str) -> bool:
    """Whether a request with this ``header`` has been at the gateway ``identity`` before, or at too many others."""
    seen = [it.strip() for it in header.split(",") if it.strip()]
    return identity in seen or len(seen) > LONGEST


def onward(headers: Mapping[str, str], identity: str) -> str:
    """The header of what is sent out on behalf of a request that had ``headers`` (names in lower case)."""
    return ", ".join(it for it in (headers.get(HEADER, ""), identity) if it)
