"""What the user sees while a set-up runs."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

TICK_S = 0.25  # often enough to look alive
PLAIN_S = 15.0  # without a terminal: a line now and then, for a log


class Board:
    """One line on a terminal that says how far each part is; plain lines, a few a minute, without one.

    A part's text is a function, asked at each tick. `say` prints a line that stays.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._parts: dict[str, Callable[[], str]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> "Board":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._clear()

    def part(self, name: str, text: Callable[[], str] | None) -> None:
        """`name` is now where `text()` says; None: it is done."""
        with self._lock:
            if text is None:
                self._parts.pop(name, None)
            else:
                self._parts[name] = text

    def say(self, line: str) -> None:
        """Print `line` for good."""
        with self._lock:
            self._clear()
            self._write(f"roundhouse: {line}\n")

    def _run(self) -> None:
        period = TICK_S if self._tty else PLAIN_S
        while not self._ended.wait(period):
            with self._lock:
                line = " | ".join(f"{name}: {text()}" for name, text in self._parts.items())
                if not line:
                    continue
                line = f"{time.monotonic() - self._began:4.0f} s  {line}"
                self._write(f"\r\x1b[2K{line[: _width() - 1]}" if self._tty else f"roundhouse: {line}\n")

    def _clear(self) -> None:
        if self._tty:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._ended.set()  # the terminal is gone; the set-up goes on


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns
