"""What happened, as lines of JSON, for ``bench switching --journal``: no prompt, no answer, no key.

Off unless ``residency.journal`` asks for it. A caller is a digest that means nothing outside of its file. The file is
for this user only; beyond LIMIT_BYTES it is set aside once, so that two of them are kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from roundhouse.residency.facts import (
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
"""About half a million requests; a day of a busy workstation has a tenth of that."""

Line = dict[str, Any]


class Journal:
    """An open journal of ``models`` (name -> device and slots). What cannot be written ends it with one warning."""

    def __init__(self, path: Path, models: Mapping[str, Line], max_wait_s: float) -> None:
        self._path = path
        self._header = {"models": dict(models), "max_wait_s": max_wait_s}
        self._salt = secrets.token_bytes(16)
        self._file: BinaryIO | None = None
        self._failed = False

    def record(self, fact: Fact, orders: Iterable[Order], now: float) -> None:
        """Write down a fact, and what was ordered then: at ``now`` in clock seconds."""
        lines = [line for it in (fact, *orders) if (line := self._line(it)) is not None]
        if not lines or self._failed:
            return
        try:
            file = self._open(now)
            for line in lines:
                file.write(_encoded({"t": round(now, 4), **line}))
            file.flush()
        except OSError as error:
            self._failed = True
            log.warning("event=journal_failed path=%s text=%r", self._path, str(error))

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, now: float) -> BinaryIO:
        if self._file is not None and self._file.tell() < LIMIT_BYTES:
            return self._file
        if self._file is not None:
            self.close()
            self._path.replace(self._path.with_suffix(".old.jsonl"))
        self._file = os.fdopen(os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "ab")
        self._file.write(_encoded({"t": round(now, 4), "what": "opened", "clock": time.time(), **self._header}))
        return self._file

    def _line(self, it: Fact | Order) -> Line | None:
        match it:
            case Asked(ticket=ticket, model=model):
                caller = hashlib.blake2b(it.caller.encode(), key=self._salt, digest_size=6).hexdigest()
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
