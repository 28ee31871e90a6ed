"""How much the weights take: by the tensors that are stored, or, without files, by the shapes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from roundhouse.footprint.headers import Tensor
from roundhouse.footprint.quantisation import Quantisation
from roundhouse.footprint.shapes import Shapes, Vision

LAYER = re.compile(r"\blayers\.(\d+)\.")
NOT_QUANTISED = re.compile(r"visual|vision|embed|lm_head|norm|router|mlp\.gate\.", re.IGNORECASE)
"""What quantisers leave in 16 bits: vision towers, embeddings, the output layer, norms, a router of experts."""

FUSED = (
    (re.compile(r"\b[qkv]_proj\b"), "qkv_proj"),
    (re.compile(r"\b(gate|up)_proj\b"), "gate_up_proj"),
    (re.compile(r"\bexperts\.\d+\.w?[13]\b"), "experts.gate_up_proj"),
    (re.compile(r"\bexperts\.\d+\."), "experts."),
)
"""vLLM keeps these as one tensor."""


def loaded(tensors: Sequence[Tensor], shapes: Shapes | None, quantised: Quantisation) -> tuple[Tensor, ...]:
    """The stored ``tensors`` as vLLM keeps them: 32-bit floats become 16 bits, and what it quantises itself shrinks.

    An output layer that is stored beside the embeddings to which it is tied is not loaded.
    """
    return tuple(
        _loaded(it, quantised)
        for it in tensors
        if not (shapes is not None and shapes.tied and it.name.endswith("lm_head.weight"))
    )


def _loaded(it: Tensor, quantised: Quantisation) -> Tensor:
    if it.dtype == "F32" and quantised.name != "fp32" and quantised.plain:
        return Tensor(it.name, "BF16", it.shape, it.size // 2)
    linear = len(it.shape) == 2 and it.name.endswith(".weight") and not NOT_QUANTISED.search(it.name)
    if not quantised.stored and linear:
        return Tensor(it.name, "U8", it.shape, int(it.count * quantised.bits / 8))
    return it


def fused(name: str) -> str:
    """The name of the tensor as part of which vLLM keeps the one called ``name``."""
    for pattern, into in FUSED:
        name = pattern.sub(into, name)
    return name


def total(tensors: Iterable[Tensor]) -> int:
    """Their size together, in bytes."""
    return sum(it.size for it in tensors)


def from_shapes(shapes: Shapes, quantised: Quantisation) -> tuple[Tensor, ...]:
    """The tensors that a model of these ``shapes`` has, named as Hugging Face names them.

    Exact for dense decoders with rotary positions; for others within a few per cent.
    """
    plain = 4 if quantised.name == "fp32" else 2
    result = [_plain("model.embed_tokens.weight", (shapes.vocab, shapes.hidden), plain)]
    for layer in range(shapes.layers):
        result += _layer(shapes, quantised, plain, f"model.layers.{layer}.")
    result.append(_plain("model.norm.weight", (shapes.hidden,), plain))
    if not shapes.tied:
        result.append(_plain("lm_head.weight", (shapes.vocab, shapes.hidden), plain))
    if shapes.vision is not None:
        result += _tower(shapes.vision, shapes.hidden, plain)
    return tuple(result)


def _plain(name: str, shape: tuple[int, ...], width: int) -> Tensor:
    count = 1
    for length in shape:
        count *= length
    return Tensor(name, "F32" if width == 4 else "BF16", shape, count * width)


def _linear(name: str, out: int, into: int, quantised: Quantisation) -> Tensor:
    kind = {16: "BF16", 32: "F32"}.get(int(quantised.bits), "I32") if quantised.plain else "I32"
    return Tensor(f"{name}.weight", kind, (out, into), int(out * into * quantised.bits / 8))


def _layer(it: Shapes, quantised: Quantisation, plain: int, at: str) -> Iterator[Tensor]:
    queries, keys = it.heads * it.head_dim, it.kv_heads * it.head_dim
    if it.latent:  # MLA: queries as they are, keys and values by way of the latent
        keys = it.latent
    for name, out, into in (
        ("q_proj", queries, it.hidden),
        ("k_proj", keys, it.hidden),
        ("v_proj", keys, it.hidden),
        ("o_proj", it.hidden, queries),
    ):
        yield _linear(f"{at}self_attn.{name}", out, into, quantised)
        if it.attention_bias and name != "o_proj":
            yield _plain(f"{at}self_attn.{name}.bias", (out,), plain)
    yield _plain(f"{at}input_layernorm.weight", (it.hidden,), plain)
    yield _plain(f"{at}post_attention_layernorm.weight", (it.hidden,), plain)
    if not it.experts:
        yield from _mlp(f"{at}mlp.", it.hidden, it.intermediate, quantised)
        return
    yield _plain(f"{at}mlp.gate.weight", (it.experts, it.hidden), plain)
    for expert in range(it.experts):
        yield from _mlp(f"{at}mlp.experts.{expert}.", it.hidden, it.expert_intermediate, quantised)
    if it.shared_intermediate:
        yield from _mlp(f"{at}mlp.shared_expert.", it.hidden, it.shared_intermediate, quantised)


def _mlp(at: str, hidden: int, wide: int, quantised: Quantisation) -> Iterator[Tensor]:
    yield _linear(f"{at}gate_proj", wide, hidden, quantised)
    yield _linear(f"{at}up_proj", wide, hidden, quantised)
    yield _linear(f"{at}down_proj", hidden, wide, quantised)


def _tower(it: Vision, out: int, plain: int) -> Iterator[Tensor]:
    """A vision tower with its merger into the text model's width ``out``; it is never quantised."""
    yield _plain("visual.patch_embed.proj.weight", (it.hidden, 3, it.temporal, it.patch, it.patch), plain)
    for layer in range(it.layers):
        at = f"visual.blocks.{layer}."
        yield _plain(f"{at}norm1.weight", (it.hidden,), plain)
        yield _plain(f"{at}norm2.weight", (it.hidden,), plain)
        yield _plain(f"{at}attn.qkv.weight", (3 * it.hidden, it.hidden), plain)
        yield _plain(f"{at}attn.qkv.bias", (3 * it.hidden,), plain)
        yield _plain(f"{at}attn.proj.weight", (it.hidden, it.hidden), plain)
        yield _plain(f"{at}attn.proj.bias", (it.hidden,), plain)
        for name in ("gate_proj", "up_proj") if it.gated else ("fc1",):
            yield _plain(f"{at}mlp.{name}.weight", (it.intermediate, it.hidden), plain)
            yield _plain(f"{at}mlp.{name}.bias", (it.intermediate,), plain)
        yield _plain(f"{at}mlp.down_proj.weight", (it.hidden, it.intermediate), plain)
        yield _plain(f"{at}mlp.down_proj.bias", (it.hidden,), plain)
    merged = it.hidden * it.merge**2
    yield _plain("visual.merger.ln_q.weight", (it.hidden,), plain)
    yield _plain("visual.merger.mlp.0.weight", (merged, merged), plain)
    yield _plain("visual.merger.mlp.0.bias", (merged,), plain)
    yield _plain("visual.merger.mlp.2.weight", (out, merged), plain)
    yield _plain("visual.merger.mlp.2.bias", (out,), plain)
