"""Signals and a closed terminal, for a command that has something to bring to an end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Told(KeyboardInterrupt):
    """Somebody wants the command to end: by Ctrl-C, by SIGTERM, or by closing the terminal (SIGHUP)."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        self.code = 128 + number
        super().__init__()


def listen() -> None:
    """Raise Told on a signal that ends, from now on. What the caller has us ignore (nohup) stays ignored."""
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGHUP:
        # The kernel and the shell both send it, but one closed terminal is no second wish.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        silence()
    raise Told(number)


@contextmanager
def deaf() -> Iterator[None]:
    """Take no signal meanwhile: what runs here is short, and must not be left half done."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str, err: bool = False) -> None:
    """Print; where nobody reads any more, be silent from now on: that is no reason to stop anything."""
    try:
        click.echo(text, err=err)
    except OSError:  # a closed pipe, or a terminal that is gone
        silence()


def silence() -> None:
    """Send all further output nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
