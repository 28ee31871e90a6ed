"""What one engine needs of a device and of RAM. Pure."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20
GIB = 2**30


RESIDUAL_UNKNOWN = int(1.2 * GIB)
"""What a sleeper is taken to keep of its device where nothing tells: the upper end of 0.6 to 1.2 GiB that reports of
vLLM 0.11 to 0.15 give for one card (context, CUDA graphs, kernels; vllm-project/vllm#28714, #32714)."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory of one engine, in bytes.

    ``awake``: on the device while it answers, its context and graphs included. ``residual``: what is left on the
    device while it sleeps. ``pinned``: RAM that its weights take at sleep level 1, as allocated; torch keeps it after
    waking, so it counts for as long as the process lives. ``estimated``: computed from files, not measured.
    ``loading``: on the device at most while its weights are loaded; what is measured later says nothing of that.
    """

    awake: int
    residual: int = 0
    pinned: int = 0
    estimated: bool = True
    loading: int = 0

    @classmethod
    def of_size(cls, awake: int) -> Footprint:
        """An engine of which only ``awake`` is known: the rest as much as it may be."""
        return cls(awake, min(awake, RESIDUAL_UNKNOWN), awake)
