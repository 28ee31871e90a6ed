"""One engine as one process group: spawned, watched, stopped, and nothing of it left behind."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roundhouse.launchers.base import EngineExit, Progress, Sleeper, SleepError
from roundhouse.launchers.process import log as logs
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.records import Record, kill_session, session

log = logging.getLogger("roundhouse.launchers")

SECOND_TERM_S = 5.0
"""vLLM can swallow a SIGTERM while it starts or hang on open connections; a second one ends it in some seconds."""

STRAGGLERS_S = 1.0
"""vLLM's EngineCore outlives its API server by about 0.1 s; past this it is not going to end by itself."""

CODE_S = 1.0
"""How long the engine host may take to tell the exit code of a child that is gone."""

STUCK_S = 5.0
"""What survives SIGKILL hangs in the driver, for seconds or for ever: how often it is killed again, and said."""

POLL_S = 0.005
LOG_CHECK_S = 60.0


def no_phases(before: Progress, line: str) -> Progress | None:
    """The log of an engine of which nothing is known tells nothing."""
    return None


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything needed to run one engine.

    ``identity`` tells whether a running one is of this configuration; ``scratch`` is a folder that is the
    engine's alone, empty when it starts and gone when it has ended; ``sleeper`` is how it is put to sleep;
    ``phases`` tells how far a start has come by a line of its log, ``None``: no further than before.
    """

    model: str
    argv: Sequence[str]
    env: Mapping[str, str]
    port: int
    health_path: str
    identity: str
    log: Path
    records: Path
    start_timeout_s: float
    stop_grace_s: float
    scratch: Path | None = None
    sleeper: Sleeper | None = None
    phases: Callable[[Progress, str], Progress | None] = no_phases

    def prepare(self) -> None:
        """Have the log and the folders as a start wants them."""
        logs.rotate(self.log)
        self.clear()
        if self.scratch is not None:
            self.scratch.mkdir(mode=0o700)

    def clear(self) -> None:
        """Remove what an engine that has ended leaves in its folder."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)


