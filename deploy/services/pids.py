"""Which processes belong to a home: recorded by name, by descent, or by the mark that ``up`` puts on them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from roundhouse.config import paths
from roundhouse.deploy.services import keep as service
from roundhouse.launchers.process.birth import Birth
from roundhouse.launchers.process.records import is_process, runs

MARK = "ROUNDHOUSE_STACK"
"""The environment variable that ``up`` gives to everything it starts: the home."""

TERM_S, KILL_S, POLL_S = 8.0, 5.0, 0.02


def record(name: str) -> None:
    """Record this process as the service ``name``."""
    service.write_record(_file(name), os.getpid())


def recorded(name: str) -> psutil.Process | None:
    """The living process of the service ``name``, if there is one."""
    try:
        document = json.loads(_file(name).read_text())
        if is_process(document["pid"], Birth.read(document)):
            return psutil.Process(document["pid"])
    except (OSError, KeyError, TypeError, ValueError, psutil.NoSuchProcess):
        pass
    return None


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """The addresses, host and port, at which ``process`` takes TCP connections."""
    with suppress(psutil.Error):
        found = process.net_connections("tcp")
        return [(it.laddr.ip, it.laddr.port) for it in found if it.laddr and it.status == psutil.CONN_LISTEN]
    return []


def listener(port: int) -> psutil.Process | None:
    """A process that listens on ``port``; None where there is none, or none of this user's."""
    with suppress(psutil.Error):
        for it in psutil.net_connections("tcp"):
            if it.laddr and it.laddr.port == port and it.status == psutil.CONN_LISTEN and it.pid is not None:
                return psutil.Process(it.pid)
    return None


def home_of(process: psutil.Process) -> str | None:
    """The home of the Roundhouse that ``process`` belongs to, if it belongs to one that ``up`` started."""
    with suppress(psutil.Error):
        return process.environ().get(MARK)
    return None


def _file(name: str) -> Path:
    return paths.run_dir() / f"{name}.pid"


def ours() -> list[psutil.Process]:
    """Every living process of this home but this one and its parents (engines excepted: they have records)."""
    home = str(paths.home())
    services = (recorded(file.stem) for file in paths.run_dir().glob("*.pid"))
    roots = {process.pid for process in services if process is not None}
    parents = _parents()
    spared = _line(os.getpid(), parents)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            belongs = roots & _line(process.pid, parents) or process.environ().get(MARK) == home
            if belongs and process.pid not in spared and is_alive(process):
                found.append(process)
    return found


def _parents() -> dict[int, int]:
    """The parent of every process. psutil's own family tree compares wall-clock times: it breaks when those jump."""
    parents = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            parents[process.pid] = process.ppid()
    return parents


def _line(pid: int, parents: Mapping[int, int]) -> set[int]:
    """A process and all above it."""
    line: set[int] = set()
    while pid in parents and pid not in line:  # read one after the other, they may show a circle
        line.add(pid)
        pid = parents[pid]
    return line


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return process.is_running() and runs(process)
    except psutil.NoSuchProcess:
        return False


def _ignores_term(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    ignored = next((line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:")), "0")
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


def end_all() -> int:
    """SIGTERM, then SIGKILL, until nothing of this home is left; how many processes had to be killed.

    SIGTERM is for those alone whose parent is none of ours: whoever has children ends them, in the right order. But a
    process that is deaf to SIGTERM (honcho has one a service, which outlives it when it is killed) ends nobody.
    """
    killed = 0
    for number, patience in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        left = ours()
        pids = {process.pid for process in left}
        deaf = set()
        for process in left:
            with suppress(psutil.NoSuchProcess):
                if process.ppid() not in pids and _ignores_term(process.pid):
                    deaf.add(process.pid)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                if number == signal.SIGKILL or process.ppid() not in pids - deaf:
                    process.send_signal(number)
                    killed += number == signal.SIGKILL
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            time.sleep(POLL_S)
            left = ours()
    for file in paths.run_dir().glob("*.pid"):
        file.unlink(missing_ok=True)
    return killed
