"""The routers of ``bench switching``, by name: ours, which is the real machine, and the others', re-implemented."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from roundhouse.bench.policies.llama_swap import LlamaSwap
from roundhouse.bench.policies.llmsnap import Llmsnap
from roundhouse.bench.policies.llmux import Llmux
from roundhouse.bench.policies.ollama import Ollama
from roundhouse.bench.simulation import Router, Simulation

PEERS: dict[str, Callable[[Simulation], Router]] = {
    "llama-swap": LlamaSwap,
    "llama-swap-unlimited": partial(LlamaSwap, limit=None),
    "ollama": partial(Ollama, parallel=1),
    "ollama-8": partial(Ollama, parallel=8),
    "llmux": Llmux,
    "llmsnap": Llmsnap,
}
"""``llama-swap-unlimited`` has its 429 lifted; the number after ``ollama`` is OLLAMA_NUM_PARALLEL, by default 1."""