class Child:
    """A process group: our child, a child of the engine host that tells us its exit ``code``, or adopted."""

    def __init__(
        self,
        spec: Spec,
        record: Record,
        *,
        popen: subprocess.Popen[bytes] | None = None,
        code: asyncio.Future[int | None] | None = None,
    ) -> None:
        self._spec = spec
        self._record = record
        self._popen = popen
        self._code = code
        self._gone = asyncio.Event()
        self._stopping = asyncio.Lock()
        self._fd: int | None = None
        try:
            self._fd = os.pidfd_open(record.pid)
        except ProcessLookupError:
            self._gone.set()
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._main_is_gone)

    @classmethod
    def spawn(cls, spec: Spec) -> Child:
        """Start the engine in a session of its own and record it. Raises OSError if it cannot be executed."""
        spec.prepare()
        out = logs.open_for_writing(spec.log)
        try:
            popen = subprocess.Popen(
                list(spec.argv),
                env=dict(spec.env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        finally:
            os.close(out)
        record = Record(spec.model, popen.pid, Birth.of(popen.pid), spec.identity, spec.port)
        record.write(spec.records)
        return cls(spec, record, popen=popen)

    @property
    def pid(self) -> int:
        """The main process: for vLLM its API server."""
        return self._record.pid

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return not self._gone.is_set()

    def pids(self) -> frozenset[int]:
        """Every living process of its session."""
        return frozenset(process.pid for process in session(self.pid, self._record.born))

    @property
    def asleep(self) -> int | None:
        """The level at which it sleeps, ``None`` while it is awake."""
        return self._record.asleep

    async def sleep(self, level: int) -> None:
        """Put it to sleep, and before it ever slept learn what it answers to the probe. Raises SleepError."""
        sleeper = self._sleeper()
        if self.asleep is not None:  # vLLM would say 200 and stay at the level where it is
            raise SleepError(self._spec.model, f"model {self._spec.model!r}: it sleeps already")
        with self._last_words():
            if self._record.probe is None:
                self._note(probe=await sleeper.probe())
            self._note(moving=True)
            await sleeper.sleep(level)
            self._note(moving=False, asleep=level)

    async def wake(self) -> None:
        """Wake it and compare what it answers with what it answered before. Raises SleepError."""
        sleeper, level, probe = self._sleeper(), self._record.asleep, self._record.probe
        if level is None or probe is None:
            raise SleepError(self._spec.model, f"model {self._spec.model!r}: it is not asleep")
        with self._last_words():
            self._note(moving=True)
            await sleeper.wake(level)
            await sleeper.require(probe)
            self._note(moving=False, asleep=None)

    async def as_recorded(self) -> bool:
        """Whether it is awake or asleep as its record says, and not on the way between: if not, nobody knows."""
        if self._record.moving:
            return False
        if self._spec.sleeper is None:
            return self._record.asleep is None
        with suppress(SleepError):
            return await self._spec.sleeper.asleep() == (self._record.asleep is not None)
        return False

    def _sleeper(self) -> Sleeper:
        if self._spec.sleeper is None:
            raise SleepError(self._spec.model, f"model {self._spec.model!r}: its engine cannot sleep")
        return self._spec.sleeper

    def _note(self, **changes: Any) -> None:
        """Change the record, here and on disk: whoever adopts the engine has to know. A dead one's stays removed."""
        self._record = replace(self._record, **changes)
        if self.alive:
            self._record.write(self._spec.records)

    @contextmanager
    def _last_words(self) -> Iterator[None]:
        """Add the end of the engine's log to a SleepError: it says why, as the answer does not."""
        try:
            yield
        except SleepError as error:
            raise SleepError(error.model, error.text + logs.quoted(self._spec.log)) from error

    def _main_is_gone(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
        if self._popen is not None:
            self._popen.poll()
        self._gone.set()

    async def exited(self) -> EngineExit:
        """Return when the main process is gone; meanwhile keep its log short."""
        while self.alive:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), LOG_CHECK_S)
            logs.truncate_if_long(self._spec.log)
        code = self._popen.poll() if self._popen is not None else None
        if self._code is not None:
            with suppress(TimeoutError):
                code = await asyncio.wait_for(asyncio.shield(self._code), CODE_S)
        return EngineExit(code, self.describe(code))

    def describe(self, code: int | None) -> str:
        """How it ended, in words, with its last log line."""
        if code is None:
            how = "ended"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"exited (code {code})"
        return f"engine {how}" + logs.quoted(self._spec.log)

    async def stop(self, force: bool = False) -> None:
        """End the group; on return nothing of it is left, however long that takes: it may hold memory of the device.

        Without ``force``: SIGTERM to the main process alone (the group's other processes are ended by it),
        its grace, SIGTERM again, then SIGKILL to whatever is left. A call with ``force`` hurries one without.
        """
        if force:
            await self._kill()
        async with self._stopping:
            if not force and not await self._end_by_term():
                await self._kill()
            await self._kill_stragglers(0.0 if force else STRAGGLERS_S)
            self._record.remove(self._spec.records)
            self._spec.clear()

    async def _end_by_term(self) -> bool:
        """Whether the main process ended by itself after one or two SIGTERMs."""
        for patience in (self._spec.stop_grace_s, SECOND_TERM_S):
            if not self.alive:
                return True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), patience)
        return not self.alive

    async def _kill(self) -> None:
        while self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # the rest of its session follows, in an order of its own
            try:
                await asyncio.wait_for(self._gone.wait(), STUCK_S)
            except TimeoutError:
                self._say_stuck()

    async def _kill_stragglers(self, patience_s: float) -> None:
        """Wait for the rest of the session, then kill it, until nothing is left."""
        deadline = time.monotonic() + patience_s
        while session(self.pid, self._record.born):
            if time.monotonic() < deadline:
                await asyncio.sleep(POLL_S)  # the kernel has no event for "the last process of a session"
            elif not await asyncio.to_thread(kill_session, self.pid, self._record.born):
                self._say_stuck()
                await asyncio.sleep(STUCK_S)

    def _say_stuck(self) -> None:
        text = "processes survive SIGKILL, and may hold memory of the device: it waits until they are gone"
        log.error("event=stuck model=%s pids=%s text=%r", self._spec.model, sorted(self.pids()), text)
