"""What the Procfile's lines that keep a server running have in common: they stay, whatever happens to the server."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from roundhouse.config import paths
from roundhouse.launchers.process.birth import Birth

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
SETTLED_S = 10.0
"""A server that lived so long starts with the short pause again."""

ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1

Child = subprocess.Popen[bytes]


def begin() -> None:
    """Take signals one by one from now on. Call it before the first child is started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDINGS, signal.SIGCHLD})


def idle(name: str, why: str) -> int:
    """Say why there is nothing to do, and stay until told to end: the process manager ends all when one ends."""
    print(f"{name}: {why}", flush=True)
    signal.sigwait(set(ENDINGS))
    return 0


@contextmanager
def only_one(name: str) -> Iterator[bool]:
    """Hold this home's lock of the service ``name``; False if another process has it."""
    descriptor = os.open(paths.run_dir() / f"{name}.lock", os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def keep_running(
    name: str, record: Path, start: Callable[[], Child], why: Callable[[], str] = lambda: ""
) -> Child | None:
    """Start the server, and again whenever it ends, until this process is told to end.

    ``record`` is where the server's pid stands meanwhile; ``why`` may add to the line about a server that ended.
    Returns the server that runs at the end, if one does; the caller stops it.
    """
    pause_s = FIRST_PAUSE_S
    while True:
        began = time.monotonic()
        child = start()
        with suppress(OSError):  # it can be found without that too: a full disk is no reason to do without it
            write_record(record, child.pid)
        code = _wait(child)
        if code is None:
            return child
        record.unlink(missing_ok=True)
        if time.monotonic() - began > SETTLED_S:
            pause_s = FIRST_PAUSE_S
        print(f"{name}: server ended ({code}){why()}; starts again in {pause_s:.1f} s", flush=True)
        if signal.sigtimedwait(ENDINGS, pause_s):
            return None
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def in_child(number: signal.Signals) -> Callable[[], None]:
    """A ``preexec_fn``: signals as usual, and ``number`` if this process dies.

    It is safe while this process has one thread. It runs after the change of account, which it must:
    the kernel forgets the wish at such a change.
    """
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


def write_private(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only this user reads, or ``owner`` (uid, gid), at once or not at all."""
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        if owner:
            os.fchown(file.fileno(), *owner)  # by descriptor: in a folder of theirs the name could be a link by now
    os.replace(fresh, path)


def write_record(path: Path, pid: int) -> None:
    """Note a process, with its birth, for who looks for it later. Raises OSError."""
    write_private(path, json.dumps({"pid": pid, "born": asdict(Birth.of(pid))}))


def _wait(child: Child) -> int | None:
    """The server's exit code, or None when we are told to end."""
    while True:
        number = signal.sigwait({*ENDINGS, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            return None
        code = child.poll()
        if code is not None:
            return code
