"""Run records: what is needed to find an engine again after residency has died, and to end what is left.

A record is one JSON file per engine. A process is the recorded one only if its start time agrees too,
because pids are used again. Everything an engine starts is in its session, so the session finds the
children of an engine whose main process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

CLOCK_TOLERANCE_S = 0.05
"""Start times come from the kernel's ticks (10 ms): two readings of one process may differ by rounding."""

GONE_S = 10.0
"""After SIGKILL a process is gone as soon as the kernel has freed its memory; a card's driver may take seconds."""

POLL_S = 0.005

TRACKER_S = 2.0
"""How long Python's resource tracker may take once those who use it are gone: it has a few names to remove."""


@dataclass(frozen=True, slots=True)
class Record:
    """One engine: main process, its start time (seconds since the epoch), session, and what it runs.

    ``asleep``: the level at which it sleeps. ``moving``: it is on the way to another state, or was when whoever
    looked after it died. ``probe``: what it answered before it first slept.
    """

    model: str
    pid: int
    created: float
    identity: str
    port: int
    asleep: int | None = None
    moving: bool = False
    probe: str | list[float] | None = None

    def write(self, folder: Path) -> None:
        """Write the record, all or nothing, for this user only."""
        path = folder / f"{self.model.replace('/', '_')}.json"
        temporary = path.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(path)

    def remove(self, folder: Path) -> None:
        """Forget the engine."""
        (folder / f"{self.model.replace('/', '_')}.json").unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        """Whether the recorded main process, and no other with its pid, runs."""
        return is_process(self.pid, self.created)

    def members(self) -> list[psutil.Process]:
        """Every living process of the engine: the main one and whatever is in its session."""
        return session(self.pid, self.created)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. A zombie has, once its last thread has: until then its memory and ports are taken."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def is_process(pid: int, created: float) -> bool:
    """Whether process ``pid`` runs and was started at ``created``."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < CLOCK_TOLERANCE_S and runs(process)
    except psutil.NoSuchProcess:
        return False


def session(sid: int, created: float) -> list[psutil.Process]:
    """The running processes of session ``sid`` that are not older than ``created``.

    The leader's start time tells a used-again pid apart: an unrelated later session of that id has a leader
    with another start time, and then nothing of ours is left in it.
    """
    try:
        leader = psutil.Process(sid)
        if abs(leader.create_time() - created) >= CLOCK_TOLERANCE_S:
            return []
    except psutil.NoSuchProcess:
        pass
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) != sid:  # asked first, because it costs a microsecond and the rest a file each
                continue
            process = psutil.Process(pid)
            if process.create_time() >= created - CLOCK_TOLERANCE_S and runs(process):
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            continue
    return found


def kill_session(sid: int, created: float) -> bool:
    """SIGKILL to everything in the session until nothing of it is left; whether that came about in GONE_S.

    Resource trackers come last: they end by themselves, and remove the semaphores and shared memory of the killed.
    """
    began = time.monotonic()
    while members := session(sid, created):
        late = time.monotonic() - began > TRACKER_S
        for process in members:
            if late or not _is_tracker(process):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        if time.monotonic() - began > GONE_S:
            return False
        time.sleep(POLL_S)  # a thread of its own waits here; the kernel has no event for "the last of a session"
    return True


def _is_tracker(process: psutil.Process) -> bool:
    """Whether it is the process that Python's multiprocessing starts to clean up after others."""
    try:
        return any("multiprocessing.resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def read_records(folder: Path) -> list[Record]:
    """All records that can be read; a broken file is no record."""
    records = []
    for path in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            records.append(Record(**json.loads(path.read_text())))
    return records


def read_record(folder: Path, model: str) -> Record | None:
    """The record of ``model``, if there is one."""
    return next((record for record in read_records(folder) if record.model == model), None)


def sweep(folder: Path, keep: Collection[int] = ()) -> list[str]:
    """End every recorded engine whose main pid is not in ``keep``; the models that were ended.

    Works also when only children of an engine are left. Blocks for up to GONE_S.
    """
    ended = []
    for record in read_records(folder):
        if record.pid in keep:
            continue
        if record.members():
            ended.append(record.model)
        if kill_session(record.pid, record.created):
            record.remove(folder)
    return ended
