"""The Procfile's `postgres`: a private PostgreSQL for keys and spend, unless the user names one.

`python -m roundhouse.deploy.services.postgres` makes the data on its first start and keeps a server running on a unix
socket: never as root, with data checksums and a password of its own. A server that dies comes back and recovers
by its log. Told to end, it lets the gateway write its last rows first.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from roundhouse.config import paths, surroundings
from roundhouse.config import virtual_keys as keys
from roundhouse.deploy.services import cluster, pids
from roundhouse.deploy.services import keep as service

EXIT_CONFIG = 2
STOP_S = 4.7
"""How long all of our ending may take; whoever ends us kills after 5 s."""

GATEWAY_S = 3.5
"""How long of that the gateway may take to end before us."""

AT_ONCE_S = 1.0
"""What a server needs that ends without a checkpoint; it recovers when it starts."""

FULL_BYTES = 32 * 2**20
"""With less room than this the server cannot write the next piece (16 MB) of its log."""

POLL_S = 0.02


def main() -> int:
    """Run until told to end; EXIT_CONFIG where a person has to do something first."""
    surroundings.enter(surroundings.Service.SERVER)
    service.begin()
    try:
        if not keys.enabled():
            return service.idle("postgres", "virtual keys are off (ROUNDHOUSE_KEYS)")
        if not keys.own_database():
            return service.idle("postgres", "DATABASE_URL is set: that server is used, none is started here")
        with service.only_one("postgres") as alone:
            if not alone:
                return service.idle("postgres", f"another PostgreSQL of ours runs in {paths.home()}: it is used")
            return _serve()
    except (cluster.ClusterError, OSError, ValueError) as error:
        print(f"postgres: {error}{_why()}", file=sys.stderr, flush=True)
        return EXIT_CONFIG


def _serve() -> int:
    pids.record("postgres")
    bin_ = cluster.programs()
    who = cluster.account()
    if who is not None:
        print(f"postgres: started by root, so it runs as the account {who.name!r}; data: {cluster.data()}", flush=True)
    cluster.prepare(bin_)
    record = paths.run_dir() / "postgres-server.pid"
    child = service.keep_running("postgres", record, lambda: _start(bin_), _why)
    if child is not None:
        _stop(child, time.monotonic())
    record.unlink(missing_ok=True)
    (paths.run_dir() / "postgres.pid").unlink(missing_ok=True)
    return 0


def _start(bin_: Path) -> service.Child:
    who = cluster.account()
    return subprocess.Popen(
        [bin_ / "postgres", "-D", cluster.data()],
        cwd="/",
        stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath, "LC_ALL": "C", **_marks()},  # it needs none of our secrets
        start_new_session=True,
        preexec_fn=service.in_child(signal.SIGINT),  # a clean end, should this process die
        **(who.as_user() if who else {}),
    )


def _marks() -> dict[str, str]:
    """By what the server is known as this home's, should everything else be gone."""
    return {name: os.environ[name] for name in (pids.MARK, "ROUNDHOUSE_HOME") if name in os.environ}


def _why() -> str:
    free = shutil.disk_usage(cluster.place()).free
    if free >= FULL_BYTES:
        return ""
    return f": no space left at {cluster.place()} ({free >> 20} MB); free some, nothing is lost"


def _stop(child: service.Child, told: float) -> None:
    """Let the gateway end first, for it writes what it has not written yet; then the server. ``told``: when."""
    while time.monotonic() < told + GATEWAY_S and pids.recorded("proxy") is not None:
        time.sleep(POLL_S)
    until_checkpoint = told + STOP_S - time.monotonic()
    for number, patience in ((signal.SIGINT, until_checkpoint), (signal.SIGQUIT, AT_ONCE_S)):
        child.send_signal(number)
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
    child.kill()
    child.wait()


if __name__ == "__main__":
    sys.exit(main())
