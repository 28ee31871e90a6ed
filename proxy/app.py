"""LiteLLM's app with ours round it: what a worker serves."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys

from roundhouse.proxy.gateway import Gateway

PR_SET_PDEATHSIG = 1


def build() -> Gateway:
    """The ASGI application of one worker. Imports LiteLLM, which takes seconds."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a worker never outlives its supervisor
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("roundhouse").setLevel(logging.INFO)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        sys.exit("proxy: the supervisor is gone")
    from litellm.proxy.proxy_server import app

    from roundhouse.config import paths
    from roundhouse.config.load import load_settings
    from roundhouse.hooks.residency import hook
    from roundhouse.proxy.routes import router

    gateway = Gateway(app, on_started=hook.connect)
    app.include_router(router(lambda: gateway.backstop, load_settings(paths.config_file()).aliases))
    return gateway
