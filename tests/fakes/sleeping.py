"""A fake engine's memory on the emulated card, and vLLM's sleep endpoints with their faults.

What is here was read in vLLM 0.32 or seen of it: requests that come while it sleeps are held, ``/health`` stays 200,
``mode`` is "abort" unless said, a level-2 sleeper that is woken without ``reload_weights`` talks garbage, and the
checks of device-wide memory after a sleep, at a start and at a wake are the real ones.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from card import Card, OutOfMemory

TAGS = frozenset({"weights", "kv_cache"})
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
DIE_S = 0.05
"""The answer to whoever asked goes out before the engine dies."""

Reply = tuple[int, dict[str, Any]]


def size(text: str) -> int:
    """``512M``, ``4G``, or a number of bytes."""
    return int(float(text[:-1]) * UNITS[text[-1]]) if text[-1] in UNITS else int(text)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--card", default=None, metavar="FILE", help="the emulated card")
    add("--weights", type=size, default=0)
    add("--kv", type=size, default=0)
    add("--load-peak", type=size, default=0, help="what it takes beside its weights while it loads them")
    add("--residual", type=size, default=0, help="what stays on the card while it sleeps")
    add("--sleep-mode", action="store_true", help="vLLM's --enable-sleep-mode; without it a sleep frees nothing")
    add("--sleep-delay", type=float, default=0.0)
    add("--wake-delay", type=float, default=0.0)
    add("--first-sleep-delay", type=float, default=0.0, help="more, for the first sleep at level 1: it pins RAM")
    add("--sleep-frees-nothing", action="store_true")
    add("--sleep-fails", action="store_true", help="status 500, and it stays half asleep")
    add("--residual-growth", type=size, default=0, help="what every cycle leaves on the card")
    add("--garbage-after", type=int, default=None, metavar="N", help="from the Nth wake on it talks garbage")
    add("--wake-hangs", type=int, default=None, metavar="N", help="the Nth wake never ends")
    add("--reload-fails", action="store_true")
    add("--is-sleeping-lies", action="store_true")


class Failed(Exception):
    """The call fails with status 500, and the engine is what it was."""


class Crash(Failed):
    """The engine dies of this."""


class Request:
    """One request in the engine."""

    def __init__(self) -> None:
        self._abort = asyncio.Event()

    @property
    def aborted(self) -> bool:
        return self._abort.is_set()

    def abort(self) -> None:
        self._abort.set()

    async def nap(self, seconds: float) -> None:
        """Work for so long, or until aborted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._abort.wait(), seconds)


