"""``python -m roundhouse.residency``: a small parent that keeps one residency process alive.

The parent opens the control socket and passes it on, so that clients wait out a crash in its backlog
instead of being refused; the engines go on meanwhile and are adopted. It uses the standard library
alone, because it does nothing but wait.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.1, 10.0
"""Pause before a restart, doubled each time: at first nobody notices, later a broken machine has peace."""

HEALTHY_S = 30.0
"""A process that has lived this long has recovered: its next crash counts as the first."""

BACKLOG = 1024
PR_SET_PDEATHSIG = 1
EXIT_DONE, EXIT_CONFIG = 0, 2


def listen(path: Path) -> socket.socket:
    """Open the control socket at ``path``, for this user only.

    Raises:
        SystemExit: another residency uses this home.
    """
    lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"residency: another one is running with the same home ({path}); stop it with 'roundhouse down'")
    with suppress(FileNotFoundError):
        path.unlink()  # left by a parent that was killed; the lock says that nobody uses it
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    return listener


def _die_with_parent() -> None:
    """In the child: SIGTERM if the parent dies, so that engines are stopped and not left behind."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def supervise(listener: socket.socket) -> int:
    """Run the service and run it again after a crash; the exit code of its orderly end."""
    child: subprocess.Popen[bytes] | None = None
    ending = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        ending.set()
        if child is not None:
            child.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    pause = BACKOFF_FIRST_S
    fd = listener.fileno()
    while True:
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", __package__, "--fd", str(fd)], pass_fds=[fd], preexec_fn=_die_with_parent
        )
        if ending.is_set():  # the signal came before the child was known
            child.send_signal(signal.SIGTERM)
        code = child.wait()
        if ending.is_set() or code in (EXIT_DONE, EXIT_CONFIG):
            return EXIT_DONE if ending.is_set() else code
        if time.monotonic() - began > HEALTHY_S:
            pause = BACKOFF_FIRST_S
        print(
            f"residency ended with code {code}; starting it again in {pause:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        if ending.wait(pause):
            return EXIT_DONE
        pause = min(BACKOFF_MAX_S, pause * 2)


def main() -> int:
    """The parent, or with ``--fd N`` the service itself."""
    if "--fd" in sys.argv:
        from roundhouse.residency.server import service

        return service.main(int(sys.argv[sys.argv.index("--fd") + 1]))
    from roundhouse.config import paths, surroundings
    from roundhouse.deploy.services import pids

    surroundings.enter(surroundings.Service.RESIDENCY)
    pids.record("residency")
    return supervise(listen(paths.control_socket()))


if __name__ == "__main__":
    sys.exit(main())
