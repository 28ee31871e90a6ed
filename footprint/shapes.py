"""From a model's ``config.json`` to the few numbers that its memory depends on. Pure.

The keys are those of Hugging Face's configurations. A text model stands at the top, or under ``text_config`` where
there is a vision tower beside it. What is not understood is said in ``unknown``, and what can be told is still told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Count = Annotated[int, Field(gt=0, le=10**9)]
Layers = Annotated[int, Field(gt=0, le=1000)]
"""A bound far above any model's: what is beyond it is no number of layers, and nobody should count so many."""

FAMILIES = (
    "DeepseekV2",
    "DeepseekV3",
    "Gemma",
    "Gemma2",
    "Gemma3",
    "Llama",
    "Mistral",
    "Mistral3",
    "Mixtral",
    "Phi3",
    "Qwen2",
    "Qwen2Moe",
    "Qwen2VL",
    "Qwen2_5_VL",
    "Qwen3",
    "Qwen3Moe",
)
KNOWN = frozenset(f"{family}For{kind}" for family in FAMILIES for kind in ("CausalLM", "ConditionalGeneration"))
"""Architectures whose keys were checked against Hugging Face's configuration classes."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True, "sliding_window": 4096, "sliding_window_pattern": 2},
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
}
"""What a ``config.json`` of that ``model_type`` may leave out: transformers' configuration classes fill it in."""

STRETCH = 10_000
"""No rotary scaling stretches a context that far."""

TEXT_PARTS = ("text_config", "llm_config", "language_config")


class ShapesError(ValueError):
    """The ``config.json`` lacks what is needed, or has it wrong. The text names the keys, in one line."""


@dataclass(frozen=True, slots=True)
class Vision:
    """A vision tower: a transformer over patches; ``merge`` x ``merge`` patches become one token."""

    layers: int
    hidden: int
    intermediate: int
    gated: bool
    patch: int
    merge: int
    temporal: int = 1
    image: int | None = None


@dataclass(frozen=True, slots=True)
class Shapes:
    """A decoder: its sizes, and what of ``config.json`` is ``unknown`` to us, in words.

    ``kv_layers`` keep every token, ``window_layers`` only the last ``window``; ``latent``: numbers per token and layer
    where keys and values are kept compressed (MLA). ``experts``: 0 for a dense model.
    """

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    tied: bool
    attention_bias: bool
    max_position: int | None
    kv_layers: int
    window_layers: int = 0
    window: int = 0
    latent: int = 0
    experts: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    vision: Vision | None = None
    unknown: tuple[str, ...] = ()


