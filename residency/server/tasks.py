"""Background tasks that do not die unheard: what one of them ends with is said and told at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("roundhouse.residency")


class Tasks:
    """Starts tasks; the exception that ends one is logged and given to ``died``. A cancelled task has not died."""

    def __init__(self, died: Callable[[BaseException], None]) -> None:
        self._died = died
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as a task called ``name``; it is kept alive until it is done."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel what runs and return once it has ended."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.critical("event=task_died task=%r", task.get_name(), exc_info=error)
        self._died(error)
