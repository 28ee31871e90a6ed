"""LiteLLM's app with ours round it: what a worker serves."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys

from roundhouse.config import virtual_keys as keys
from roundhouse.hooks import via
from roundhouse.proxy import abilities, noise
from roundhouse.proxy.database import ready
from roundhouse.proxy.door import Door
from roundhouse.proxy.gateway import Gateway
from roundhouse.proxy.served import Routes

PR_SET_PDEATHSIG = 1


def build() -> Gateway:
    """The ASGI application of one worker. Imports LiteLLM, which takes seconds."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a worker never outlives its supervisor
    logging.basicConfig(stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("roundhouse").setLevel(logging.INFO)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        sys.exit("proxy: the supervisor is gone")
    if keys.enabled():
        ready.use_client()
    import litellm
    from litellm.proxy.proxy_server import app

    from roundhouse.config import paths
    from roundhouse.config.load import load_settings
    from roundhouse.hooks.residency import hook
    from roundhouse.proxy.routes import router

    noise.quieten()
    # Else "llama-3" in a name has LiteLLM fetch a tokenizer from the hub, and a hub that is silent stalls everybody.
    litellm.disable_hf_tokenizer_download = True
    settings = load_settings(paths.config_file())
    routes = Routes(keys=keys.enabled(), extra=settings.pass_through)
    on_starting = _database if keys.enabled() else None

    def started() -> None:
        from litellm.proxy.proxy_server import llm_router  # bound when LiteLLM is up

        hook.connect()
        if llm_router is not None:
            abilities.tell(llm_router.model_list, settings.models)

    gateway = Gateway(app, Door(routes, via.own()), on_starting=on_starting, on_started=started)
    app.include_router(router(settings.other_names | settings.aliases))
    return gateway


async def _database() -> None:
    """Wait for the database; one that will not do ends the gateway, for another worker would fare no better."""
    try:
        await ready.wait()
    except ready.Unusable as error:
        print(f"proxy: {error}", flush=True)
        os.kill(os.getppid(), signal.SIGTERM)
        raise
