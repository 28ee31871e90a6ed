"""The Procfile's `redis`: a private Redis server for the response cache, unless the user names one.

`python -m roundhouse.deploy.services.redis` keeps a server running on a unix socket in the home: bounded memory,
nothing on disk, password in a file that only this user reads. It comes back by itself when it dies. The cache
is a convenience: whatever happens here, this process stays, for the process manager ends everything with it.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

from roundhouse.config import paths, surroundings
from roundhouse.deploy.services import keep as service
from roundhouse.deploy.setup.tools import redis_server

MAX_MEMORY = "64mb"
STOP_GRACE_S = 5.0  # it saves nothing, so it ends in milliseconds


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
    surroundings.enter(surroundings.Service.SERVER)
    service.begin()
    if os.environ.get("REDIS_URL"):
        return service.idle("redis", "REDIS_URL is set: that server is used, none is started here")
    server = program()
    if server is None:
        return service.idle("redis", "no Redis server found: answers are not cached; './roundhouse up' fetches one")
    with service.only_one("redis") as alone:
        if not alone:
            return service.idle("redis", f"another Redis of ours runs in {paths.home()}: that one is used")
        return _keep_running(server)


def _keep_running(server: Path) -> int:
    record = paths.run_dir() / "redis.pid"
    child = service.keep_running("redis", record, lambda: _start(server))
    if child is not None:
        _stop(child)
        for left in (record, _config_file(), socket()):
            left.unlink(missing_ok=True)
    return 0


def _start(server: Path) -> service.Child:
    service.write_private(_config_file(), _config())
    return subprocess.Popen(
        [server, _config_file()],
        stdin=subprocess.DEVNULL,
        env={"PATH": os.defpath},  # it needs none of our secrets
        start_new_session=True,
        preexec_fn=service.in_child(signal.SIGKILL),  # it holds nothing worth a goodbye
    )


def _stop(child: service.Child) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
