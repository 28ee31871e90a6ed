"""The states of an engine and the moves between them, as a table. Pure."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where one engine stands.

    An engine *occupies* its device in every state but ``STOPPED`` and ``FAILED``.
    """

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    SLEEPING = "sleeping"
    ASLEEP = "asleep"
    WAKING = "waking"
    STOPPING = "stopping"
    FAILED = "failed"

    @property
    def occupies(self) -> bool:
        """Whether an engine in this state may hold memory on its device."""
        return self not in _AWAY

    @property
    def serves(self) -> bool:
        """Whether an engine in this state may have leases."""
        return self in _SERVING

    @property
    def moves(self) -> bool:
        """Whether an engine in this state is in a transition: one of a device at a time, for vLLM's sake."""
        return self in _MOVING


# Looked up once: the machine asks ten times a fact.
_AWAY = (State.STOPPED, State.FAILED)
_SERVING = (State.READY, State.DRAINING)
_MOVING = (State.STARTING, State.SLEEPING, State.WAKING, State.STOPPING)

#: From each state, the states it may go to. Whatever is not here is a bug.
MOVES: dict[State, frozenset[State]] = {
    # READY or ASLEEP directly: a healthy engine of an earlier residency process was adopted.
    State.STOPPED: frozenset({State.STARTING, State.READY, State.ASLEEP}),
    # STOPPED: the start was killed from outside and is tried once more.
    State.STARTING: frozenset({State.READY, State.STOPPING, State.FAILED, State.STOPPED}),
    State.READY: frozenset({State.DRAINING, State.SLEEPING, State.STOPPING}),
    # READY: whoever the engine was drained for has gone.
    State.DRAINING: frozenset({State.READY, State.SLEEPING, State.STOPPING}),
    # STOPPING from here on: it did not sleep or wake as it should, it crashed, or its place is wanted.
    State.SLEEPING: frozenset({State.ASLEEP, State.STOPPING}),
    State.ASLEEP: frozenset({State.WAKING, State.STOPPING}),
    State.WAKING: frozenset({State.READY, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    # STOPPED: a command took the back-off away.
    State.FAILED: frozenset({State.STARTING, State.STOPPED}),
}


class IllegalMove(Exception):
    """An engine was asked to make a move that the table does not have."""

    def __init__(self, model: str, source: State, target: State, history: list[str]) -> None:
        self.model, self.source, self.target, self.history = model, source, target, history
        super().__init__(
            f"engine {model!r} cannot go from {source} to {target}; before that: {'; '.join(history) or 'nothing'}"
        )


def move(model: str, source: State, target: State, history: list[str]) -> State:
    """Return ``target`` if the table has the move.

    Raises:
        IllegalMove: it has not; nothing was changed.
    """
    if target not in MOVES[source]:
        raise IllegalMove(model, source, target, history)
    return target
