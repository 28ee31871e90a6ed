"""What happened, as lines of JSON, for ``bench switching --journal``: no prompt, no answer, no key.

Off unless ``residency.journal`` asks for it. A caller is a digest under a salt that is never written down: nobody can
tell whose it is, though a key or a session be guessed; with each start of residency callers have other names. The file
is for this user only; beyond LIMIT_BYTES it is set aside once, so that two of them are kept.

A file begins with a line ``opened``, and each start of residency adds one: clock and tickets begin anew there. A line
that a crash or a full disk cut short stands alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from roundhouse.residency.machine.facts import (
    Asked,
    Fact,
    Gone,
    Grant,
    Order,
    Ready,
    Refuse,
    Sleep,
    Slept,
    Start,
    Stop,
    Stopped,
    Wake,
    Woke,
)

log = logging.getLogger("roundhouse.residency")

LIMIT_BYTES = 64 << 20
"""About 300,000 requests, of 200 bytes each."""

Line = dict[str, Any]


class Journal:
    """An open journal of ``models`` (name -> device and slots). What cannot be written ends it with one warning.

    What may not switch is left out: it takes what is there, and would have brought nothing under another policy either.
    """

    def __init__(self, path: Path, models: Mapping[str, Line], max_wait_s: float) -> None:
        self._path = path
        self._header: Line = {"models": dict(models), "max_wait_s": max_wait_s}
        self._salt = secrets.token_bytes(16)
        self._file: FileIO | None = None
        self._ended = False

    def record(self, fact: Fact, orders: Iterable[Order], now: float) -> None:
        """Write down a fact, and what was ordered then: at ``now`` in clock seconds."""
        lines = [line for it in (fact, *orders) if (line := self._line(it)) is not None]
        if not lines or self._ended:
            return
        try:
            self._open(now)
            self._write(b"".join(_encoded({"t": round(now, 4), **line}) for line in lines))
        except OSError as error:
            log.warning("event=journal_failed path=%s text=%r", self._path, str(error))
            self.close()

    def close(self) -> None:
        """End the journal; nothing is lost without it."""
        self._ended = True
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a network's file system
                self._file.close()
            self._file = None

    def _open(self, now: float) -> None:
        """Have a file that has room: go on with the one there is, or begin one."""
        if self._file is not None and self._file.tell() < LIMIT_BYTES:
            return
        self._shut()
        if self._path.exists() and self._path.stat().st_size >= LIMIT_BYTES:
            self._path.replace(self._path.with_suffix(".old.jsonl"))
        self._file = FileIO(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600), "a+")
        os.fchmod(self._file.fileno(), 0o600)
        end = self._file.tell()
        if end and os.pread(self._file.fileno(), 1, end - 1) != b"\n":
            self._write(b"\n")
        self._write(_encoded({"t": round(now, 4), "what": "opened", "clock": time.time(), **self._header}))

    def _write(self, data: bytes) -> None:
        """Write all of it at once. Raises OSError where there is no room for all."""
        assert self._file is not None
        if self._file.write(data) != len(data):
            raise OSError("there was no room for all of a line")

    def _line(self, it: Fact | Order) -> Line | None:
        match it:
            case Asked(ticket=ticket, model=model) if it.may_switch and model in self._header["models"]:
                caller = hashlib.blake2b(
                    it.caller.encode("utf-8", "replace"), key=self._salt, digest_size=6
                ).hexdigest()
                who = {"caller": caller if it.caller else "", "weight": it.weight, "max_wait_s": it.max_wait_s}
                return {"what": "asked", "ticket": ticket, "model": model, **who}
            case Gone(ticket=ticket):
                return {"what": "gone", "ticket": ticket}
            case Grant(ticket=ticket):
                return {"what": "granted", "ticket": ticket}
            case Refuse(ticket=ticket, code=code):
                return {"what": "refused", "ticket": ticket, "code": code.value}
            case Start(model=model) | Wake(model=model):
                return {"what": "coming", "model": model}
            case Ready(model=model) | Woke(model=model):
                return {"what": "ready", "model": model}
            case Stop(model=model) | Sleep(model=model):
                return {"what": "leaving", "model": model}
            case Stopped(model=model) | Slept(model=model):
                return {"what": "left", "model": model}
            case _:
                return None


def _encoded(line: Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
