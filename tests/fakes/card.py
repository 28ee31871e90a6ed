"""An emulated card in a file: who has how much of its memory, and how much RAM is pinned for whom.

Every process that knows the file shares the card; ``flock`` keeps them apart. What a process holds is gone when the
process is: it is known by its pid and start time. Standard library alone, because fake engines import it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GIB = 2**30


class OutOfMemory(Exception):
    """The card, or the RAM that may be pinned, has not so much free."""


def started(pid: int) -> int | None:
    """When the kernel started process ``pid``, in ticks; ``None`` if it does not run."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Card:
    """One card. All amounts are bytes; every method is one transaction."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], total: int = 16 * GIB, ram: int = 64 * GIB) -> Card:
        """A new, empty card of ``total``; ``ram`` is how much may be pinned in all."""
        state = {"total": total, "ram": ram, "held": {}, "pinned": {}, "moving": {}, "overlaps": 0, "peak": 0}
        card = cls(path)
        card.path.write_text(json.dumps(state))
        return card

    # --- looking -------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        return self._read()["total"]

    @property
    def free(self) -> int:
        """Device-wide, as the driver says it."""
        state = self._read()
        return state["total"] - sum(state["held"].values())

    @property
    def by_pid(self) -> dict[int, int]:
        """What each living process holds."""
        return {int(owner.split(".")[0]): size for owner, size in self._read()["held"].items() if size}

    @property
    def pinned(self) -> dict[int, int]:
        """RAM that each living process has pinned."""
        return {int(owner.split(".")[0]): size for owner, size in self._read()["pinned"].items() if size}

    @property
    def overlaps(self) -> int:
        """How many starts, sleeps and wakes began while another engine's was under way."""
        return self._read()["overlaps"]

    @property
    def peak(self) -> int:
        """The most that was ever held at once."""
        return self._read()["peak"]

    # --- holding -------------------------------------------------------------------------------------

    def hold(self, size: int, pid: int | None = None) -> None:
        """Process ``pid``, by default this one, holds ``size`` from now on. Raises OutOfMemory, changing nothing."""
        with self._change() as state:
            me = owner(pid)
            others = sum(state["held"].values()) - state["held"].get(me, 0)
            if others + size > state["total"]:
                raise OutOfMemory(f"{size} wanted, {state['total'] - others} there")
            state["held"][me] = size
            state["peak"] = max(state["peak"], others + size)

    def pin(self, size: int, pid: int | None = None) -> None:
        """Process ``pid`` has ``size`` of RAM pinned from now on; torch keeps it until the process ends."""
        with self._change() as state:
            me = owner(pid)
            others = sum(state["pinned"].values()) - state["pinned"].get(me, 0)
            if others + size > state["ram"]:
                raise OutOfMemory(f"{size} of pinned RAM wanted, {state['ram'] - others} there")
            state["pinned"][me] = size

    @contextlib.contextmanager
    def moving(self) -> Iterator[None]:
        """A start, a sleep or a wake of this process; that another one is under way is counted."""
        me = owner(None)
        with self._change() as state:
            state["overlaps"] += bool(state["moving"].keys() - {me})
            state["moving"][me] = True
        try:
            yield
        finally:
            with self._change() as state:
                state["moving"].pop(me, None)

    # --- the file ------------------------------------------------------------------------------------

    def _read(self) -> dict[str, Any]:
        with self._locked():
            return living(json.loads(self.path.read_text()))

    @contextlib.contextmanager
    def _change(self) -> Iterator[dict[str, Any]]:
        with self._locked():
            state = living(json.loads(self.path.read_text()))
            yield state
            new = self.path.with_suffix(".new")
            new.write_text(json.dumps(state))
            new.replace(self.path)  # whoever is killed here leaves a whole file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self.path.with_suffix(".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def owner(pid: int | None) -> str:
    """A process as the file knows it: pid and start time."""
    pid = os.getpid() if pid is None else pid
    since = started(pid)
    if since is None:
        raise ProcessLookupError(pid)
    return f"{pid}.{since}"


def living(state: dict[str, Any]) -> dict[str, Any]:
    """Without what processes had that have ended."""
    for part in ("held", "pinned", "moving"):
        state[part] = {name: value for name, value in state[part].items() if lives(name)}
    return state


def lives(name: str) -> bool:
    pid, _, since = name.partition(".")
    return str(started(int(pid))) == since
