"""What happened (facts, past tense) and what is to be done (orders, imperative). Pure.

Times are seconds of one monotonic clock; durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from roundhouse.residency.codes import Code

Ticket = NewType("Ticket", int)
"""One request's place: first in the queue, then as its lease."""


# --- facts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A request wants a lease on ``model``; ``max_wait_s`` overrides the configured bound.

    ``caller`` is an opaque name of who asks; requests without one are one caller's. ``weight`` is its priority's.
    """

    ticket: Ticket
    model: str
    max_wait_s: float | None = None
    may_switch: bool = True
    caller: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """After a restart of residency: a holder says that it still has a lease on ``model``."""

    ticket: Ticket
    model: str
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """The request left: it gave up waiting, or it gives its lease back. Valid at any time, also twice.

    ``missed``: its exchange was over, and nobody but the gateway's backstop gave the lease back.
    """

    ticket: Ticket
    missed: bool = False


@dataclass(frozen=True, slots=True)
class Adopted:
    """A healthy engine of an earlier residency process was taken over; ``level``: how deep it sleeps, if it does."""

    model: str
    pid: int
    level: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The engine's process exists."""

    model: str
    pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine answers; ``awake`` bytes of its device are its, if that can be measured."""

    model: str
    pid: int
    awake: int | None = None


@dataclass(frozen=True, slots=True)
class Slept:
    """The engine sleeps and its memory is back, but for ``residual`` bytes, if that can be measured."""

    model: str
    level: int
    residual: int | None = None


@dataclass(frozen=True, slots=True)
class Woke:
    """The engine is awake again and answers as before."""

    model: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Others, no engines of ours, use ``foreign`` bytes of the device."""

    device: str
    foreign: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine did not start, and nothing of it is left; or it did not sleep or wake, and is not to be trusted.

    ``retryable``: it was killed from outside.
    """

    model: str
    text: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Exited:
    """The engine's process ended though nobody had ordered it."""

    model: str
    text: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """An ordered stop is over: nothing of the engine is left."""

    model: str


@dataclass(frozen=True, slots=True)
class SwitchCommanded:
    """A person wants ``model`` on its device now."""

    ticket: Ticket
    model: str


@dataclass(frozen=True, slots=True)
class UnloadCommanded:
    """A person wants ``model`` (or, with ``None``, everything) off its device; ``force`` cuts leases."""

    ticket: Ticket
    model: str | None
    force: bool = False


@dataclass(frozen=True, slots=True)
class ShutdownCommanded:
    """Everything is to end: nobody new is let in, engines drain (``force``: do not) and stop."""

    ticket: Ticket
    force: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time passed: the moment that ``Machine.wake_at`` named has come."""


Fact = (
    Asked
    | Held
    | Gone
    | Adopted
    | Started
    | Ready
    | Slept
    | Woke
    | Seen
    | Failed
    | Exited
    | Stopped
    | SwitchCommanded
    | UnloadCommanded
    | ShutdownCommanded
    | Ticked
)

# --- orders ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start the engine of ``model``; answer with ``Ready`` or ``Failed``."""

    model: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """``model`` is next on its device: do what needs nothing of the device. Nothing comes back."""

    model: str


@dataclass(frozen=True, slots=True)
class Sleep:
    """Put the engine of ``model``, which has no leases, to sleep; answer with ``Slept`` or ``Failed``.

    It has failed if its device's memory is not back but for ``at_most`` bytes (``None``: nobody can tell).
    """

    model: str
    level: int
    at_most: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Wake the engine of ``model``; answer with ``Woke`` or ``Failed``."""

    model: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the engine of ``model``, or end its start; answer with ``Stopped``. ``force``: at once."""

    model: str
    force: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Tell the holder of ``ticket`` that it has its lease (or that its command is done)."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the holder of ``ticket`` that it will not be served, and when asking again may help."""

    ticket: Ticket
    code: Code
    message: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person should know."""

    text: str


Order = Prepare | Start | Sleep | Wake | Stop | Grant | Refuse | Alarm
