"""The Procfile's `redis`: a private Redis server for the response cache, unless the user names one.

`python -m roundhouse.deploy.redis` keeps a server running on a unix socket in the home: bounded memory,
nothing on disk, password in a file that only this user reads. It comes back by itself when it dies. The cache
is a convenience: whatever happens here, this process stays, for the process manager ends everything with it.
"""

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import psutil

from roundhouse.config import paths
from roundhouse.deploy.setup.tools import redis_server

MAX_MEMORY = "64mb"
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
SETTLED_S = 10.0  # a server that lived so long starts with the short pause again
STOP_GRACE_S = 5.0  # it saves nothing, so it ends in milliseconds
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PR_SET_PDEATHSIG = 1


def redis_url() -> str:
    """What LiteLLM's `cache_params.url` must be: `REDIS_URL`, else the address of the server run here."""
    chosen = os.environ.get("REDIS_URL")
    if chosen:
        return chosen
    password = quote(os.environ.get("REDIS_PASSWORD", ""), safe="")
    return f"unix://:{password}@{quote(str(socket()))}" if password else f"unix://{quote(str(socket()))}"


def socket() -> Path:
    """The server's socket."""
    return paths.socket_file("redis.sock")


def program() -> Path | None:
    """The server's program, or None where the set-up has not been run."""
    return redis_server(paths.project_root() if paths.in_checkout() else paths.home())


def main() -> int:
    """Run until told to end."""
    paths.load_env_file()
    signal.pthread_sigmask(signal.SIG_BLOCK, {*ENDINGS, signal.SIGCHLD})
    if os.environ.get("REDIS_URL"):
        return _idle("REDIS_URL is set: that server is used, none is started here")
    server = program()
    if server is None:
        return _idle("no Redis server found: answers are not cached; './roundhouse up' fetches one")
    with (paths.run_dir() / "redis.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return _idle(f"another Redis of ours runs in {paths.home()}: that one is used")
        return _keep_running(server)


def _keep_running(server: Path) -> int:
    pause_s = FIRST_PAUSE_S
    record = paths.run_dir() / "redis.pid"
    while True:
        began = time.monotonic()
        child = _start(server)
        _write_private(record, json.dumps({"pid": child.pid, "created": psutil.Process(child.pid).create_time()}))
        code = _wait(child)
        if code is None:
            _stop(child)
            for left in (record, _config_file(), socket()):
                left.unlink(missing_ok=True)
            return 0
        if time.monotonic() - began > SETTLED_S:
            pause_s = FIRST_PAUSE_S
        print(f"redis: server ended ({code}); starts again in {pause_s:.1f} s", flush=True)
        if signal.sigtimedwait(ENDINGS, pause_s):
            record.unlink(missing_ok=True)
            return 0
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _start(server: Path) -> "subprocess.Popen[bytes]":
    _write_private(_config_file(), _config())
    prctl = ctypes.CDLL(None).prctl

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # it holds nothing worth a goodbye
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return subprocess.Popen(
        [server, _config_file()],
        stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath},  # it needs none of our secrets
        start_new_session=True,
        preexec_fn=in_child,  # safe: this process has one thread
    )


def _wait(child: "subprocess.Popen[bytes]") -> int | None:
    """The server's exit code, or None when we are told to end."""
    while True:
        number = signal.sigwait({*ENDINGS, signal.SIGCHLD})
        if number != signal.SIGCHLD:
            return None
        code = child.poll()
        if code is not None:
            return code


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _config_file() -> Path:
    return paths.run_dir() / "redis.conf"


def _config() -> str:
    password = "".join(f"\\x{byte:02x}" for byte in os.environ.get("REDIS_PASSWORD", "").encode())
    lines = [
        "port 0",
        f'unixsocket "{socket()}"',
        "unixsocketperm 700",
        f'requirepass "{password}"' if password else "",
        f"maxmemory {MAX_MEMORY}",
        "maxmemory-policy allkeys-lru",
        'save ""',
        "appendonly no",
        f'dir "{paths.run_dir()}"',
        "daemonize no",
        "loglevel warning",
        "timeout 0",
        "tcp-keepalive 60",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def _idle(why: str) -> int:
    print(f"redis: {why}", flush=True)
    signal.sigwait(set(ENDINGS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
