"""Residency's side of the engine host: have one, ask it for servers, do without it.

Nothing depends on the host. Whatever is odd about it costs speed only: the start is made the stock way.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from roundhouse.config import paths
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.child import Child, Spec
from roundhouse.launchers.process.records import Record, kill_session, read_record

log = logging.getLogger("roundhouse.engine_host")

NAME = "engine-host"
PROGRAM = Path(__file__).resolve().parent / "host" / "__main__.py"
UNSUPPORTED = 3
"""The host's exit code where it cannot work: another vLLM, or a system on which vLLM does not fork."""

LATE = frozenset({"VLLM_API_KEY", "VLLM_RPC_BASE_PATH", "VLLM_SERVER_DEV_MODE", "TMPDIR"})
"""Variables that vLLM reads when a server starts (the last but one also in an import, for the default of a flag that
every server is given). Any other might be read by an import, so that a model
which sets one cannot come from the host."""

IMPORT_S = 90.0
"""How long a start waits for a host that still imports: the stock way makes the same imports, and twice."""

FORK_S = 10.0
"""A fork takes milliseconds; a host that has not answered by then is stuck."""

EXIT_S = 1.0
"""A host that has hung up and lives after so long is stuck."""

BACKOFF_FIRST_S, BACKOFF_MAX_S = 5.0, 300.0
"""Pause before another host after one has died."""

HOST_BYTES_CPU, HOST_BYTES_CUDA = 400 * 2**20, 650 * 2**20
"""What the host has for itself, RAM that nobody else can have: measured were 350 MiB with vLLM for the CPU, warmed for
four models, and 611 MiB with vLLM for CUDA, warmed for three (anonymous memory of the whole process)."""

ROOM_BYTES = 4 * 2**30
"""Available memory below which no host is started: importing vLLM takes 0.6 GiB, an engine more."""

SHORT_BYTES = 1 * 2**30
"""Available memory below which the host is dropped."""

CHECK_S = 10.0