class Memory:
    """Where the engine's weights and cache are, and who may compute."""

    def __init__(self, options: argparse.Namespace, log: Callable[[str], None]) -> None:
        self.options, self._log = options, log
        self.card = Card(options.card) if options.card else None
        self.sane = True
        self._asleep: set[str] = set()
        self._level = 0
        self._sleeps = self._wakes = 0
        self._awake = asyncio.Event()
        self._awake.set()
        self._core = asyncio.Lock()
        self._running: set[Request] = set()
        self._held: set[Request] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    # --- requests ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def request(self) -> AsyncIterator[Request]:
        """Compute for a request; while the engine sleeps it is held."""
        it = Request()
        self._held.add(it)
        try:
            while not self._awake.is_set() and not it.aborted:
                waiting = [asyncio.ensure_future(e.wait()) for e in (self._awake, it._abort)]
                try:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in waiting:
                        task.cancel()
            self._held.discard(it)
            self._running.add(it)
            self._idle.clear()
            yield it
        finally:
            self._held.discard(it)
            self._running.discard(it)
            if not self._running:
                self._idle.set()

    # --- the card ------------------------------------------------------------------------------------

    @property
    def residual(self) -> int:
        return int(self.options.residual + self._wakes * self.options.residual_growth)

    def _hold(self, amount: int, what: str) -> None:
        if self.card is not None:
            try:
                self.card.hold(amount)
            except OutOfMemory as error:
                raise Crash(f"{what}: {error}") from None

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """Load and profile as vLLM does; exits if the card has not the room, or if its free memory grew meanwhile."""
        if self.card is None:
            yield
            return
        it = self.options
        need, free = it.weights + it.kv + it.residual, self.card.free
        if free < need:
            wanted = f"({free / 2**30:.2f}/{self.card.total / 2**30:.2f} GiB) on startup is less than desired"
            sys.exit(f"ValueError: Free memory on device cuda:0 {wanted} ({need / 2**30:.2f} GiB)")
        with self.card.moving():
            self._start_with(it.weights + it.residual + it.load_peak)
            yield
            if self.card.free > free:
                sys.exit("AssertionError: Error in memory profiling. Initial free memory is less than current")
            self._start_with(need)

    def _start_with(self, amount: int) -> None:
        try:
            self._hold(amount, "torch.OutOfMemoryError: CUDA out of memory")
        except Crash as error:
            sys.exit(str(error))

    # --- endpoints -----------------------------------------------------------------------------------

    async def route(self, method: str, target: str, body: bytes) -> Reply:
        """Answer one of ROUTES."""
        parts = urlsplit(target)
        wanted, call = ROUTES[parts.path]
        if method != wanted:
            return 405, {"detail": "Method Not Allowed"}
        try:
            return 200, await call(self, parse_qs(parts.query), json.loads(body or b"{}"))
        except Failed as error:
            self._log(f"Traceback: {error}")
            if isinstance(error, Crash):
                asyncio.get_running_loop().call_later(DIE_S, os._exit, 1)
            return 500, {"error": {"message": str(error), "type": "InternalServerError"}}

    async def _sleep(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        level = int(query.get("level", ["1"])[0])
        await self._pause(query, body)
        if self.options.sleep_fails:
            raise Failed("RuntimeError: Call to sleep method failed (fake)")
        async with self._core:
            if level and self.options.sleep_mode and not self._asleep:
                with self._transition():
                    await self._to_sleep(level)
        return {"status": "sleeping", "level": level}

    def _transition(self) -> contextlib.AbstractContextManager[None]:
        return self.card.moving() if self.card is not None else contextlib.nullcontext()

    async def _to_sleep(self, level: int) -> None:
        it, before = self.options, self.card.free if self.card is not None else 0
        first = level == 1 and not self._sleeps
        # Stands for the copying that a real engine does: time is all there is to it.
        await asyncio.sleep(it.sleep_delay + (it.first_sleep_delay if first else 0))
        if level == 1 and self.card is not None:
            try:
                self.card.pin(it.weights)
            except OutOfMemory as error:
                raise Crash(f"torch.AcceleratorError: CUDA error: out of memory: {error}") from None
        if not it.sleep_frees_nothing:
            self._hold(self.residual, "never")
        self._asleep, self._level, self._sleeps = set(TAGS), level, self._sleeps + 1
        if self.card is not None and self.card.free < before:
            raise Crash("AssertionError: Memory usage increased after sleeping.")

    async def _wake(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        tags = query.get("tags")
        async with self._core:
            if self._asleep and (tags is None or self._asleep.issuperset(tags)):
                with self._transition():
                    await self._wake_up(self._asleep & set(tags or TAGS))
            if not self._asleep:
                self._awake.set()
        return {"status": "sleeping" if self._asleep else "awake", "tags": tags}

    async def _wake_up(self, tags: set[str]) -> None:
        it = self.options
        if it.wake_hangs == self._wakes + 1:
            await asyncio.Event().wait()
        await asyncio.sleep(it.wake_delay)  # the copying back
        back = TAGS - (self._asleep - tags)
        if back == TAGS:
            self._wakes += 1
        amount = self.residual + (it.weights if "weights" in back else 0) + (it.kv if "kv_cache" in back else 0)
        self._hold(amount, "CUDA Error: out of memory at cumem_allocator.cpp:62")
        if "weights" in tags and self._level == 2:
            self.sane = False
        self._asleep -= tags
        if it.garbage_after is not None and self._wakes >= it.garbage_after:
            self.sane = False

    async def _rpc(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        if self.options.reload_fails:
            raise Failed("AssertionError: attempted to load a weight of another shape (fake)")
        if body["method"] == "reload_weights":
            if "weights" in self._asleep:
                raise Crash("torch.AcceleratorError: CUDA error: an illegal memory access was encountered")
            self.sane = True
        return {"results": [None]}

    async def _pause(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        self._awake.clear()
        if query.get("mode", ["abort"])[0] == "abort":
            for request in self._running:
                request.abort()
        await self._idle.wait()
        return {"status": "paused"}

    async def _resume(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        self._awake.set()
        return {"status": "resumed"}

    async def _abort(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        all_ = self._running | self._held
        for request in all_:
            request.abort()
        return {"status": "aborted", "aborted": len(all_)}

    async def _is_sleeping(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        sleeps = bool(self._asleep) or not self._awake.is_set()
        return {"is_sleeping": sleeps != self.options.is_sleeping_lies}

    async def _is_paused(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        return {"is_paused": not self._awake.is_set()}

    async def _reset_blocks(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        return {"success": not self._running}

    async def _reset(self, query: dict[str, list[str]], body: Any) -> dict[str, Any]:
        return {}


Call = Callable[[Memory, dict[str, list[str]], Any], Awaitable[dict[str, Any]]]
ROUTES: dict[str, tuple[str, Call]] = {
    "/sleep": ("POST", Memory._sleep),
    "/wake_up": ("POST", Memory._wake),
    "/is_sleeping": ("GET", Memory._is_sleeping),
    "/collective_rpc": ("POST", Memory._rpc),
    "/pause": ("POST", Memory._pause),
    "/resume": ("POST", Memory._resume),
    "/is_paused": ("GET", Memory._is_paused),
    "/abort_requests": ("POST", Memory._abort),
    "/reset_prefix_cache": ("POST", Memory._reset_blocks),
    "/reset_mm_cache": ("POST", Memory._reset),
    "/reset_encoder_cache": ("POST", Memory._reset),
}
