"""From spawned to ready: watch the process, its log and its health, and say what it is doing."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from math import inf

import httpx
import psutil

from roundhouse.launchers.base import LaunchError, Progress
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.child import Child, Spec
from roundhouse.launchers.process.loopback import loopback_client
from roundhouse.launchers.process.records import kill_session, read_record

POLL_S = 0.01
"""How often the port is tried: a refused connection costs 0.1 ms, and half of it is lost at every start."""

LOG_POLL_S = 0.1
"""How often the log is read: progress is for people."""

HEALTH_TIMEOUT_S = 2.0
"""An engine that accepts a connection but does not answer is still starting."""

MODELS = "/v1/models"
"""What every OpenAI-compatible server has, also one without a path for its health."""

MISPLACED_S = 10.0
"""For how long an engine may answer that it has nothing at these paths: some open their port before they know their
routes, none for as long. Without this a wrong path holds the device for the whole of ``start_timeout_s``."""

ASKED_AGAIN_S = 0.5
"""How often who answers so is asked again: at POLL_S its log would fill with our questions."""


async def _spawn(spec: Spec) -> Child:
    return Child.spawn(spec)


async def launch(
    spec: Spec, report: Callable[[Progress], None], spawn: Callable[[Spec], Awaitable[Child]] = _spawn
) -> Child:
    """Start an engine with ``spawn``, by default as a child of ours, and return it once it answers.

    Raises:
        LaunchError: it could not be started; nothing of it is left. The same holds on cancellation.
    """
    left = read_record(spec.records, spec.model)
    if left is not None and left.members() and not await asyncio.to_thread(kill_session, left.pid, left.born):
        text = f"model {spec.model!r}: what is left of its last engine survives SIGKILL (session {left.pid})"
        raise LaunchError(spec.model, text)
    _require_free_port(spec)
    try:
        child = await spawn(spec)
    except OSError as error:
        text = f"model {spec.model!r}: cannot run {spec.argv[0]!r}: {error.strerror}"
        raise LaunchError(spec.model, text) from error
    watch = _Watch(spec, child, report)
    try:
        await watch.until_ready()
    except BaseException:
        await asyncio.shield(child.stop(force=True))
        raise
    return child


def _require_free_port(spec: Spec) -> None:
    """Raise LaunchError if somebody else listens on the engine's port: its health would pass for ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", spec.port))
        except OSError as error:
            owner = _owner(spec.port)
            text = f"model {spec.model!r}: port {spec.port} is in use{owner}; end that, or change launcher.port"
            raise LaunchError(spec.model, text) from error


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""


@dataclass(frozen=True, slots=True)
class Health:
    """What an engine answered: the status at each path that was asked; none where it did not answer."""

    statuses: Mapping[str, int] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether it is ready."""
        return any(200 <= status < 300 for status in self.statuses.values())

    @property
    def misplaced(self) -> bool:
        """Whether it answers, but has nothing at these paths. 5xx are not that: most servers say 503 while they load,
        some 500."""
        return bool(self.statuses) and not self.good and all(status < 500 for status in self.statuses.values())

    def __str__(self) -> str:
        return " and ".join(f"{status} at {path}" for path, status in self.statuses.items()) or "nothing"


async def health(port: int, path: str, client: httpx.AsyncClient) -> Health:
    """Ask the engine on ``port`` whether it is ready: at ``path``, and if it has nothing there at MODELS."""
    statuses: dict[str, int] = {}
    for at in dict.fromkeys((path, MODELS)):
        try:
            response = await client.get(f"http://127.0.0.1:{port}{at}", timeout=HEALTH_TIMEOUT_S)
        except httpx.HTTPError:
            return Health()
        statuses[at] = response.status_code
        if not Health(statuses).misplaced:
            break
    return Health(statuses)


async def healthy(port: int, path: str, client: httpx.AsyncClient) -> bool:
    """Whether the engine on ``port`` is ready."""
    return (await health(port, path, client)).good


async def _accepts(port: int) -> bool:
    """Whether anybody listens on the port."""
    with socket.socket() as probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
        except OSError:
            return False
        return True


class _Watch:
    """One start: how far it is, and how it may fail."""

    def __init__(self, spec: Spec, child: Child, report: Callable[[Progress], None]) -> None:
        self._spec, self._child, self._report = spec, child, report
        self._began = time.monotonic()
        self._log = logs.Follower(spec.log)
        self._progress = Progress("starting", pid=child.pid)

    async def until_ready(self) -> None:
        """Return when the engine answers and is alive. Raises LaunchError otherwise."""
        self._report(self._progress)
        next_log, misplaced_since, seen = 0.0, inf, Health()
        async with loopback_client() as client:
            while self._child.alive:
                now = time.monotonic()
                if now - self._began > self._spec.start_timeout_s:
                    said = f"answered {seen}, and " if seen.statuses else ""
                    late = f"{said}was not ready within {self._spec.start_timeout_s:.0f} s"
                    raise self._failure(late + logs.quoted(self._spec.log))
                if now >= next_log:
                    self._read_log()
                    next_log = now + LOG_POLL_S
                port = self._spec.port
                seen = await health(port, self._spec.health_path, client) if await _accepts(port) else Health()
                if seen.good and self._child.alive:
                    return
                misplaced_since = min(misplaced_since, now) if seen.misplaced else inf
                if now - misplaced_since >= MISPLACED_S:
                    remedy = "set launcher.health_path to a path that answers 200 once it is ready"
                    raise self._failure(f"answers {seen} for {MISPLACED_S:.0f} s: {remedy}")
                # The engine has no other way to say that it answers.
                await asyncio.sleep(ASKED_AGAIN_S if seen.misplaced else POLL_S)
        exit_ = await self._child.exited()
        raise self._failure(exit_.text.removeprefix("engine "), exit_.code)

    def _read_log(self) -> None:
        for line in self._log.lines():
            progress = self._spec.phases(self._progress, line)
            if progress is not None:
                self._progress = Progress(progress.phase, progress.percent, self._child.pid)
                self._report(self._progress)

    def _failure(self, what: str, code: int | None = None) -> LaunchError:
        self._read_log()
        model, took = self._spec.model, time.monotonic() - self._began
        when = f"after {took:.1f} s while {self._progress.phase}"
        text = f"model {model!r}: engine {what}, {when}; see 'roundhouse logs {model}'"
        return LaunchError(model, text, code=code)
