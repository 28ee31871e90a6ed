"""The KV cache as vLLM hands it out, in blocks of which it keeps one back: what it takes, and what it holds. Pure.

From ``v1/core/kv_cache_utils.py`` of vLLM 0.32. Layers of a kind share a *group*; all groups have the same number of
layers and take their blocks from one pool, so that a block costs the same whichever group has it. vLLM starts if the
pool, without the one block that stands for "nothing", holds one request of ``--max-model-len`` tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from roundhouse.footprint.shapes import Shapes

BLOCK, LATENT_BLOCK = 16, 64
"""Tokens of a block without ``--block-size``: vLLM's default, which FlashAttention, Triton and FlashInfer take; and the
biggest that a backend for MLA wants on the cards of one workstation (FlashMLA; the others have 16 or 32)."""

KEPT_BACK = 1
"""Blocks of the pool that no request gets (``BlockPool``'s null block)."""

STEPS = 2
"""Steps whose tokens are on their way at once: vLLM schedules one while it computes another."""

PADDING = 1.5
"""Up to so many times as many layers of one kind as of the other, both groups get the larger number."""


@dataclass(frozen=True, slots=True)
class Cache:
    """``layers`` keep every token of a request, ``windowed`` more the last ``window``; a token is ``numbers`` in each.

    A windowed layer also keeps the tokens that are on their way, ``step`` a step. ``block``: tokens of a block.
    """

    numbers: int
    layers: int
    windowed: int = 0
    window: int = 0
    step: int = 0
    block: int = BLOCK

    def per_token(self, bits: int) -> int:
        """Bytes of one more token, as long as no window is full; ``bits`` is the width of a number."""
        return self.numbers * (self.layers + self.windowed) * bits // 8

    def needed(self, tokens: int, bits: int) -> int:
        """Bytes without which vLLM does not start, if one request may have ``tokens`` tokens."""
        blocks = -(-tokens // self.block)
        full, windowed = self._groups
        each_window = min(blocks, self._window_blocks) + 1  # it may begin inside a block
        return (full * blocks + windowed * each_window + KEPT_BACK) * self._block_bytes(bits)

    def holds(self, size: int, bits: int) -> int | None:
        """How many tokens one request may have in ``size`` bytes; ``None``: as many as it likes."""
        if not self._block_bytes(bits):
            return None
        pool = max(0, size) // self._block_bytes(bits) - KEPT_BACK
        full, windowed = self._groups
        most = self._window_blocks
        if pool < full * most + windowed * (most + 1) or not windowed:
            return max(0, pool - windowed) // (full + windowed) * self.block
        return (pool - windowed * (most + 1)) // full * self.block if full else None

    def _block_bytes(self, bits: int) -> int:
        """What a block takes: its tokens in every layer of a group."""
        return self.block * self.numbers * self._group_layers * bits // 8

    @property
    def _group_layers(self) -> int:
        fewer, more = sorted((self.layers, self.windowed))
        return more if more < PADDING * fewer or not fewer else fewer

    @property
    def _groups(self) -> tuple[int, int]:
        """How many groups of layers keep everything, and how many a window."""
        each = max(1, self._group_layers)
        return -(-self.layers // each), -(-self.windowed // each)

    @property
    def _window_blocks(self) -> int:
        return -(-(self.window - 1 + self.step * STEPS) // self.block) if self.windowed else 0


def cache(shapes: Shapes, step: int, block: int | None = None) -> Cache:
    """The cache of a model: keys and values of every KV head, ``2 * kv_heads * head_dim`` numbers a layer.

    With MLA it is the latent alone. ``step``: tokens of one step of the engine; ``block``: vLLM's ``--block-size``.
    """
    return Cache(
        numbers=shapes.latent or 2 * shapes.kv_heads * shapes.head_dim,
        layers=shapes.kv_layers,
        windowed=shapes.window_layers,
        window=shapes.window,
        step=step,
        block=block or (LATENT_BLOCK if shapes.latent else BLOCK),
    )
