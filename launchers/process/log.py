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

TAIL_BYTES, TAIL_LINES = 120_000, 400
"""How much of a log is looked at for why an engine ended: vLLM writes the cause, then up to three tracebacks of those
who only heard of it, a hundred lines each time; what stands further up belongs to a request that is long over."""

MOST_CHARS = 600
"""What a message shows of it: vLLM's longest, on room for the cache, ends with its remedy after some 500."""

_PREFIX = re.compile(r"^\([^()]* pid=\d+\) ?")
_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?")
_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt)(?:: (?P<text>.*))?$")
_TROUBLE = re.compile(r"\b(\w*Error|\w*Exception|error|fatal|failed|CUDA|Killed)\b", re.IGNORECASE)
_HEARSAY = re.compile(
    r"\bsee (?:the )?(?:root cause|stack trace|above)|Failed core proc|failed to start\.$|encountered a fatal error"
    r"|died unexpectedly|exiting due to|\b(?:SystemExit|CancelledError|KeyboardInterrupt)\b",
    re.IGNORECASE,
)
"""Lines of those who only heard of it: vLLM's server of its engine core, that of its worker; llama.cpp's last one."""


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


def last_words(path: Path) -> str:
    """What a person should see of a failed engine's log: why it failed; where nothing says so, its last line."""
    try:
        text = path.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line for line in map(_bare, re.split(r"[\r\n]+", text)[-TAIL_LINES:]) if line.strip()]
    return (_exception(lines) or _trouble(lines) or next(reversed(lines), "")).strip()[:MOST_CHARS]


def quoted(path: Path) -> str:
    """The last words, as the end of a message; empty if there are none."""
    words = last_words(path)
    return f'; last log line: "{words}"' if words else ""


def _bare(line: str) -> str:
    """A line without who wrote it, when and where; what is no trouble by its level is put behind what may be."""
    line = _PREFIX.sub("", line)
    level = _LEVEL.match(line)
    if level is None:
        return line
    rest = line[level.end() :]
    return rest if level[1] in ("ERROR", "CRITICAL") else f"{level[1]} {rest}"


def _exception(lines: list[str]) -> str:
    """The last exception that is the cause of others, and no hearsay of them."""
    for number in range(len(lines) - 1, -1, -1):
        found = _EXCEPTION.match(lines[number])
        if found is None or _HEARSAY.search(lines[number]):
            continue
        text = found["text"] or ""
        if not text:  # an assertion without words: the code that made it is all that there is
            code = (line.strip() for line in reversed(lines[:number]) if not set(line) <= set(" ^~"))
            return f"{lines[number]}: {next(code, '')}"
        if "validation error" in text and number + 1 < len(lines):  # pydantic's: what is wrong stands on the next line
            return f"{text}: {lines[number + 1].split(' [type=')[0].strip()}"
        return lines[number]
    return ""


def _trouble(lines: list[str]) -> str:
    """The last line that looks like trouble, and is neither code nor of a level that is none."""
    for line in reversed(lines):
        calm = line.startswith(("DEBUG ", "INFO ", "WARNING ", " ")) and "what():" not in line
        if not calm and _TROUBLE.search(line) and not _HEARSAY.search(line):
            return line
    return ""
