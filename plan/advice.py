"""The smallest change that makes a model fit: other arguments, 4-bit weights, or a split between card and RAM. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import floor

from roundhouse.footprint.estimate import SHORTEST, Estimate
from roundhouse.footprint.files import shipped
from roundhouse.footprint.flags import Flags
from roundhouse.footprint.need import GIB, MIB
from roundhouse.footprint.overhead import CONTEXT_BYTES, DEFAULT_MAX_PIXELS
from roundhouse.footprint.quantisation import Quantisation
from roundhouse.footprint.weights import LAYER, from_shapes, total

STEP = 1024
"""Contexts are advised in steps of so many tokens."""

CACHE_STEP = 64 * MIB
"""And caches in steps of so many bytes."""

LOW_SHARE = 0.1
"""``--gpu-memory-utilization`` beside an explicit cache: low, for vLLM wants so much to be free when it starts."""

GGUF = Quantisation("Q4_K_M", 4.85)
"""llama.cpp's usual 4-bit format: bits per weight as llama.cpp's ``quantize`` states them."""

MEGAPIXEL = 1_003_520
"""Pixels: 1280 tokens of Qwen2.5-VL, enough to read a page."""

SPLIT_CONTEXT = 8192
"""Tokens of a model that is split between card and RAM: it is slow, so nobody has it read more."""

SPLIT_RESERVE = GIB
"""What llama.cpp's server takes of the card beside layers and cache: its context and compute buffers (assumed)."""


@dataclass(frozen=True, slots=True)
class Card:
    """What one engine may have of a ``device`` (bytes in all): ``room`` bytes; ``ram`` of the machine beside."""

    device: int
    room: int
    ram: int


def longest(it: Estimate, card: Card, bits: int) -> int | None:
    """The tokens that the KV cache can have on ``card``, at ``bits`` a number; ``None``: unknown, or no limit."""
    if it.weights is None or it.cache is None:
        return None
    share = card.device if it.flags.kv_cache_memory_bytes is not None else it.budget(card.device) or 0
    return it.cache.holds(min(share, card.room) - it.weights - it.overhead, bits)


