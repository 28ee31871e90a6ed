"""What a vLLM engine will need, from its files and its arguments, before it has ever run.

``awake`` is what the engine really occupies on its card with its arguments, not the least it could do with:

- with ``--kv-cache-memory-bytes``: weights + that cache + the step's and the encoder's peak + what stays while asleep
  (context, graphs, workspaces); or, if it is more, what vLLM wants to be free when it starts: the share below;
- otherwise vLLM takes ``ceil(total * --gpu-memory-utilization)`` whatever the model's size and makes KV cache of
  what is left, and its CUDA context comes on top.

In both cases it has to start: ``least`` is what weights, peaks and one request of ``--max-model-len`` take, and
``loading`` what the weights take on their way, when there is no cache yet; the bigger of them is ``awake``.
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
from roundhouse.footprint.loading import loading_bytes
from roundhouse.footprint.need import Footprint
from roundhouse.footprint.pinned import pinned_bytes
from roundhouse.footprint.quantisation import AWQ, Quantisation, quantisation
from roundhouse.footprint.shapes import Shapes, ShapesError, shapes
from roundhouse.footprint.weights import from_shapes, loaded, total

PINNED_WORST, PINNED_WORST_EXACT = 2.0, 1.05
"""Pinned RAM against weights where tensors are not known one by one: a power of two is at most twice the size; and
where nothing is rounded up, but segments are not quite full."""

SHORTEST = 4096
"""Tokens: a context below this is of no use to a chat or an editor (a choice, not a limit of vLLM's)."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of one engine, in bytes; ``None`` where it cannot be told, and ``unknown`` says why, in words.

    ``peak``: of a step, its encoder included. ``residual``: what stays on the card while it sleeps. ``loading``: what
    it takes beside the weights while these are loaded. ``exact_pinning``: see ``pinned``.
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
    loading: int = 0
    exact_pinning: bool = False
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

    @property
    def loaded(self) -> int | None:
        """What it takes while its weights are loaded: they, the room for their conversion, and its context."""
        return None if self.weights is None else self.weights + self.loading + overhead.CONTEXT_BYTES

    def budget(self, device: int) -> int | None:
        """What it lets itself have on ``device`` for weights, peaks and cache; the context is counted inside."""
        if self.flags.kv_cache_memory_bytes is not None:
            return None if self.weights is None else self.weights + self.flags.kv_cache_memory_bytes + self.overhead
        return math.ceil(device * self.flags.gpu_memory_utilization)

    def working(self, device: int | None) -> int | None:
        """What it occupies once it has started, on a device of ``device`` bytes; ``None``: nothing tells."""
        reserved = self.flags.kv_cache_memory_bytes
        if reserved is not None and self.weights is None:
            return None
        if device is None:
            return self.least if reserved is None else (self.weights or 0) + reserved + self.overhead
        share = math.ceil(device * self.flags.gpu_memory_utilization) + overhead.CONTEXT_BYTES
        return share if reserved is None else max(share, (self.weights or 0) + reserved + self.overhead)

    def awake(self, device: int | None) -> int | None:
        """What has to be free for it: what it occupies then, or while it is loaded, if that is more."""
        working = self.working(device)
        return None if working is None else max(working, self.loaded or 0)

    def fits_in(self, device: int, room: int) -> bool | None:
        """Whether it can be in ``room`` bytes of ``device`` and serve one request; ``None``: that cannot be told."""
        if self.weights is not None and max(self.weights + self.overhead, self.loaded or 0) > room:
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
        return Footprint(awake, self.residual, self.pinned or 0, loading=self.loaded or 0)

    def with_flags(self, device: int | None, **changes: object) -> Estimate:
        """The same model with other arguments."""
        flags = replace(self.flags, **changes)  # type: ignore[arg-type]
        return of_files(self.files, flags, device, exact_pinning=self.exact_pinning)

    def as_awq(self, device: int | None) -> Estimate | None:
        """The same model in 4 bits, by its shapes; ``None`` where it is as small already, or shapes are unknown."""
        if self.shapes is None or self.quantised.bits <= AWQ.bits + 0.5:
            return None
        tensors = from_shapes(self.shapes, AWQ)
        pinned = pinned_bytes(tensors, self.exact_pinning) + overhead.offloaded_bytes(self.flags)
        loading = loading_bytes(tensors, AWQ)
        return replace(self, quantised=AWQ, weights=total(tensors), pinned=pinned, loading=loading)


def of(
    model: str,
    args: Sequence[str] = (),
    device: int | None = None,
    *,
    network: bool = False,
    exact_pinning: bool = False,
) -> Estimate:
    """What an engine for ``model`` (a folder, or a name on the hub) will need with vLLM's ``args``.

    ``device``: the card's bytes, for the defaults that depend on it; ``network``: the hub may be asked;
    ``exact_pinning``: torch is told to pin no more than is needed.

    Raises:
        FilesError: nothing can be told of the model, or its files are damaged.
        FlagsError: an argument is not what vLLM takes.
    """
    return of_files(read_files(model, network), parse(args), device, exact_pinning=exact_pinning)


def of_files(files: ModelFiles, flags: Flags, device: int | None, *, exact_pinning: bool = False) -> Estimate:
    """The same from ``files`` that were read and ``flags`` that were parsed."""
    quantised = quantisation(files.config, flags.quantization, flags.dtype)
    unknown = [*files.unknown, *quantised.unknown]
    try:
        known = shapes(files.config) if files.config else None
    except ShapesError as error:
        known = None
        unknown.append(f"{error}: KV cache and peak cannot be told")
    tensors = loaded(files.tensors, known, quantised) or (from_shapes(known, quantised) if known is not None else ())
    weights, pinned = _sizes(files, tensors, exact_pinning)
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
        pinned=None if pinned is None else pinned + overhead.offloaded_bytes(flags),
        cache=cache(known, flags.batched_tokens(device), flags.block_size) if known is not None else None,
        peak=peak,
        residual=overhead.residual_bytes(flags),
        loading=loading_bytes(tensors, quantised),
        exact_pinning=exact_pinning,
        unknown=tuple(unknown),
    )


def _sizes(files: ModelFiles, tensors: Sequence[Tensor], exact: bool) -> tuple[int | None, int | None]:
    """The weights' size once loaded, and their pinned copies'."""
    if not files.tensors and files.stored_bytes is not None:
        return files.stored_bytes, int(files.stored_bytes * (PINNED_WORST_EXACT if exact else PINNED_WORST))
    return (total(tensors), pinned_bytes(tensors, exact)) if tensors else (None, None)


__all__ = ["Estimate", "FilesError", "FlagsError", "of", "of_files"]  # those that ``of`` raises, with it
