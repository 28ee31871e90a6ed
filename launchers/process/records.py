"""Run records: what is needed to find an engine again after residency has died, and to end what is left.

A record is one JSON file per engine. A process is the recorded one only if its birth agrees too,
because pids are used again. Everything an engine starts is in its session, so the session finds the
children of an engine whose main process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from roundhouse.launchers.process.birth import Birth, boot_id
from roundhouse.launchers.process.file_names import older_stem, stem

GONE_S = 10.0
"""After SIGKILL a process is gone as soon as the kernel has freed its memory; a card's driver may take seconds."""

POLL_S = 0.005

TRACKER_S = 2.0
"""How long Python's resource tracker may take once those who use it are gone: it has a few names to remove."""


@dataclass(frozen=True, slots=True)
class Record:
    """One engine: main process (the leader of its session), when that was born, and what it runs.

    ``asleep``: the level at which it sleeps. ``moving``: it is on the way to another state, or was when whoever
    looked after it died. ``probe``: what it answered before it first slept.
    """

    model: str
    pid: int
    born: Birth
    identity: str
    port: int
    asleep: int | None = None
    moving: bool = False
    probe: str | list[float] | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """The record in a file of this version or of one before. Raises KeyError, TypeError or ValueError."""
        document = json.loads(text)
        born = Birth.read(document)
        if document.pop("created", None) is not None and _listens(document["pid"], document["port"]):
            born = _oldest(document["pid"])  # it is the engine, though the clock may have been set since
        return cls(**{**document, "born": born})

    def write(self, folder: Path) -> None:
        """Write the record, all or nothing, for this user only."""
        path = folder / f"{stem(self.model)}.json"
        temporary = path.with_suffix(".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(self), file)
        temporary.replace(path)
        self._remove_older(folder)

    def remove(self, folder: Path) -> None:
        """Forget the engine."""
        (folder / f"{stem(self.model)}.json").unlink(missing_ok=True)
        self._remove_older(folder)

    def _remove_older(self, folder: Path) -> None:
        """Remove the file of a version before, if it is this model's: others may have had the same."""
        path = folder / f"{older_stem(self.model)}.json"
        if path.name != f"{stem(self.model)}.json":
            with suppress(OSError, KeyError, TypeError, ValueError):
                if Record.read(path.read_text()).model == self.model:
                    path.unlink(missing_ok=True)

    @property
    def alive(self) -> bool:
        """Whether the recorded main process, and no other with its pid, runs."""
        return is_process(self.pid, self.born)

    def members(self) -> list[psutil.Process]:
        """Every living process of the engine: the main one and whatever is in its session."""
        return session(self.pid, self.born)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. A zombie has, once its last thread has: until then its memory and ports are taken."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


def is_process(pid: int, born: Birth) -> bool:
    """Whether process ``pid`` runs and was born then."""
    try:
        return Birth.of(pid) == born and runs(psutil.Process(pid))
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def session(sid: int, born: Birth) -> list[psutil.Process]:
    """The running processes of session ``sid`` that are not older than ``born``.

    The leader's birth tells a used-again pid apart: an unrelated later session of that id has a leader
    that was born then, and nothing of ours is left in it. After another boot nothing is left at all.
    """
    if born.boot != boot_id():
        return []
    with suppress(ProcessLookupError):
        if Birth.of(sid) != born:
            return []
    found = []
    for pid in _pids(sid):
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if Birth.of(pid).ticks >= born.ticks and runs(process := psutil.Process(pid)):
                found.append(process)
    return found


def _pids(sid: int) -> Iterator[int]:
    """Everything in session ``sid``, whoever it belongs to."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == sid:  # costs a microsecond; anything else of a process costs reading a file
                yield pid


def _listens(sid: int, port: int) -> bool:
    """Whether anything in session ``sid`` has the engine's port."""
    for pid in _pids(sid):
        with suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


def _oldest(sid: int) -> Birth:
    """The birth by which all is found that is in session ``sid`` now: its leader's, if that is there."""
    try:
        return Birth.of(sid)
    except ProcessLookupError:
        return Birth(boot_id(), 0)


def kill_session(sid: int, born: Birth) -> bool:
    """SIGKILL to everything in the session until nothing of it is left; whether that came about in GONE_S.

    Resource trackers come last: they end by themselves, and remove the semaphores and shared memory of the killed.
    """
    began = time.monotonic()
    while members := session(sid, born):
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
        with suppress(OSError, KeyError, TypeError, ValueError):
            records.append(Record.read(path.read_text()))
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
        if kill_session(record.pid, record.born):
            record.remove(folder)
    return ended