class _Text(BaseModel):
    """The keys of a text model, under the names that they go by."""

    model_config = ConfigDict(extra="ignore", strict=False)

    num_hidden_layers: Layers = Field(validation_alias=AliasChoices("num_hidden_layers", "n_layer", "num_layers"))
    hidden_size: Count = Field(validation_alias=AliasChoices("hidden_size", "n_embd", "d_model"))
    num_attention_heads: Count = Field(validation_alias=AliasChoices("num_attention_heads", "n_head", "n_heads"))
    vocab_size: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    intermediate_size: Count | None = Field(
        None, validation_alias=AliasChoices("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    )
    max_position_embeddings: Count | None = Field(
        None, validation_alias=AliasChoices("max_position_embeddings", "n_positions", "max_sequence_length")
    )
    tie_word_embeddings: bool = False
    sliding_window: int | None = None
    use_sliding_window: bool = True
    sliding_window_pattern: Count | None = Field(
        None, validation_alias=AliasChoices("sliding_window_pattern", "_sliding_window_pattern")
    )
    layer_types: list[str] | None = None
    kv_lora_rank: Count | None = None
    qk_rope_head_dim: int = Field(0, ge=0)
    num_experts: int | None = Field(
        None, validation_alias=AliasChoices("num_experts", "num_local_experts", "n_routed_experts"), ge=0, le=4096
    )
    moe_intermediate_size: Count | None = None
    shared_expert_intermediate_size: int | None = Field(None, ge=0)
    rope_scaling: dict[str, Any] | None = None
    attention_bias: bool | None = None


class _Tower(BaseModel):
    """The keys of a vision tower."""

    model_config = ConfigDict(extra="ignore", strict=False)

    depth: Layers = Field(validation_alias=AliasChoices("depth", "num_hidden_layers", "num_layers"))
    hidden_size: Count = Field(validation_alias=AliasChoices("embed_dim", "hidden_size"))
    intermediate_size: Count | None = None
    mlp_ratio: float | None = Field(None, gt=0, le=100)
    patch_size: Count = 14
    spatial_merge_size: Count = 1
    temporal_patch_size: Count = 1
    image_size: int | None = None


def shapes(config: Mapping[str, Any]) -> Shapes:
    """Read ``config``, the content of a ``config.json``.

    Raises:
        ShapesError: it lacks keys without which nothing can be computed, or they are no sizes.
    """
    unknown: list[str] = []
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else "no architecture"
    if architecture not in KNOWN:
        unknown.append(f"{architecture} is not an architecture that plan knows: computed from its usual keys")
    part = next((config[it] for it in TEXT_PARTS if isinstance(config.get(it), dict)), None)
    raw = {**config, **part} if part is not None else dict(config)
    kind = str((part or config).get("model_type", ""))
    raw = DEFAULTS.get(kind, {}) | {key: value for key, value in raw.items() if value is not None}
    text = _checked(_Text, raw, "config.json")
    heads, head_dim = text.num_attention_heads, text.head_dim or text.hidden_size // text.num_attention_heads
    if text.intermediate_size is None:
        unknown.append("no intermediate_size: four times hidden_size is assumed")
    kv_layers, windowed, window = _layers(text, unknown)
    expert = text.moe_intermediate_size or text.intermediate_size or 4 * text.hidden_size
    shared = text.shared_expert_intermediate_size or 0
    return Shapes(
        architecture=architecture,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=heads,
        kv_heads=text.num_key_value_heads or heads,
        head_dim=max(1, head_dim),
        intermediate=text.intermediate_size or 4 * text.hidden_size,
        vocab=text.vocab_size,
        tied=text.tie_word_embeddings,
        attention_bias=kind.startswith("qwen2") if text.attention_bias is None else text.attention_bias,
        max_position=_longest(text),
        kv_layers=kv_layers,
        window_layers=windowed,
        window=window,
        latent=(text.kv_lora_rank + text.qk_rope_head_dim) if text.kv_lora_rank else 0,
        experts=text.num_experts or 0,
        expert_intermediate=expert if text.num_experts else 0,
        shared_intermediate=shared,
        vision=_vision(config.get("vision_config"), unknown),
        unknown=tuple(unknown),
    )


def _checked(model: type[Model], raw: Mapping[str, Any], where: str) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        missing = [str(it["loc"][0]) for it in error.errors() if it["type"] == "missing"]
        wrong = [f"{it['loc'][0]} = {it['input']!r}" for it in error.errors() if it["type"] != "missing"]
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(wrong)}, which is no size"] if wrong else []
        raise ShapesError(f"{where} {' and '.join(parts)}") from error


def _layers(text: _Text, unknown: list[str]) -> tuple[int, int, int]:
    """How many layers keep every token, how many a window of them, and how long that is."""
    total, window = text.num_hidden_layers, text.sliding_window or 0
    if text.layer_types is not None:
        windowed = sum("sliding" in it or "chunked" in it for it in text.layer_types)
        stateful = sum("linear" in it or "mamba" in it or "recurrent" in it for it in text.layer_types)
        if stateful:
            unknown.append(f"{stateful} of {total} layers keep a state instead of a KV cache: its size is not counted")
        if window <= 0 or not text.use_sliding_window:
            windowed = 0
        return max(0, total - windowed - stateful), min(windowed, total), window if windowed else 0
    if window <= 0 or not text.use_sliding_window:
        return total, 0, 0
    every = text.sliding_window_pattern
    full = total // every if every else 0
    return full, total - full, window


def _longest(text: _Text) -> int | None:
    """The longest context that the model is made for, as vLLM derives it from ``rope_scaling``."""
    longest, rope = text.max_position_embeddings, text.rope_scaling or {}
    kind = rope.get("rope_type", rope.get("type"))
    if longest is None or kind in (None, "default", "mrope", "su", "longrope", "llama3"):
        return longest
    factor = rope.get("factor")
    if kind == "yarn" and isinstance(rope.get("original_max_position_embeddings"), int):
        longest = int(rope["original_max_position_embeddings"])
    return int(longest * factor) if isinstance(factor, int | float) and 0 < factor < STRETCH else longest


def _vision(raw: object, unknown: list[str]) -> Vision | None:
    if not isinstance(raw, dict):
        return None
    try:
        tower = _checked(_Tower, raw, "vision_config")
    except ShapesError as error:
        unknown.append(f"{error}: its peak is not counted")
        return None
    # Qwen2-VL writes the text model's width as hidden_size and its own as embed_dim; others have hidden_size alone.
    wide = tower.intermediate_size or int(tower.hidden_size * (tower.mlp_ratio or 4))
    return Vision(
        layers=tower.depth,
        hidden=tower.hidden_size,
        intermediate=wide,
        gated=raw.get("hidden_act") == "silu",
        patch=tower.patch_size,
        merge=tower.spatial_merge_size,
        temporal=tower.temporal_patch_size,
        image=tower.image_size if tower.image_size and tower.image_size > 0 else None,
    )
