"""The host's own loop: one connection, one thread, a fork for each start.

Messages are lines of JSON on a unix socket. In: ``{"op": "start", "id", "argv", "env", "log"}``,
``{"op": "go", "pid"}``, ``{"op": "drop", "pid"}``. Out: ``{"event": "ready", ...}`` once vLLM is imported,
``started`` with the id and a pid, ``refused`` with the id, why and whether that lasts, ``exited`` with a pid and its
code.

A forked child does nothing before its ``go``: whoever asked for it has to write its record first. It ends
if the pipe closes before, so that neither a lost message nor anybody's death can leave one behind.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import os
import random
import selectors
import signal
import socket
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import internals
from .versions import KNOWN

UNSUPPORTED = 3
"""Exit code: the host does not know this vLLM."""

FIT_S = 60.0
"""How long the host waits, before it says that it is ready, for threads that its imports have left to end. Those that
were seen took 18 s on two slow cores."""

THREAD_S = 3.0
"""How long a fork waits for one: much less than a stock start takes, and than residency waits for a fork."""

ALONE_S = 60.0
"""Without a connection for so long nobody is going to use it any more: residency restarts in seconds."""

OOM_SCORE_ADJ = 500
"""If memory runs out, the kernel takes the host before an engine: it costs only speed."""


class Host:
    """Forks servers for one connection at a time; the newest wins."""

    def __init__(self, listener: socket.socket, oom_score_adj: int, ready: dict[str, Any]) -> None:
        self._listener = listener
        self._oom_score_adj = oom_score_adj
        self._ready = ready
        self._connection: socket.socket | None = None
        self._buffer = b""
        self._waiting: dict[int, int] = {}  # pid -> the end of the pipe that it waits on
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def run(self) -> int:
        """Serve until told to end, or until nobody has been there for ALONE_S; the exit code."""
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            events = self._selector.select(ALONE_S if self._connection is None else None)
            if not events and self._connection is None:
                return 0
            for key, _ in events:
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self._wake_read:
                    self._reap()
                else:
                    self._read()

    # --- the connection ---------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._hang_up()
        self._connection, self._buffer = connection, b""
        self._selector.register(connection, selectors.EVENT_READ)
        self._say(self._ready)

    def _hang_up(self) -> None:
        """Forget the connection; children that were not told to go end by themselves."""
        if self._connection is not None:
            self._selector.unregister(self._connection)
            self._connection.close()
            self._connection = None
        for fd in self._waiting.values():
            os.close(fd)
        self._waiting.clear()

    def _say(self, message: dict[str, Any]) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        connection = self._connection
        if connection is None:  # hung up by an event of the same round
            return
        try:
            data = connection.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._hang_up()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "start":
            self._start(message)
            return
        fd = self._waiting.pop(int(message["pid"]), None)
        if fd is not None:
            if message["op"] == "go":
                with suppress(BrokenPipeError):
                    os.write(fd, b"g")
            os.close(fd)

    # --- children ---------------------------------------------------------------------------------

    def _start(self, job: dict[str, Any]) -> None:
        unfit = internals.unfit_to_fork(THREAD_S)
        if unfit is not None:
            self._say({"event": "refused", "id": job["id"], "why": unfit.why, "lasting": unfit.lasting})
            return
        read, write = os.pipe()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(read)
            os.close(write)
            self._say({"event": "refused", "id": job["id"], "why": f"fork: {error.strerror}", "lasting": False})
            return
        if pid == 0:
            os.close(write)
            self._become(job, read)
        os.close(read)
        self._waiting[pid] = write
        self._say({"event": "started", "id": job["id"], "pid": pid})

    def _become(self, job: dict[str, Any], go: int) -> None:
        """In the child: wait for the go, then be the server. Never returns."""
        code = 1
        try:
            os.setsid()
            self._let_go_of_the_host()
            if os.read(go, 1) != b"g":
                os._exit(0)
            os.close(go)
            _set_oom_score_adj(self._oom_score_adj)
            _settle(job)
            internals.serve(job["argv"])
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        with suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _let_go_of_the_host(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._selector.close()
        for fd in (self._wake_read, self._wake_write, *self._waiting.values()):
            os.close(fd)
        self._listener.close()
        if self._connection is not None:
            self._connection.close()

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                fd = self._waiting.pop(pid, None)
                if fd is not None:
                    os.close(fd)
                self._say({"event": "exited", "pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _settle(job: dict[str, Any]) -> None:
    """In the child: a log and variables of its own."""
    log = os.open(job["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)
    os.environ.update(job["env"])  # on top of the host's, which has what vLLM's import has set
    tempfile.tempdir = None  # it remembers the host's
    random.seed()  # two children must not make the same "random" names


def _set_oom_score_adj(value: int) -> int:
    """Set this process's score; the one it had."""
    path = Path("/proc/self/oom_score_adj")
    before = int(path.read_text())
    with suppress(OSError):
        path.write_text(str(value))
    return before


def main(arguments: list[str]) -> int:
    """Import vLLM, then serve on the listening socket that was passed on; the exit code."""
    parser = argparse.ArgumentParser(prog="engine host")
    parser.add_argument("--fd", type=int, required=True, help="a listening unix socket")
    parser.add_argument("--cpu", action="store_true", help="the environment has vLLM for the CPU")
    parser.add_argument("--warm", action="append", default=[], help="a model that is going to be served")
    options = parser.parse_args(arguments)
    listener = socket.socket(fileno=options.fd)
    listener.set_inheritable(False)
    version = internals.version()
    if version not in KNOWN:
        print(f"engine host: vLLM is {version}; it knows {', '.join(KNOWN)}", flush=True)
        return UNSUPPORTED
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    oom_score_adj = _set_oom_score_adj(OOM_SCORE_ADJ)
    began = time.monotonic()
    internals.load(options.cpu)
    if options.cpu:
        internals.fork_on_cpu()
    for model in options.warm:
        try:
            internals.warm(model)
        except Exception as error:
            print(f"engine host: {model}: {type(error).__name__}: {error}", flush=True)
    _wait_until_fit()
    gc.collect()
    gc.freeze()  # the collector leaves what is here alone, so that its pages stay shared
    took = time.monotonic() - began
    threads = sorted(Path(f"/proc/self/task/{tid}/comm").read_text().strip() for tid in os.listdir("/proc/self/task"))
    print(f"engine host: vLLM {version} imported in {took:.1f} s, threads {threads}", flush=True)
    return Host(listener, oom_score_adj, {"event": "ready", "import_s": round(took, 1)}).run()


def _wait_until_fit() -> None:
    """Let threads that an import has left end: who asks for a fork now gets a stock start, and no refusal."""
    unfit = internals.unfit_to_fork()
    if unfit is not None and not unfit.lasting:
        print(f"engine host: {unfit.why}; waiting for it, {FIT_S:.0f} s at most", flush=True)
        unfit = internals.unfit_to_fork(FIT_S)
    if unfit is not None:
        print(f"engine host: no fork for now: {unfit.why}", flush=True)
