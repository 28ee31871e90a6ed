"""What loading takes of a card beside the weights: room in which vLLM brings them into its kernels' order. Pure.

There is no KV cache yet, so this matters only where the cache is smaller than that room: with big models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import prod

from roundhouse.footprint.headers import Tensor
from roundhouse.footprint.quantisation import Quantisation
from roundhouse.footprint.weights import fused

AWQ_BYTES = 9
"""Bytes a weight while a linear layer of AWQ's is converted: its 4 bits unpacked to 32, twice (old and new order), its
new packing and Marlin's (``model_executor/layers/quantization/auto_awq.py``: ``_convert_awq_to_standard_format``; its
peak was measured on the CPU). Layers of one size use the same room one after the other; what one of another size had
stays taken until all are loaded, for with sleep mode the memory comes from a pool that gives nothing back before."""

EXPERT_BYTES = 1
"""And for experts, which are repacked without being unpacked: their new packing, and its padding."""

PACKED = 8
"""Weights of 4 bits in one 32-bit number."""


def loading_bytes(tensors: Iterable[Tensor], quantised: Quantisation) -> int:
    """The room beside the weights ``tensors`` while they are loaded; of formats other than AWQ nothing is counted."""
    if quantised.name != "awq":
        return 0
    outputs: defaultdict[tuple[str, int], int] = defaultdict(int)
    for it in tensors:
        if (shape := _linear(it)) is not None:
            into, out = shape
            outputs[fused(it.name), into] += out
    sizes = {(into * out, EXPERT_BYTES if "experts" in name else AWQ_BYTES) for (name, into), out in outputs.items()}
    return sum(prod(it) for it in sizes)


def _linear(it: Tensor) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer in 4 bits, stored or by shapes; ``None``: it is none."""
    if it.dtype != "I32" or len(it.shape) != 2:
        return None
    if it.name.endswith(".qweight"):
        return it.shape[0], it.shape[1] * PACKED
    return (it.shape[1], it.shape[0]) if it.name.endswith(".weight") else None
