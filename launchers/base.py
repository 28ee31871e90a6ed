"""What residency needs of a way to run engines: two small protocols and their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from roundhouse.footprint.need import Footprint


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start has come: ``phase`` in words, ``percent`` (0-100) where known, ``pid`` once there is one."""

    phase: str
    percent: float | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class EngineExit:
    """How an engine ended: ``code`` (below 0: a signal; ``None``: unknown, it was adopted), ``text`` for a person."""

    code: int | None
    text: str


class LaunchError(Exception):
    """An engine could not be started; nothing of it is left.

    ``text`` says what happened, with the engine's last log lines. ``code`` is how it ended (below 0: a signal),
    if it did.
    """

    def __init__(self, model: str, text: str, *, code: int | None = None) -> None:
        self.model, self.text, self.code = model, text, code
        super().__init__(text)

    @property
    def retryable(self) -> bool:
        """Whether it was killed from outside, so that another start may well succeed."""
        return self.code is not None and self.code < 0


class SleepError(Exception):
    """An engine could not be put to sleep or woken, or what came of it is wrong: it is not to be trusted any more.

    ``text`` says what happened, for a person.
    """

    def __init__(self, model: str, text: str) -> None:
        self.model, self.text = model, text
        super().__init__(text)


Answer = str | list[float]
"""What an engine says to the probe: tokens, or the beginning of an embedding."""


class Sleeper(Protocol):
    """How an engine is put to sleep and woken. Every method raises SleepError; then the engine's state is unknown."""

    async def sleep(self, level: int) -> None:
        """Put it to sleep; on return it says that it sleeps."""

    async def wake(self, level: int) -> None:
        """Wake it from ``level``; on return it says that it is awake."""

    async def asleep(self) -> bool:
        """Whether it says that it sleeps, or does so in part."""

    async def probe(self) -> Answer:
        """What it answers to a fixed question, greedily."""

    async def require(self, expected: Answer) -> None:
        """Return if it answers the probe as ``expected``."""


class EngineProcess(Protocol):
    """A running engine."""

    @property
    def pid(self) -> int:
        """Its main process."""

    def pids(self) -> frozenset[int]:
        """Every living process of it: those that may hold memory of the device."""

    @property
    def asleep(self) -> int | None:
        """The level at which it sleeps, ``None`` while it is awake."""

    async def sleep(self, level: int) -> None:
        """Put it to sleep (1: weights in RAM, 2: weights dropped); on return it says that it sleeps.

        Whether the device's memory is back is for the caller to see. Only for an engine without requests of ours.
        On cancellation its state is unknown, and it has to be stopped.

        Raises:
            SleepError: it does not sleep.
        """

    async def wake(self) -> None:
        """Wake it; on return it gives the answer that it gave before it first slept. Cancellation as in ``sleep``.

        Raises:
            SleepError: it does not wake, or answers something else.
        """

    async def exited(self) -> EngineExit:
        """Return when the main process is gone. Cancellable; may be awaited by several."""

    async def stop(self, force: bool = False) -> None:
        """End it; on return, however late, nothing of its processes is left. Idempotent; ``force``: SIGKILL at once."""


class Launcher(Protocol):
    """One model's way of being started and adopted."""

    @property
    def levels(self) -> tuple[int, ...]:
        """The sleep levels that its engines may use; empty if they can only be stopped."""

    @property
    def identity(self) -> str:
        """Tells this model with these flags on this engine version from any other: what was measured holds for it."""

    def expected(self) -> Footprint | None:
        """What an engine is going to need, from its files and flags; ``None`` where that cannot be told."""

    async def prepare(self) -> None:
        """Do ahead of a start what needs nothing of the device. Cancellable; nothing depends on it."""

    async def start(self, report: Callable[[Progress], None]) -> EngineProcess:
        """Start and return when it answers.

        Raises:
            LaunchError: it could not be started; nothing of it is left. The same holds on cancellation.
        """

    async def adopt(self) -> EngineProcess | None:
        """Take over a healthy engine that an earlier process left, or end what it left and return ``None``."""
