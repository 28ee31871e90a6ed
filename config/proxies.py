"""Proxies of the environment: they are for the way out, and never for what we say to ourselves."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""As every client writes it: some compare names, some addresses, and none reads 127.0.0.0/8 alike."""

VARIABLES = tuple(case for name in ("http_proxy", "https_proxy", "all_proxy") for case in (name, name.upper()))


def named(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a proxy."""
    return {name: value for name in VARIABLES if (value := environment.get(name, ""))}


def bypassing(environment: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """``no_proxy`` in both cases: what the user has in either, then loopback and ``more`` hosts.

    Some clients read one case, some the other, and some the first that is there.
    """
    given = [environment.get("no_proxy", ""), environment.get("NO_PROXY", "")]
    hosts = [host.strip() for text in given for host in text.split(",")]
    value = ",".join(dict.fromkeys(host for host in [*hosts, *LOOPBACK, *more] if host))
    return {"no_proxy": value, "NO_PROXY": value}


def without_library(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that name a SOCKS proxy, where this Python has no library for one: no HTTP client can be made."""
    if importlib.util.find_spec("socksio") is not None:
        return {}
    return {name: value for name, value in named(environment).items() if value.lower().startswith("socks")}


def said(found: Mapping[str, str]) -> str:
    """One line about ``without_library``'s findings. The addresses are left out: they may hold a password."""
    names = " and ".join(found)
    return (
        f"{names} name{'s' if len(found) == 1 else ''} a SOCKS proxy, and this Python has no library for one (socksio)"
    )
