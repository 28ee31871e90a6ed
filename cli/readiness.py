"""Waiting for a stack that starts: what answers already, and if one of its services ends, why."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx

from roundhouse.cli import control, ending, whereabouts
from roundhouse.cli.env import base_url
from roundhouse.cli.errors import CliError, NotRunning
from roundhouse.cli.told import say
from roundhouse.config import paths
from roundhouse.config import virtual_keys as keys
from roundhouse.deploy.services import cluster
from roundhouse.deploy.services.redis import socket as redis_socket

START_S = 180.0
"""How long the services may take: LiteLLM's imports on a slow disk, and then some."""

HOST_S = 60.0
"""How long `up` waits for the engine host, which is a gain and no need: after that the first start waits for it."""

POLL_S = 0.05


def wait_for_services(stack: subprocess.Popen[bytes]) -> None:
    """Wait until every service answers, and say so as each does. Raises CliError if one does not."""
    began = time.monotonic()
    pending: dict[str, Callable[[], bool]] = {
        "redis": _redis_answers,
        **({"postgres": _postgres_answers} if keys.own_database() else {}),
        "residency": _residency_answers,
        "gateway": lambda: is_up(POLL_S * 4),
    }
    while pending:
        for name in [name for name, answers in pending.items() if answers()]:
            del pending[name]
            say(f"  {name:<10} ready after {time.monotonic() - began:.1f} s")
        if stack.poll() is not None:
            raise CliError(why_it_ended())
        if time.monotonic() - began > START_S:
            raise CliError(
                f"no answer from {', '.join(pending)} within {START_S:.0f} s\n{_end(_log()[-ending.LINES :])}"
            )
        time.sleep(POLL_S)


def wait_for_host(stack: subprocess.Popen[bytes]) -> None:
    """Wait until the engine host has imported vLLM, so that the first request finds it ready. All works without one."""
    began = time.monotonic()
    said = False
    while stack.poll() is None and time.monotonic() - began < HOST_S:
        with suppress(NotRunning):
            host = control.status().get("engine_host")
            if host is None or host["state"] not in ("off", "importing"):
                if said and host is not None and host["state"] == "ready":
                    say(f"  vLLM       ready after {time.monotonic() - began:.1f} s more: engines start from it")
                return
        if not said:
            said = True
            say("  vLLM       is imported ahead, so that engines start in a fraction of the time")
        time.sleep(POLL_S)


def is_up(patience_s: float = 2.0) -> bool:
    """Whether our gateway answers. Its socket listens long before it does."""
    try:
        control.status()
        if whereabouts.gateway() is None:
            return False
        alive = f"{base_url().removesuffix('/v1')}/health/liveliness"
        return httpx.get(alive, timeout=patience_s, trust_env=False).status_code == 200  # past any proxy
    except (NotRunning, httpx.HTTPError):
        return False


def _redis_answers() -> bool:
    if os.environ.get("REDIS_URL"):
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(redis_socket())) == 0


def _postgres_answers() -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(cluster.socket())) == 0


def _residency_answers() -> bool:
    with suppress(NotRunning):
        return bool(control.status())
    return False


def why_it_ended() -> str:
    it = ending.of_log(_log())
    return f"{it}\n{_end(it.last)}" if it.last else f"{it}; see 'roundhouse logs'"


def _log() -> list[str]:
    with suppress(OSError):
        return (paths.log_dir() / "stack.log").read_text(errors="replace").splitlines()
    return []


def _end(lines: Sequence[str]) -> str:
    return "\n".join(["the end of its log ('roundhouse logs' has all of it):", *(f"  {line}" for line in lines)])
