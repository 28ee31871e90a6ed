"""What a vLLM engine will need, from its files and its arguments, before it has ever run.

``awake`` is what the engine really occupies on its card with its arguments, not the least it could do with:

- with ``--kv-cache-memory-bytes``: weights + that cache + the step's and the encoder's peak + what stays while asleep
  (context, graphs, workspaces); or, if it is more, what vLLM wants to be free when it starts: the share below;
- otherwise vLLM takes ``ceil(total * --gpu-memory-utilization)`` whatever the model's size and makes KV cache of
  what is left, and its CUDA context comes on top.

In both cases it has to start: ``least`` is what weights, peaks and one request of ``--max-model-len`` take.
How many tokens fit counts the context inside vLLM's share, though it lies outside: 0.35 GiB for what is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from roundhouse.footprint import overhead
from roundhouse.footprint.cache import Cache, cache
from roundhouse.footprint.files import ModelFiles, read_files
from roundhouse.footprint.flags import Flags, FlagsError, parse
from roundhouse.footprint.headers import FilesError, Tensor
from roundhouse.footprint.need import Footprint
from roundhouse.footprint.pinned import pinned_bytes
from roundhouse.footprint.quantisation import AWQ, Quantisation, quantisation
from roundhouse.footprint.shapes import Shapes, ShapesError, shapes
from roundhouse.footprint.weights import from_shapes, loaded, total

PINNED_WORST = 2.0
"""Pinned RAM against weights where tensors are not known one by one: a power of two is at most twice the size."""

SHORTEST = 4096
"""Tokens: a context below this is of no use to a chat or an editor (a choice, not a limit of vLLM's)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one engine, in bytes; ``None`` where it cannot be told, and ``unknown`` says why, in words.

    ``peak``: of a step, its encoder included. ``residual``: what stays on the card while it sleeps.
    """

    files: ModelFiles
    flags: Flags
    shapes: Shapes | None
    quantised: Quantisation
    weights: int | None
    pinned: int | None
    cache: Cache | None
    peak: int
    residual: int
    unknown: tuple[str, ...] = ()

    @property
    def overhead(self) -> int:
        """What it takes beside weights and KV cache while it works."""
        return self.peak + self.residual

    @property
    def context(self) -> int | None:
        """The tokens that one request must be able to have: by ``--max-model-len``, else the model's own limit."""
        own = self.shapes.max_position if self.shapes is not None else None
        if self.flags.any_length:
            return min(SHORTEST, own or SHORTEST)
        return self.flags.max_model_len or own

    @property
    def least(self) -> int | None:
        """What it takes to start: weights, peaks and one request as long as it may be."""
        if self.weights is None or self.cache is None:
            return self.weights and self.weights + self.overhead
        return self.weights + self.overhead + self.cache.needed(self.context or SHORTEST, self.flags.kv_bits)

    def budget(self, device: int) -> int | None:
        """What it lets itself have on ``device`` for weights, peaks and cache; the context is counted inside."""
        if self.flags.kv_cache_memory_bytes is not None:
            return None if self.weights is None else self.weights + self.flags.kv_cache_memory_bytes + self.overhead
        return math.ceil(device * self.flags.gpu_memory_utilization)

    def awake(self, device: int | None) -> int | None:
        """What it occupies on a device of ``device`` bytes; ``None``: neither files nor device tell."""
        reserved = self.flags.kv_cache_memory_bytes
        if reserved is not None and self.weights is None:
            return None
        if device is None:
            return self.least if reserved is None else (self.weights or 0) + reserved + self.overhead
        share = math.ceil(device * self.flags.gpu_memory_utilization) + overhead.CONTEXT_BYTES
        return share if reserved is None else max(share, (self.weights or 0) + reserved + self.overhead)

    def fits_in(self, device: int, room: int) -> bool | None:
        """Whether it can be in ``room`` bytes of ``device`` and serve one request; ``None``: that cannot be told."""
        if self.weights is not None and self.weights + self.overhead > room:
            return False
        awake, least, budget = self.awake(device), self.least, self.budget(device)
        if awake is None or least is None or budget is None or self.cache is None:
            return None
        return awake <= room and least <= budget

    def footprint(self, device: int | None) -> Footprint | None:
        """The footprint on a device of ``device`` bytes, ``None`` where that is not known."""
        awake = self.awake(device)
        if awake is None or self.weights is None:
            return None
        return Footprint(awake, self.residual, self.pinned or 0)

    def with_flags(self, device: int | None, **changes: object) -> Estimate:
        """The same model with other arguments."""
        return of_files(self.files, replace(self.flags, **changes), device)  # type: ignore[arg-type]

    def as_awq(self, device: int | None) -> Estimate | None:
        """The same model in 4 bits, by its shapes; ``None`` where it is as small already, or shapes are unknown."""
        if self.shapes is None or self.quantised.bits <= AWQ.bits + 0.5:
            return None
        tensors = from_shapes(self.shapes, AWQ)
        return replace(self, quantised=AWQ, weights=total(tensors), pinned=pinned_bytes(tensors))


def of(model: str, args: Sequence[str] = (), device: int | None = None, *, network: bool = False) -> Estimate:
    """What an engine for ``model`` (a folder, or a name on the hub) will need with vLLM's ``args``.

    ``device``: the card's bytes, for the defaults that depend on it; ``network``: the hub may be asked.

    Raises:
        FilesError: nothing can be told of the model, or its files are damaged.
        FlagsError: an argument is not what vLLM takes.
    """
    return of_files(read_files(model, network), parse(args), device)


def of_files(files: ModelFiles, flags: Flags, device: int | None) -> Estimate:
    """The same from ``files`` that were read and ``flags`` that were parsed."""
    quantised = quantisation(files.config, flags.quantization, flags.dtype)
    unknown = [*files.unknown, *quantised.unknown]
    try:
        known = shapes(files.config) if files.config else None
    except ShapesError as error:
        known = None
        unknown.append(f"{error}: KV cache and peak cannot be told")
    weights, pinned = _weights(files, known, quantised)
    if weights is None:
        unknown.append("neither headers nor shapes: the weights' size cannot be told")
    peak = 0
    if known is not None:
        unknown += known.unknown
        peak = overhead.activation_bytes(known, flags, device)
        peak += overhead.encoder_bytes(known, flags, files.max_pixels, device)
    return Estimate(
        files=files,
        flags=flags,
        shapes=known,
        quantised=quantised,
        weights=weights,
        pinned=pinned,
        cache=cache(known, flags.batched_tokens(device)) if known is not None else None,
        peak=peak,
        residual=overhead.residual_bytes(flags),
        unknown=tuple(unknown),
    )


def _weights(files: ModelFiles, known: Shapes | None, quantised: Quantisation) -> tuple[int | None, int | None]:
    """The weights' size once loaded, and their pinned copies'."""
    tensors: tuple[Tensor, ...] = loaded(files.tensors, known, quantised)
    if not tensors and files.stored_bytes is not None:
        return files.stored_bytes, int(files.stored_bytes * PINNED_WORST)
    if not tensors and known is not None:
        tensors = from_shapes(known, quantised)
    return (total(tensors), pinned_bytes(tensors)) if tensors else (None, None)


__all__ = ["Estimate", "FilesError", "FlagsError", "of", "of_files"]  # those that ``of`` raises, with it
