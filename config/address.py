"""Where the gateway listens, and the address by which this machine reaches it: every command asks here."""

from __future__ import annotations

import os
import re
import socket
from ipaddress import IPv6Address, ip_address

from roundhouse.config import paths

DEFAULT_HOST = "127.0.0.1"
WILDCARDS = ("0.0.0.0", "::")
"""All addresses of the machine: something to listen on, nothing to connect to."""

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


def host() -> str:
    """What the gateway listens on, ``ROUNDHOUSE_HOST``: an IPv4 or IPv6 address, or a name of this machine.

    Raises:
        ValueError: it is neither.
    """
    text = (os.environ.get("ROUNDHOUSE_HOST") or DEFAULT_HOST).strip()
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ip_address(inner)
    except ValueError:
        if not _NAME.fullmatch(text) or re.fullmatch(r"[\d.]+", text):
            raise ValueError(
                f"ROUNDHOUSE_HOST is {text!r}: it must be an address or a name of this machine, without a port"
            ) from None
        return text
    if isinstance(address, IPv6Address) and address.scope_id:
        raise ValueError(f"ROUNDHOUSE_HOST is {text!r}: no client takes an address with a zone; use another, or ::")
    return inner


def reached_at(listening: str) -> str:
    """The host by which this machine reaches what listens on ``listening``: loopback where that is everything."""
    return DEFAULT_HOST if listening in WILDCARDS else listening


def bound(listening: str, port: int) -> socket.socket:
    """A TCP socket bound to the first address of ``listening``. Raises OSError where it is taken, or not ours."""
    family, _, _, _, where = socket.getaddrinfo(listening, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:  # :: is for IPv4, too, whatever the system's default
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound


def origin() -> str:
    """``http://host:port``, as this machine reaches the gateway. Raises ValueError as ``host`` and ``paths.port``."""
    at = reached_at(host())
    return f"http://{f'[{at}]' if ':' in at else at}:{paths.port()}"


def base_url() -> str:
    """The address that OpenAI clients are given. Raises ValueError as ``origin``."""
    return f"{origin()}/v1"
