"""Processes as a test sees them. One may end between any two questions: then it has no words and is not there."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty for one that has ended, also if nobody has reaped it yet."""
    try:
        return process.cmdline()
    except (psutil.Error, ProcessLookupError):
        return []


def command(process: psutil.Process) -> str:
    """Its command line as text."""
    return " ".join(words(process))


def of_home(home: object) -> list[psutil.Process]:
    """Every running process, this one aside, that was started for the stack with the home ``home``."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            mine = process.environ().get("ROUNDHOUSE_HOME") == str(home)
            if mine and process.status() != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
                found.append(process)
    return found
