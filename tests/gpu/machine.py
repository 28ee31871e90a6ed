"""What a record is of: the card, its driver, the versions, the system. Asked of the driver and the engines' Python."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection
from typing import Any

import psutil

from roundhouse import __version__
from roundhouse.config import paths
from roundhouse.config.wsl import in_wsl
from roundhouse.launchers.gauge import INITIAL_PID_NAMESPACE, Nvml, Reading

DEVICE = "gpu0"

VERSIONS = """
import sys
from importlib import metadata, util
from pathlib import Path

def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"

torch = {}
spec = util.find_spec("torch")
if spec is not None and spec.submodule_search_locations:  # not imported: that takes seconds
    exec((Path(spec.submodule_search_locations[0]) / "version.py").read_text(), torch)
print(version("vllm"), torch.get("__version__", version("torch")), torch.get("cuda"), sys.version.split()[0], sep="\\n")
"""


def read(card: Nvml) -> Reading:
    """The card now. Raises GaugeError."""
    reading = card.read(DEVICE)
    assert reading is not None
    return reading


def describe(card: Nvml) -> dict[str, str]:
    """What the figures hold for, in words."""
    memory = card._memory(card._handles[DEVICE])
    reserved = getattr(memory, "reserved", None)
    kept = "nobody knows how much" if reserved is None else f"{gib(int(reserved))} GiB"
    vllm, torch, cuda, python = subprocess.run(
        [paths.engine_python(), "-P", "-c", VERSIONS], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    ours = os.readlink("/proc/self/ns/pid") == INITIAL_PID_NAMESPACE
    system = f"{platform.system()} {os.uname().release}, {'WSL2' if in_wsl() else 'no WSL'}"
    return {
        "card": card.card,
        "its memory": f"{gib(int(memory.total))} GiB; the driver keeps {kept} for itself",
        "the driver's CUDA": driver_cuda(card),
        "vLLM, torch, torch's CUDA": f"{vllm}, {torch}, {cuda}",
        "Roundhouse, Python, the engines' Python": f"{__version__}, {platform.python_version()}, {python}",
        "system": f"{system}, {gib(psutil.virtual_memory().total)} GiB RAM",
        "pids": "as the driver counts them" if ours else "of a namespace of our own (a container, WSL2)",
    }


def driver_cuda(card: Nvml) -> str:
    """The newest CUDA that the driver runs, as ``13.0``."""
    version = int(card._nvml.nvmlSystemGetCudaDriverVersion_v2())
    return f"{version // 1000}.{version % 1000 // 10}"


def listed(card: Nvml, ours: Collection[int]) -> str:
    """What the driver's two lists of processes have now, told by whose they are."""
    nvml, handle = card._nvml, card._handles[DEVICE]
    found = []
    for name, ask in (
        ("compute", nvml.nvmlDeviceGetComputeRunningProcesses),
        ("graphics", nvml.nvmlDeviceGetGraphicsRunningProcesses),
    ):
        try:
            processes = list(ask(handle))
        except nvml.NVMLError as error:
            found.append(f"{name}: {error}")
            continue
        words = [f"{_whose(it.pid, ours)} {_size(it)}" for it in processes]
        found.append(f"{name}: {', '.join(words) or 'nobody'}")
    return "; ".join(found)


def _whose(pid: int, ours: Collection[int]) -> str:
    if pid in ours:
        return "the engine's"
    return "another's" if psutil.pid_exists(pid) else "one that is not here"


def _size(process: Any) -> str:
    return "of unknown size" if process.usedGpuMemory is None else f"{gib(process.usedGpuMemory)} GiB"


def gib(size: int) -> str:
    """Two places."""
    return f"{size / 2**30:.2f}"
