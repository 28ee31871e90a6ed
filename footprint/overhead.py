"""What an engine takes of a card beside weights and KV cache: each part with its unit and its source. Pure.

No constant here comes from this project's own measurement of a card yet: they are planning values, put so that text
models have about 1.2 GiB and a vision model with one picture of a megapixel 1.6 GiB in all. What residency measures
on the card replaces them.
"""

from __future__ import annotations

from roundhouse.footprint.flags import Flags
from roundhouse.footprint.need import GIB
from roundhouse.footprint.shapes import Shapes, Vision

CONTEXT_BYTES = int(0.35 * GIB)
"""The process's CUDA context and loaded kernels: 0.3 to 0.5 GiB. vLLM takes its first look at the free memory after
it is there (``v1/worker/gpu_worker.py``), so it comes on top of the share that ``--gpu-memory-utilization`` names."""

GRAPHS_BYTES = int(0.30 * GIB)
"""CUDA graphs: vLLM's start says 0.1 to 0.5 GiB; none with ``--enforce-eager``."""

GRAPHS_OFFLOADED_BYTES = int(0.10 * GIB)
"""What ``--sleep-mode-offload-cudagraph`` is trusted to move of the graphs to RAM while an engine sleeps. Their pool
goes, by what vLLM's source says; the driver's own part of a graph stays, and nobody has published how they compare."""

RUNTIME_BYTES = int(0.25 * GIB)
"""cuBLAS' and attention's workspaces, and what is allocated without torch: 0.1 to 0.3 GiB.

With context and graphs 0.9 GiB stay on the card while an engine sleeps; reported are 1.19 GiB (Qwen3-4B, vLLM issue
28714) and 1.14 GB (vLLM issue 32714)."""

WIDTH = 2
"""Bytes of one activation: engines compute in 16 bits."""

HIDDEN_COPIES = 4
"""A step's tokens are there as input, residual, normed and as attention's output at once."""

MLP_COPIES = 3
"""Gate and up, and their product."""

LOGIT_BYTES, LOGIT_COPIES = 4, 4
"""Logits are computed in 32 bits; sampling sorts them, with probabilities and indices beside."""

ENCODER_ROTARY_BYTES = 16
"""Rotary positions of queries and keys are computed in 32 bits, in and out: bytes per number of the tower's width."""

ENCODER_MARGIN = 1.4
"""Attention's workspaces and the allocator's gaps while pictures are encoded, as a factor (assumed)."""

DEFAULT_MAX_PIXELS = 12_845_056
"""Qwen2.5-VL's own limit, 16 384 tokens a picture, where neither its processor's file nor a flag has another."""


def residual_bytes(flags: Flags) -> int:
    """What stays on the card while an engine sleeps."""
    graphs = 0 if flags.enforce_eager else GRAPHS_BYTES
    return CONTEXT_BYTES + RUNTIME_BYTES + graphs - (GRAPHS_OFFLOADED_BYTES if flags.offload_graphs else 0)


def offloaded_bytes(flags: Flags) -> int:
    """What of its graphs may be in RAM while it sleeps, at whatever level: all of them."""
    return GRAPHS_BYTES if flags.offload_graphs else 0


def activation_bytes(shapes: Shapes, flags: Flags, total: int | None) -> int:
    """The peak of one step on a card of ``total`` bytes: the widest layer for all its tokens, and the logits."""
    wide = shapes.intermediate
    if shapes.experts:
        wide = max(shapes.expert_intermediate + shapes.shared_intermediate, shapes.hidden)
    step = flags.batched_tokens(total) * (MLP_COPIES * wide + HIDDEN_COPIES * shapes.hidden) * WIDTH
    return step + flags.sequences(total) * shapes.vocab * LOGIT_BYTES * LOGIT_COPIES


def encoder_bytes(shapes: Shapes, flags: Flags, pixels: int | None, total: int | None) -> int:
    """The peak of the vision tower; ``pixels``: a picture's largest by the model's own processor.

    vLLM encodes as many pictures at once as fit into the tokens of a step, and always one (``multimodal/budget``).
    """
    tower = shapes.vision
    if tower is None or flags.images == 0:
        return 0
    patches = _patches(tower, flags.max_pixels or pixels)
    tokens = max(1, patches // tower.merge**2)
    at_once = max(1, flags.batched_tokens(total) // tokens)
    if flags.images is not None:
        at_once = min(at_once, flags.images * flags.sequences(total))
    mlp = (MLP_COPIES if tower.gated else 2) * tower.intermediate
    each = (HIDDEN_COPIES * tower.hidden + 3 * tower.hidden + mlp) * WIDTH + ENCODER_ROTARY_BYTES * tower.hidden
    outputs = tokens * shapes.hidden * WIDTH
    return int(at_once * (patches * each * ENCODER_MARGIN + outputs))


def _patches(tower: Vision, pixels: int | None) -> int:
    if tower.image is not None:  # a tower of fixed size: SigLIP, CLIP
        return max(1, tower.image // tower.patch) ** 2
    return max(1, (pixels or DEFAULT_MAX_PIXELS) // tower.patch**2)
