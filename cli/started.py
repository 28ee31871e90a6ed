"""What ``up`` started in this home: with which YAML, what has changed in it since, and whether it was told to end.

The record stays when the stack ends. So a stack that died is told from one that was stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from roundhouse.config import paths
from roundhouse.config.load import ConfigError, load_settings, read_yaml
from roundhouse.config.schema import Settings
from roundhouse.deploy.services import keep as service

TAKE_OVER = "'down' and 'up' take the change over"


@dataclass(frozen=True)
class Served:
    """A model that is served: by what, under which other names, and a digest of its part of the YAML.

    ``names``: those of entries of their own.
    """

    what: str
    aliases: tuple[str, ...]
    digest: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """A stack that was started: digests of the whole YAML and of its part ``residency``; ``at``: seconds since 1970."""

    config: Path
    whole: str
    residency: str
    models: dict[str, Served]
    at: float
    stopped: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The record for a stack that starts now."""
        others: dict[str, list[str]] = {name: [] for name in settings.models}
        for alias, name in settings.aliases.items():
            others.setdefault(name, []).append(alias)
        models = {
            name: Served(
                what(entry.launcher),
                tuple(others[name]),
                _digest(entry.model_dump_json()),
                tuple(other for other, model in settings.other_names.items() if model == name),
            )
            for name, entry in settings.models.items()
        }
        return cls(settings.path, _whole(settings.path), _residency(settings), models, time.time())

    @classmethod
    def read(cls) -> Self | None:
        """The record of this home; None where nothing was ever started, or by no ``up`` of this version."""
        try:
            document = json.loads(_file().read_text(encoding="utf-8"))
            models = {
                name: Served(it["what"], tuple(it["aliases"]), it["digest"], tuple(it.get("names", ())))
                for name, it in document["models"].items()
            }
            return cls(**{**document, "config": Path(document["config"]), "models": models})
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            return None

    def write(self) -> None:
        """Keep the record, for this user only."""
        service.write_private(_file(), json.dumps(asdict(self) | {"config": str(self.config)}))

    @property
    def aliases(self) -> dict[str, str]:
        """Alias -> model, as they were at the start."""
        return {alias: name for name, it in self.models.items() for alias in it.aliases}

    @property
    def names(self) -> dict[str, str]:
        """Every other name -> model: aliases, and entries that the model's engine answers."""
        return {other: name for name, it in self.models.items() for other in it.names} | self.aliases

    def changes(self) -> str | None:
        """What is otherwise in the YAML than when it was started, as a line; None: nothing."""
        if _whole(self.config) == self.whole:
            return None
        try:
            now = load_settings(self.config)
        except ConfigError as error:
            faults = f"{len(error.faults)} fault{'s' if len(error.faults) > 1 else ''}"
            return f"{self.config} has changed since it was started, and has {faults} now: 'up' would refuse it"
        if (then := self.models) == (new := Started.of(now).models) and self.residency == _residency(now):
            return f"{self.config} has changed since it was started, in what LiteLLM reads: {TAKE_OVER}"
        kinds = {
            "new": [name for name in new if name not in then],
            "gone": [name for name in then if name not in new],
            "changed": [name for name in new if name in then and new[name] != then[name]],
        }
        words = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        return f"{self.config} has changed since it was started ({'; '.join(words or ['residency'])}): {TAKE_OVER}"


def what(launcher: Any) -> str:
    """What answers for a model, for a person: its weights, or a program."""
    return str(launcher.model) if launcher.kind == "vllm" else Path(launcher.argv[0]).name


def running() -> Started | None:
    """The record of a stack that nobody has stopped; it may have died."""
    record = Started.read()
    return None if record is None or record.stopped else record


def mark_stopped() -> None:
    """Note that the stack is being stopped because somebody wants it so."""
    record = Started.read()
    if record is not None:
        with suppress(OSError):  # a full disk must not keep anybody from stopping
            replace(record, stopped=True).write()


def starter() -> int | None:
    """The process that is starting a stack in this home right now, if one is."""
    try:
        with (paths.run_dir() / "up.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder() or None
    except OSError:
        pass
    return None


@contextmanager
def alone(waiting: Callable[[int], None]) -> Iterator[None]:
    """Be the only one who starts a stack in this home. Another is waited for; ``waiting`` gets its pid, or 0."""
    with os.fdopen(os.open(paths.run_dir() / "up.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(_holder())
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _holder() -> int:
    text = (paths.run_dir() / "up.lock").read_text()
    return int(text) if text.isdigit() else 0


def _file() -> Path:
    return paths.run_dir() / "started.json"


def _residency(settings: Settings) -> str:
    return _digest(settings.residency.model_dump_json())


def _whole(path: Path) -> str:
    """A digest of what a YAML says; a comment does not count. Empty where it cannot be read."""
    try:
        return _digest(json.dumps(read_yaml(path), default=str))
    except ConfigError:
        return ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
