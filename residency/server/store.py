"""What was learned, kept over restarts: of engines, of callers and of estimates, one JSON file each in the home.

The key of an entry is the launcher's identity (model, flags, engine version) and the card with its driver: what was
measured elsewhere does not count. A file that cannot be read is begun anew, with a warning; nothing else is lost.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from roundhouse.footprint.need import Footprint
from roundhouse.residency.learned.calibration import Calibration
from roundhouse.residency.learned.callers import Callers
from roundhouse.residency.machine.engine import Engine
from roundhouse.residency.machine.measured import Measured

log = logging.getLogger("roundhouse.store")

ENTRIES = 200
"""More engines than anybody configures; beyond, the entries that were changed longest ago go."""


class Learned(BaseModel):
    """What is kept of one engine: seconds, and bytes."""

    model_config = ConfigDict(extra="ignore")

    start_s: float | None = None
    stop_s: float | None = None
    sleep_s: dict[int, float] = {}
    wake_s: dict[int, float] = {}
    service_s: float | None = None
    awake: int | None = None
    residual: int = 0
    pinned: int = 0
    loading: int = 0

    @classmethod
    def of(cls, engine: Engine) -> Learned:
        """What is known of ``engine`` now; its footprint only if it was measured."""
        it, memory = engine.measured, engine.footprint
        learned = cls(
            start_s=it.start_s,
            stop_s=it.stop_s,
            sleep_s=dict(it.sleep_s),
            wake_s=dict(it.wake_s),
            service_s=engine.service_s,
        )
        if memory is not None and not memory.estimated:
            learned.awake, learned.residual, learned.pinned = memory.awake, memory.residual, memory.pinned
            learned.loading = memory.loading
        return learned

    @property
    def measured(self) -> Measured:
        """The durations."""
        return Measured(self.start_s, self.stop_s, dict(self.sleep_s), dict(self.wake_s))

    @property
    def footprint(self) -> Footprint | None:
        """The memory, if it was measured."""
        if self.awake is None:
            return None
        return Footprint(self.awake, self.residual, self.pinned, estimated=False, loading=self.loading)


class _File(BaseModel):
    version: int = Field(1, ge=1, le=1)
    engines: dict[str, Learned] = {}


class Store:
    """The file at ``path``; ``card`` names the card and its driver, or is empty."""

    def __init__(self, path: Path, card: str = "") -> None:
        self._path = path
        self._card = card
        self._file = self._read()

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except (OSError, ValidationError) as error:
            log.warning("event=store_begun_anew path=%s why=%r", self._path, str(error).splitlines()[0])
            return _File()

    def recall(self, identity: str) -> Learned:
        """What is known of the engine with this identity; empty if nothing is."""
        return self._file.engines.get(self._key(identity), Learned())

    def keep(self, engine: Engine, identity: str) -> None:
        """Write down what is known of ``engine``. A disk that is full costs only the memory of it."""
        key, learned = self._key(identity), Learned.of(engine)
        if self._file.engines.get(key) == learned:
            return
        self._file.engines.pop(key, None)
        self._file.engines[key] = learned
        while len(self._file.engines) > ENTRIES:
            del self._file.engines[next(iter(self._file.engines))]
        _write(self._path, self._file.model_dump_json())

    def _key(self, identity: str) -> str:
        return f"{identity}@{self._card}"


def recall_callers(path: Path) -> Callers:
    """The callers that the file at ``path`` remembers; a file that is none is begun anew, with a warning."""
    return _recall(path, Callers)


def keep_callers(path: Path, learned: Mapping[str, Any]) -> None:
    """Write down ``Callers.dump()``; names in it are hashes of keys and the sessions that clients name."""
    _write(path, json.dumps(learned))


def recall_calibration(path: Path) -> Calibration:
    """The errors of estimates that the file at ``path`` remembers; one that is none is begun anew, with a warning."""
    return _recall(path, Calibration)


def keep_calibration(path: Path, learned: Mapping[str, Any]) -> None:
    """Write down ``Calibration.dump()``: numbers only."""
    _write(path, json.dumps(learned))


_Memory = TypeVar("_Memory", Callers, Calibration)


def _recall(path: Path, memory: type[_Memory]) -> _Memory:
    try:
        return memory.load(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return memory()
    except (OSError, ValueError) as error:
        log.warning("event=store_begun_anew path=%s why=%r", path, str(error))
        return memory()


def _write(path: Path, text: str) -> None:
    """All or nothing, for this user only. A disk that is full costs only the memory."""
    temporary = path.with_suffix(".tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        log.warning("event=store_not_written path=%s why=%r", path, error.strerror)
