"""vLLM's environment: every variable that we give it, with the reason, by what it runs on.

The engine host has the same ones: a variable that only a model has would come too late for a fork (``HostSpec.late``).
What the YAML's ``launcher.env`` says wins, at the price of the host.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from roundhouse.config import paths
from roundhouse.config.wsl import in_wsl

COMMON = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # The weights are here, or the set-up has failed: no start waits for a hub.
    "HF_HUB_OFFLINE": "1",
    # A process that gives itself a title keeps its environment: whose it is can be seen.
    "SPT_NOENV": "1",
}

CPU = {
    # One process less, and no imports twice: half of a start.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}

CUDA = {
    # CUDA counts cards as the driver does, which we ask.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # FlashInfer's sampler is compiled at the first start, by an nvcc that a machine with a driver alone does not have;
    # pip's does not go with its headers. vLLM's own sampler in Triton takes its place.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    # Else importing vLLM starts two compilers and two threads that wait for them: an engine host with a thread cannot
    # fork for some 20 s, and every start has two processes more. The kernels are built when they are needed.
    "HUMMING_DISABLE_PARALLEL_BUILD": "1",
}

CUDA_ON_WSL = {
    # Else a sleeper's weights go through memory that is not pinned: seconds instead of tenths. vLLM looks by itself
    # whether the kernel (4.19.121 or later) can pin.
    "VLLM_WSL2_ENABLE_PIN_MEMORY": "1",
}

CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",  # else below TMPDIR, which goes with the engine
    "TRITON_CACHE_DIR": "triton",
}
"""Where what a start has compiled survives: folders of the home's ``cache``, so that nobody's own has ours in it."""

CUDA_CACHES = {
    "CUDA_CACHE_PATH": "cuda",  # what the driver compiles; else ~/.nv
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "HUMMING_CACHE_DIR": "humming",
    "HUMMING_TMP_DIR": "humming/tmp",  # both else in ~/.humming
    "TILELANG_CACHE_DIR": "tilelang",
}

ALLOCATOR = "PYTORCH_ALLOC_CONF"
EXACT_PINNING = "pinned_max_round_threshold_mb:1,pinned_max_cached_size_mb:1"
"""torch's allocator of pinned memory rounds up to a power of two only what is no bigger than this, and keeps nothing
bigger for later. Never the first without the second: torch 2.13 finds a buffer that it has kept by its power of two and
compares no sizes (``CachingHostAllocator.h``: ``get_free_block``), so that one which was not rounded up may be handed
out for more than it holds."""


def variables(*, cpu: bool, exact_pinning: bool = False) -> dict[str, str]:
    """All of them, for engines and for the engine host; makes the caches' folders.

    ``cpu``: it is vLLM for the CPU; ``exact_pinning``: see ``residency.exact_pinning``.
    """
    if cpu:
        return COMMON | CPU | _folders(CACHES)
    env = COMMON | CUDA | _folders(CACHES | CUDA_CACHES)
    if in_wsl():
        env |= CUDA_ON_WSL
    if exact_pinning:
        env[ALLOCATOR] = _with_exact_pinning()
    return env


def _folders(names: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for variable, name in names.items():
        folder = paths.compiled() / name
        folder.mkdir(parents=True, exist_ok=True)  # not everybody makes a missing one
        found[variable] = str(folder)
    return found


def _with_exact_pinning() -> str:
    """This setting of the allocator after the user's own: torch reads one variable, and no other beside it."""
    own = os.environ.get(ALLOCATOR) or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    return f"{own},{EXACT_PINNING}" if own else EXACT_PINNING
