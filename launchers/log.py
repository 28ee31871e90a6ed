"""An engine's log file: rotated at every start and when it has grown too long; followed while it starts."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

KEEP = 3
"""Logs of earlier starts that are kept: ``.1`` is the last one."""

MAX_BYTES = 20 * 2**20
"""Past this the log is set aside: some hundred thousand requests."""

COPY_BYTES = 2**20

FORGOTTEN_S = 30 * 86400.0
"""A log that nothing was written to for so long goes: its model is not used any more."""

_TROUBLE = re.compile(r"\b(\w*Error|\w*Exception|error|fatal|CUDA|Killed)\b", re.IGNORECASE)
_PREFIX = re.compile(r"^\([\w ]+ pid=\d+\)\s*")


def rotate(path: Path, keep: int = KEEP) -> None:
    """Move the logs up by one: ``log`` becomes ``log.1``, and so on; the oldest goes."""
    for number in range(keep, 0, -1):
        source = path if number == 1 else _earlier(path, number - 1)
        if source.exists():
            source.replace(_earlier(path, number))


def truncate_if_long(path: Path) -> None:
    """Copy the end of a log past MAX_BYTES to ``.1`` and empty it; its writer appends, so it goes on at the start.

    Where there is no room for the copy the log is emptied all the same.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size <= MAX_BYTES:
        return
    for number in range(KEEP, 1, -1):
        if _earlier(path, number - 1).exists():
            _earlier(path, number - 1).replace(_earlier(path, number))
    first = _earlier(path, 1)
    first.unlink(missing_ok=True)
    try:
        with path.open("rb") as source, os.fdopen(open_for_writing(first), "wb") as copy:
            source.seek(size - MAX_BYTES)
            shutil.copyfileobj(source, copy, COPY_BYTES)
            os.truncate(path, 0)  # at once: what is written between the last read and this is lost
    except OSError:
        first.unlink(missing_ok=True)
        os.truncate(path, 0)


def sweep(folder: Path, keep: Collection[str], now: float) -> None:
    """Remove logs of engines and of the set-up that are FORGOTTEN_S old at ``now`` (seconds since the epoch).

    Those named in ``keep`` stay: a silent engine may still have its log open.
    """
    for path in (*folder.glob("engine-*.log*"), *folder.glob("setup-*.log")):
        with suppress(OSError):
            if path.name not in keep and now - path.stat().st_mtime > FORGOTTEN_S:
                path.unlink()


def _earlier(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def open_for_writing(path: Path) -> int:
    """A file descriptor that appends to ``path``, for this user only."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class Follower:
    """Reads the complete lines that were added since it looked last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def lines(self) -> list[str]:
        """The new lines; an unfinished one comes with the next call. Progress bars count as lines."""
        try:
            size = self._path.stat().st_size
        except FileNotFoundError:
            return []
        if size < self._at:  # emptied meanwhile
            self._at = 0
        if size <= self._at:
            return []
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        self._at += end
        return re.split(r"[\r\n]+", data[:end].decode("utf-8", "replace"))


def last_words(path: Path, count: int = 1) -> str:
    """What a person should see of a failed engine's log: its last line of trouble, else its last line."""
    try:
        lines = path.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return ""
    lines = [_PREFIX.sub("", line).strip() for line in lines]
    lines = [line for line in lines if line]
    trouble = [line for line in lines if _TROUBLE.search(line)]
    return " | ".join((trouble or lines)[-count:])[:400]
