"""``python -m roundhouse.proxy``: LiteLLM behind our gateway, with a supervisor that brings workers back.

The supervisor holds the listening socket, so that clients wait out a crashed worker instead of being
refused. It never imports LiteLLM.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys

import uvicorn
from uvicorn.supervisors import Multiprocess

from roundhouse.config import address, cors, paths, proxies, surroundings
from roundhouse.config import virtual_keys as keys
from roundhouse.config.load import ConfigError, load_settings
from roundhouse.deploy.services import pids
from roundhouse.deploy.services.redis import redis_url
from roundhouse.hooks import reach, via
from roundhouse.proxy.database import ready

EXIT_FAILED, EXIT_CONFIG = 1, 2
LINGER_S = 3
"""How long running answers may hold up the end: honcho kills after 5 s."""

WORKER_HEALTHY_S = 60
"""How long a worker may be deaf before it is replaced: a long prompt's tokenisation blocks it for seconds."""

BACKLOG = 2048

KEEP_ALIVE_S = 75
"""How long a connection may be idle: longer than clients' pools keep one (Node 4 s, httpx 5 s, Go 90 s with a retry,
browsers and others some 60 s), or a request is sent into a connection that we are just closing."""

ENGINES_KEEP_ALIVE_S = 4
"""How long LiteLLM keeps an idle connection to an engine: less than the 5 s after which servers close it, uvicorn and
llama.cpp's alike. A new one on loopback costs 0.1 ms."""


def prepare_environment(config: str, workers: int, origins: str) -> None:
    """Set what LiteLLM reads from the environment; what stands in ``.env`` wins."""
    defaults = {
        "LITELLM_MODE": "PRODUCTION",  # do not read a .env of its own
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # no look-up on the network at start
        "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
        "LITELLM_TELEMETRY": "False",
        "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",  # a hundred dashes are no fault of the engine
        "PYTHON_GC_THRESHOLD": "50000,50,50",  # 5 % of the processor time of a request
        "NO_DOCS": "True",
        "NO_REDOC": "True",
        "NO_OPENAPI": "True",
        "DISABLE_ADMIN_UI": "False" if keys.enabled() else "True",
        "LITELLM_CORS_ORIGINS": origins,
        "LITELLM_CORS_ALLOW_CREDENTIALS": "False",  # a key is no cookie
        "AIOHTTP_KEEPALIVE_TIMEOUT": str(ENGINES_KEEP_ALIVE_S),
    }
    if keys.enabled():
        ready.prepare_environment()
    else:
        os.environ.pop("DATABASE_URL", None)  # LiteLLM would use it
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("REDIS_URL", redis_url())
    os.environ["CONFIG_FILE_PATH"] = config
    os.environ[via.IDENTITY] = identity = secrets.token_hex(8)
    os.environ["OPENAI_CUSTOM_HEADERS"] = f"{via.HEADER}: {identity}"  # where LiteLLM forgets what the hook has added
    if workers > 1 and "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # else /metrics tells of one worker only
        folder = paths.run_dir() / "prometheus"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def keep_to_ourselves(host: str) -> None:
    """Have no proxy between us, our engines and Prisma's bridge: loopback, and what the gateway listens on."""
    os.environ.update(proxies.bypassing(os.environ, [address.reached_at(host)]))
    socks = proxies.without_library(os.environ)
    if socks:  # else no HTTP client can be made, not even one for loopback
        print(f"proxy: {proxies.said(socks)}: the gateway goes out without it", file=sys.stderr)
    for name in socks:
        del os.environ[name]


def listen(host: str, port: int) -> socket.socket:
    """The gateway's listening socket. Exits with one line if the port is taken."""
    try:
        listener = address.bound(host, port)
    except OSError as error:
        text = f"proxy: cannot listen on {host}:{port} ({error.strerror}); see ROUNDHOUSE_PORT and ROUNDHOUSE_HOST"
        print(text, file=sys.stderr)
        sys.exit(EXIT_FAILED)
    listener.listen(BACKLOG)
    listener.set_inheritable(True)
    return listener


def main() -> int:
    """Check the settings, open the port, keep the workers alive until SIGTERM; the exit code."""
    surroundings.enter(surroundings.Service.GATEWAY)
    try:
        settings = load_settings(paths.config_file())
        host, port, workers = address.host(), paths.port(), paths.workers()
        origins = cors.origins()
        reach.parse(os.environ.get(reach.SETTING, ""))  # a worker would fail at the first picture
        missing = ready.missing_parts() if keys.enabled() else None
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    if not os.environ.get("LITELLM_MASTER_KEY"):
        print("proxy: LITELLM_MASTER_KEY is not set; './roundhouse up' makes one in .env", file=sys.stderr)
        return EXIT_CONFIG
    if missing:
        print(f"proxy: {missing}", file=sys.stderr)
        return EXIT_CONFIG
    prepare_environment(str(settings.path), workers, origins)
    keep_to_ourselves(host)
    os.umask(0o077)  # whatever LiteLLM writes is for this user alone
    pids.record("proxy")
    listener = listen(host, port)
    config = uvicorn.Config(
        "roundhouse.proxy.app:build",
        factory=True,
        workers=workers,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=LINGER_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_worker_healthcheck=WORKER_HEALTHY_S,
    )
    Multiprocess(config, sockets=[listener]).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
