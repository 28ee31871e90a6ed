"""The KV cache: bytes per token, and how many tokens go into so many bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from roundhouse.footprint.shapes import Shapes


@dataclass(frozen=True, slots=True)
class Cache:
    """``numbers`` a token takes in the layers that keep everything, ``windowed`` in those that keep ``window`` tokens.

    A windowed layer holds ``window`` tokens of a request and the ``step`` that is being added (vLLM's hybrid KV
    manager, ``v1/kv_cache_interface.py``: ``SlidingWindowSpec.max_memory_usage_bytes``).
    """

    numbers: int
    windowed: int = 0
    window: int = 0
    step: int = 0

    def per_token(self, bits: int) -> int:
        """Bytes of one more token, as long as no window is full; ``bits`` is the width of a number."""
        return (self.numbers + self.windowed) * bits // 8

    def needed(self, tokens: int, bits: int) -> int:
        """Bytes of one request of ``tokens`` tokens."""
        kept = min(tokens, self.window + self.step)
        return (self.numbers * tokens + self.windowed * kept) * bits // 8

    def holds(self, size: int, bits: int) -> int | None:
        """How many tokens one request may have in ``size`` bytes; ``None``: as many as it likes."""
        numbers = max(0, size) * 8 // bits
        each, full = self.numbers + self.windowed, self.window + self.step
        if not self.windowed or numbers < each * full:
            return numbers // each if each else None
        if not self.numbers:
            return None
        return (numbers - self.windowed * full) // self.numbers


def cache(shapes: Shapes, step: int) -> Cache:
    """The cache of a model: keys and values of every KV head, ``2 * kv_heads * head_dim`` numbers a layer.

    With MLA it is the latent alone. ``step``: tokens of one step of the engine.
    """
    layer = shapes.latent or 2 * shapes.kv_heads * shapes.head_dim
    return Cache(layer * shapes.kv_layers, layer * shapes.window_layers, shapes.window, step)
