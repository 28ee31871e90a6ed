"""honcho with its output in a log that stays short: what `up` starts.

`python -m roundhouse.deploy.services.honcho LOG HONCHO'S ARGUMENTS`. honcho alone writes what all services say, line by
line, so it turns the log over itself: no other process has to live for that, and no line is lost or torn.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

from roundhouse.launchers.process import log as logs

KEEP = 5
"""Logs before this one that are kept. A supervisor may try again some times before a person looks."""


class ShortLog(io.TextIOBase):
    """Appends whole lines to ``path``; past ``limit`` bytes it begins a new file and sets the old one aside.

    What cannot be written is dropped: a full disk is no reason for the services to end.
    """

    def __init__(self, path: Path, limit: int = logs.MAX_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._text = ""
        self._file = logs.open_for_writing(path)
        self._size = os.fstat(self._file).st_size

    def write(self, text: str) -> int:
        """Take text, which is written with the next ``flush``: honcho flushes after each line."""
        self._text += text
        return len(text)

    def flush(self) -> None:
        """Write what has been taken."""
        data, self._text = self._text.encode("utf-8", "replace"), ""
        if not data:
            return
        with suppress(OSError):
            if self._size and self._size + len(data) > self._limit:
                self._turn_over()
            self._size += os.write(self._file, data)

    def _turn_over(self) -> None:
        logs.rotate(self._path, KEEP)
        fresh = logs.open_for_writing(self._path)
        for standard in (1, 2):  # honcho's own last words go there
            os.dup2(fresh, standard)
        os.close(self._file)
        self._file, self._size = fresh, 0


def main() -> None:
    """Run honcho until it ends; it exits with the code of the service that ended first."""
    from honcho.command import main as honcho  # type: ignore[import-untyped]  # it sets logging up as it is imported

    with redirect_stdout(ShortLog(Path(sys.argv[1]))):
        honcho(sys.argv[2:])


if __name__ == "__main__":
    main()
