"""Said while a command waits for running answers to end, which residency's own events do not tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from roundhouse.cli.errors import CliError
from roundhouse.cli.told import say

LOOK_EVERY_S = 0.5
"""An answer that ends sooner than this is not worth a line."""

Status = dict[str, Any]


def words(status: Status) -> str:
    """Whose running answers are waited for, as a line; empty where none are."""
    parts = [
        f"{count} running answer{'s' if count > 1 else ''} of {name}"
        for name, model in status["models"].items()
        if model["state"] == "draining" and (count := model["leases"])
    ]
    return f"waiting for {' and '.join(parts)} to end" if parts else ""


@contextmanager
def told(look: Callable[[], Status]) -> Iterator[None]:
    """Meanwhile say whenever there are other running answers to wait for. ``look`` may raise CliError: no word then."""
    over = threading.Event()

    def watch() -> None:
        last = ""
        while not over.wait(LOOK_EVERY_S):
            try:
                text = words(look())
            except CliError:
                continue
            if text and text != last:
                say(text, err=True)
            last = text

    watcher = threading.Thread(target=watch, name="drain watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