class HostError(Exception):
    """The host cannot start this engine; the stock way can. ``lasting``: it will not be able to later either."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        self.why, self.lasting = why, lasting
        super().__init__(why)


@dataclass(frozen=True)
class HostSpec:
    """What the host is: another one of these is not taken over."""

    python: Path
    env: Mapping[str, str]
    cpu: bool
    warm: Sequence[str]

    @property
    def argv(self) -> list[str]:
        """Its command, without the listening socket."""
        flags = ["--cpu"] if self.cpu else []
        return [str(self.python), "-P", str(PROGRAM), *flags, *(f"--warm={model}" for model in self.warm)]

    @property
    def ram(self) -> int:
        """Bytes that it is going to have for itself."""
        return HOST_BYTES_CPU if self.cpu else HOST_BYTES_CUDA

    @property
    def identity(self) -> str:
        """Tells a host of this configuration from another. Secrets are not in its environment."""
        return hashlib.sha256(json.dumps([self.argv, sorted(self.env.items())]).encode()).hexdigest()

    def late(self, env: Mapping[str, str]) -> dict[str, str]:
        """What a server's ``env`` has beside the host's. Raises HostError if that may come too late."""
        extra = {name: value for name, value in env.items() if self.env.get(name) != value}
        odd = sorted((set(extra) | (set(self.env) - set(env))) - LATE)
        if odd:
            raise HostError(f"it has variables of its own ({', '.join(odd)})", lasting=True)
        return extra


class EngineHost:
    """One host for one engine environment. ``run`` keeps it; everything happens on one event loop."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self._state = "off"
        self._settled = asyncio.Event()  # it does not import
        self._settled.set()
        self._record: Record | None = None
        self._process: subprocess.Popen[bytes] | None = None  # it was started here, not taken over
        self._writer: asyncio.StreamWriter | None = None
        self._holds = 0
        self._ids = itertools.count(1)
        self._starts: dict[int, asyncio.Future[int]] = {}
        self._codes: dict[int, asyncio.Future[int | None]] = {}

    # --- for the launchers ------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """What it does: ``off``, ``importing``, ``ready``, ``dropped`` (memory is short) or ``unsupported``."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._state = state
        if state == "importing":
            self._settled.clear()
        else:
            self._settled.set()

    @property
    def pid(self) -> int | None:
        """The host's process."""
        return self._record.pid if self._record is not None else None

    def status(self) -> dict[str, Any]:
        """For people: what it does, and how much memory is its alone (bytes)."""
        memory = None
        if self.pid is not None:
            with suppress(psutil.Error):
                memory = psutil.Process(self.pid).memory_full_info().uss
        return {"state": self.state, "pid": self.pid, "unique_bytes": memory}

    async def settled(self) -> None:
        """Wait while it imports, for IMPORT_S at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(IMPORT_S):
                await self._settled.wait()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While an engine starts the stock way, a host that still imports stands still: somebody waits."""
        self._holds += 1
        self._signal()
        try:
            yield
        finally:
            self._holds -= 1
            self._signal()

    def _signal(self) -> None:
        self._send(signal.SIGSTOP if self._holds and self.state == "importing" else signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._record is not None and self._record.alive:  # and no other process with its pid
            with suppress(ProcessLookupError):
                os.kill(self._record.pid, number)

    async def spawn(self, spec: Spec, arguments: Sequence[str]) -> Child:
        """A server for ``spec`` with vLLM's ``arguments``, forked and recorded.

        Raises:
            HostError: it cannot; nothing of it is there.
        """
        if self.state != "ready":
            raise HostError(f"the host is {self.state}")
        late = self.spec.late(spec.env)
        spec.prepare()
        pid = await self._fork(spec, arguments, late)
        try:
            born = Birth.of(pid)
        except ProcessLookupError:
            raise HostError("the fork died at once") from None
        record = Record(spec.model, pid, born, spec.identity, spec.port)
        record.write(spec.records)
        child = Child(spec, record, code=self._code(pid))
        self._say({"op": "go", "pid": pid})
        return child

    async def _fork(self, spec: Spec, arguments: Sequence[str], late: Mapping[str, str]) -> int:
        """The pid of a fork that waits for its go."""
        id_ = next(self._ids)
        started = self._starts[id_] = asyncio.get_running_loop().create_future()
        job = {"argv": list(arguments), "env": late, "log": str(spec.log)}
        self._say({"op": "start", "id": id_, **job})
        try:
            async with asyncio.timeout(FORK_S):
                return await asyncio.shield(started)
        except BaseException as error:
            started.add_done_callback(self._drop)
            if isinstance(error, TimeoutError):
                raise HostError(f"no answer to a fork in {FORK_S:.0f} s") from None
            raise

    def _drop(self, started: asyncio.Future[int]) -> None:
        if not started.cancelled() and started.exception() is None:
            self._say({"op": "drop", "pid": started.result()})

    def _code(self, pid: int) -> asyncio.Future[int | None]:
        return self._codes.setdefault(pid, asyncio.get_running_loop().create_future())

    # --- the connection ---------------------------------------------------------------------------

    def _say(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def run(self) -> None:
        """Have a host, and another one after a crash. Ends when cancelled, and the host with it."""
        try:
            await self._keep()
        finally:
            await self._end()
        self.state = "unsupported"
        log.warning("event=host_unsupported text=%r", logs.last_words(self._log))

    async def _keep(self) -> None:
        """Return only when there can be no host."""
        pause = BACKOFF_FIRST_S
        while True:
            began = time.monotonic()
            try:
                if self._left() is None:
                    await self._room()
                    self._start()
                why = await self._converse()
            except OSError as error:
                why = f"it cannot be run: {error}"
            code = await asyncio.to_thread(_exit_code, self._process)
            await self._end()
            if code == UNSUPPORTED:
                return
            if time.monotonic() - began > BACKOFF_MAX_S:
                pause = BACKOFF_FIRST_S
            log.warning("event=host_lost why=%r code=%s", why, code)
            await asyncio.sleep(pause)
            pause = min(BACKOFF_MAX_S, pause * 2)

    def _left(self) -> Record | None:
        """The host that an earlier residency had, if it can be used; else its end."""
        record = read_record(paths.host_records(), NAME)
        if record is None:
            return None
        if record.alive and record.identity == self.spec.identity:
            self._record, self.state = record, "importing"
            self._signal()  # it may have been left standing still
            return record
        kill_session(record.pid, record.born)
        record.remove(paths.host_records())
        return None

    async def _room(self) -> None:
        """Return once there is memory for a host."""
        while psutil.virtual_memory().available < ROOM_BYTES:
            self.state = "dropped"
            await asyncio.sleep(CHECK_S)  # the kernel has no event for it that every system offers

    def _start(self) -> None:
        path = paths.host_socket()
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            mask = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(mask)
            listener.listen()
            logs.rotate(self._log)
            out = logs.open_for_writing(self._log)
            try:
                self._process = process = subprocess.Popen(
                    [*self.spec.argv, f"--fd={listener.fileno()}"],
                    pass_fds=[listener.fileno()],
                    env=dict(self.spec.env),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            finally:
                os.close(out)
        born = Birth.of(process.pid)
        self._record, self.state = Record(NAME, process.pid, born, self.spec.identity, 0), "importing"
        self._record.write(paths.host_records())
        self._signal()

    async def _converse(self) -> str:
        """Listen to the host until it is gone; why it is."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(str(paths.host_socket()))
        except OSError as error:
            return f"no connection: {error.strerror}"
        why = "it ended"
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch_memory(), name="engine host's memory")
            try:
                while line := await reader.readline():
                    self._take(json.loads(line))
            except (OSError, ValueError) as error:
                why = f"{type(error).__name__}: {error}"
            watch.cancel()
        return why

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            logs.truncate_if_long(self._log)
            if psutil.virtual_memory().available < SHORT_BYTES:
                log.warning("event=host_dropped why='memory is short'")
                self._send(signal.SIGKILL)

    def _take(self, message: dict[str, Any]) -> None:
        match message["event"]:
            case "ready":
                self.state = "ready"
                log.info("event=host_ready pid=%s import_s=%s", self.pid, message["import_s"])
            case "started":
                self._starts.pop(message["id"]).set_result(message["pid"])
            case "refused":
                self._starts.pop(message["id"]).set_exception(HostError(message["why"], lasting=message["lasting"]))
            case "exited":
                self._code(message["pid"]).set_result(message["code"])
                del self._codes[message["pid"]]

    async def _end(self) -> None:
        """No host any more, and nobody waits for it. Its servers go on."""
        self._send(signal.SIGKILL)
        if self._record is not None:
            self._record.remove(paths.host_records())
        self._record, self.state = None, "off"
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for started in self._starts.values():
            started.set_exception(HostError("the host died"))
            started.exception()
        for code in self._codes.values():
            code.set_result(None)
        self._starts.clear()
        self._codes.clear()
        if self._process is not None:
            process, self._process = self._process, None
            await asyncio.to_thread(process.wait)

    @property
    def _log(self) -> Path:
        return paths.log_dir() / "vllm-host.log"


def _exit_code(process: subprocess.Popen[bytes] | None) -> int | None:
    """How a host that hung up has ended: it does both at once. ``None``: it has not, or it was not our child."""
    if process is None:
        return None
    try:
        return process.wait(EXIT_S)
    except subprocess.TimeoutExpired:
        return None