def advise(it: Estimate, card: Card) -> str:
    """What to change, in words, for an engine that does not fit."""
    wanted = it.context or SHORTEST
    variants = [it, it.as_awq(card.device)]
    variants = [found for each in variants if each is not None for found in (each, _smaller_pictures(each, card))]
    for shortest in (wanted // 2, min(SHORTEST, wanted)):
        for variant in variants:
            for fitting in _arguments(variant, card, shortest) if variant is not None else ():
                return _words(it, fitting)
    return split(it, card) or "no change makes it fit on this device: take a smaller model"


def _smaller_pictures(it: Estimate, card: Card) -> Estimate | None:
    """``it`` with pictures of a megapixel, where it would take bigger ones of any size; with the peak that is left."""
    tower = it.shapes.vision if it.shapes is not None else None
    largest = it.flags.max_pixels or it.files.max_pixels or DEFAULT_MAX_PIXELS
    if tower is None or tower.image is not None or it.flags.images == 0 or largest <= MEGAPIXEL:
        return None
    changed = it.with_flags(card.device, max_pixels=MEGAPIXEL)
    return replace(it, flags=changed.flags, peak=changed.peak)


def _arguments(it: Estimate, card: Card, shortest: int) -> Iterator[Estimate]:
    """Variants of ``it`` that fit, those with fewer changed arguments first."""
    wanted = it.context or SHORTEST
    widths = [it.flags.kv_bits] + ([8] if it.flags.kv_bits > 8 else [])
    for shorter in (False, True):
        for bits in widths:
            context = wanted
            if shorter:
                found = longest(_roomy(it, card), card, bits)
                context = min(wanted, (found if found is not None else wanted) // STEP * STEP)
            if context >= max(1, shortest):
                changed = _with(it, card, bits, context)
                if changed.fits_in(card.device, card.room):
                    yield changed


def _roomy(it: Estimate, card: Card) -> Estimate:
    """``it`` with a share of the device that uses the room and no more."""
    return replace(it, flags=_share(it.flags, card))


def _share(flags: Flags, card: Card) -> Flags:
    most = floor((card.room - CONTEXT_BYTES) / card.device * 100) / 100
    if flags.kv_cache_memory_bytes is not None or most >= flags.gpu_memory_utilization:
        return flags
    return replace(flags, gpu_memory_utilization=max(0.01, most))


def _with(it: Estimate, card: Card, bits: int, context: int) -> Estimate:
    """``it`` with a KV cache of ``bits`` a number for ``context`` tokens, in the room there is."""
    flags = _share(it.flags, card)
    if bits != flags.kv_bits:
        flags = replace(flags, kv_cache_dtype="fp8")
    if context != (it.context or SHORTEST):
        flags = replace(flags, max_model_len=context, any_length=False)
    if flags.kv_cache_memory_bytes is not None and it.cache is not None:
        most = card.room - (it.weights or 0) - it.overhead
        size = _cache_size(flags.kv_cache_memory_bytes, it.cache.needed(context, bits), most)
        flags = replace(flags, kv_cache_memory_bytes=size)
    return replace(it, flags=flags)


def _cache_size(given: int, needed: int, most: int) -> int:
    """A cache of ``needed`` bytes at least and ``most`` at most, nearest to ``given``, in whole steps."""
    if needed <= given <= most:
        return given
    for step in (CACHE_STEP, MIB):
        low, high = -(-needed // step) * step, most // step * step
        if low <= high:
            return low if needed > given else high
    return -(-needed // MIB) * MIB  # it does not fit


def _words(before: Estimate, after: Estimate) -> str:
    parts = []
    if after.quantised is not before.quantised:
        size = f"{(after.weights or 0) / GIB:.1f} GiB instead of {(before.weights or 0) / GIB:.1f}"
        parts.append(f"use {four_bit_name(before.files.name)} (4-bit weights, {size})")
    arguments = changed_arguments(before.flags, after.flags)
    if arguments:
        parts.append(f"set {' '.join(arguments)}")
    return " and ".join(parts) or "nothing: it fits alone"


def with_cache_of(it: Estimate, card: Card) -> list[str] | None:
    """The arguments by which ``it`` takes no more than the room of ``card``; ``None`` if none do.

    vLLM compares ``--gpu-memory-utilization`` with what is free at its start even where the cache's size is given.
    """
    if it.weights is None or it.cache is None:
        return None
    size = (card.room - it.weights - it.overhead) // CACHE_STEP * CACHE_STEP
    if size <= 0 or size < it.cache.needed(it.context or SHORTEST, it.flags.kv_bits):
        return None
    flags = replace(it.flags, kv_cache_memory_bytes=size, gpu_memory_utilization=LOW_SHARE)
    return changed_arguments(it.flags, flags) if replace(it, flags=flags).fits_in(card.device, card.room) else None


def four_bit_name(name: str) -> str:
    """What the 4-bit build of the model ``name`` is called, by the custom of the hub."""
    known = f"{name}-AWQ"
    if known in shipped():
        return known
    return f"a 4-bit build such as {name.rstrip('/').rsplit('/', 1)[-1]}-AWQ"


def changed_arguments(before: Flags, after: Flags) -> list[str]:
    """The arguments of vLLM that lead from one to the other."""
    result = []
    if after.kv_cache_dtype != before.kv_cache_dtype:
        result.append(f"--kv-cache-dtype={after.kv_cache_dtype}")
    if after.max_model_len != before.max_model_len:
        result.append(f"--max-model-len={after.max_model_len}")
    if after.kv_cache_memory_bytes != before.kv_cache_memory_bytes:
        result.append(f"--kv-cache-memory-bytes={(after.kv_cache_memory_bytes or 0) // MIB}M")
    if after.max_pixels != before.max_pixels:
        result.append(f"'--mm-processor-kwargs={{\"max_pixels\":{after.max_pixels}}}'")
    if after.gpu_memory_utilization != before.gpu_memory_utilization:
        result.append(f"--gpu-memory-utilization={after.gpu_memory_utilization:.2f}")
    return result


def split(it: Estimate, card: Card) -> str | None:
    """How llama.cpp would share the model between card and RAM; ``None`` where it cannot, or shapes are unknown."""
    if it.shapes is None:
        return None
    tensors = from_shapes(it.shapes, GGUF)
    layers = total(tensor for tensor in tensors if LAYER.search(tensor.name))
    cache = (
        it.cache.needed(min(SPLIT_CONTEXT, it.flags.max_model_len or SPLIT_CONTEXT), 16) if it.cache is not None else 0
    )
    each = (layers + cache) // it.shapes.layers
    on_card = min(it.shapes.layers, max(0, card.room - SPLIT_RESERVE) // each)
    in_ram = total(tensors) - layers + (it.shapes.layers - on_card) * each
    if on_card < 1 or in_ram > card.ram:
        return None
    where = f"{on_card} of {it.shapes.layers} layers on the card (-ngl {on_card}), {in_ram / GIB:.1f} GiB in RAM"
    return f"run a {GGUF.name} GGUF with llama.cpp's server (launcher kind: command): {where}"
