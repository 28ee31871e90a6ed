"""Several things made at the same time, of which one that fails ends the others."""

import queue
import threading
import time
from collections.abc import Callable

from .pip import Children
from .progress import Board


def side_by_side(jobs: dict[str, Callable[[], None]], board: Board, children: Children) -> None:
    """Run the jobs in threads of their own; the first failure, or Ctrl-C, stops the others and is raised."""
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    began = time.monotonic()

    def work(name: str, job: Callable[[], None]) -> None:
        error: BaseException | None = None
        try:
            job()
            board.say(f"{name}: ready after {time.monotonic() - began:.0f} s")
        except BaseException as caught:
            error = caught
        board.part(name, None)
        ends.put(error)

    for name, job in jobs.items():
        threading.Thread(target=work, args=(name, job), name=name, daemon=True).start()
    left = len(jobs)
    try:
        while left:
            # Not Thread.join: a Ctrl-C in it makes Python 3.11 take the thread for ended.
            error = ends.get()
            left -= 1
            if error:
                raise error
    except BaseException:
        children.stop()
        for _ in range(left):
            ends.get()
        raise
