"""Why nothing runs in this home: it was never started, it is just being started, it was stopped, or it died."""

from __future__ import annotations

import os
import time

from roundhouse.cli import ending, started
from roundhouse.cli.errors import NotRunning
from roundhouse.config import paths
from roundhouse.deploy.services import pids


def why() -> str:
    """A line, with what to do."""
    if (pid := started.starter()) is not None:
        return f"not running yet: process {pid} is starting it"
    if pids.ours():
        return "only parts of it run; 'roundhouse logs' says why, 'roundhouse down' ends them"
    if started.running() is None:
        return str(NotRunning())
    log = paths.log_dir() / "stack.log"
    try:
        lines, when = log.read_text(errors="replace").splitlines(), os.stat(log).st_mtime
    except OSError:
        return str(NotRunning())
    at = time.strftime("%d %b %H:%M", time.localtime(when))
    it = ending.of_log(lines)
    return f"not running: it died at {at}: {it}; see 'roundhouse logs', start it again with 'roundhouse up'"
