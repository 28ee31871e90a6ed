"""An engine's log file: rotated at every start and when it has grown too long; followed while it starts."""

from __future__ import annotations

import os
import re
from pathlib import Path

KEEP = 3
"""Logs of earlier starts that are kept: ``.1`` is the last one."""

MAX_BYTES = 20 * 2**20
"""Past this the log is copied away and emptied: some hundred thousand requests."""

_TROUBLE = re.compile(r"\b(\w*Error|\w*Exception|error|fatal|CUDA|Killed)\b", re.IGNORECASE)
_PREFIX = re.compile(r"^\([\w ]+ pid=\d+\)\s*")


def rotate(path: Path) -> None:
    """Move the logs up by one: ``log`` becomes ``log.1``, and so on; the oldest goes."""
    for number in range(KEEP, 0, -1):
        source = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if source.exists():
            source.replace(path.with_name(f"{path.name}.{number}"))


def truncate_if_long(path: Path) -> None:
    """Copy a log past MAX_BYTES to ``.1`` and empty it; its writer appends, so it goes on at the start."""
    if not path.exists() or path.stat().st_size <= MAX_BYTES:
        return
    path.with_name(f"{path.name}.1").write_bytes(path.read_bytes())
    os.truncate(path, 0)


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
            if self._path.stat().st_size <= self._at:
                return []
        except FileNotFoundError:
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
