"""Which service ended first, from the process manager's log: it ends all the others, so its lines are the reason. Pure.

The log is honcho's: ``14:03:12 proxy.1  | text``, and lines of its own under the name ``system``.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

LINE = re.compile(r"(\d\d:\d\d:\d\d) ([\w-]+)(?:\.1)? +\| ?(.*)")
STOPPED = re.compile(r"([\w-]+)(?:\.1)? stopped \(rc=(-?\d+)\)")
TOLD = re.compile(r"(SIG[A-Z]+) received")

LINES = 15
"""How much of a log's end is shown."""


@dataclass(frozen=True)
class Ending:
    """How a stack ended: who ended first, how and when, and the last that it said. ``name``: None if nobody knows."""

    name: str | None
    how: str
    at: str
    last: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.how} and took the others with it" if self.name else self.how


def of_log(lines: Sequence[str]) -> Ending:
    """The ending that ``lines`` tell of, or their end if they tell of none."""
    said: dict[str, list[str]] = {}
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            continue
        at, name, text = match.groups()
        if name != "system":
            said.setdefault(name, []).append(text)
        elif told := TOLD.fullmatch(text):
            return Ending(None, f"the process manager was told to end ({told[1]})", at, ())
        elif stopped := STOPPED.fullmatch(text):
            return Ending(stopped[1], _how(int(stopped[2])), at, tuple(said.get(stopped[1], ())[-LINES:]))
    return Ending(None, "the process manager was killed", "", tuple(lines[-LINES:]))


def _how(code: int) -> str:
    if code >= 0:
        return f"ended (code {code})"
    try:
        return f"was killed ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed (signal {-code})"
