"""Configurations of real models, as they are on the hub, and whatever else calls itself a configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roundhouse.footprint import estimate
from roundhouse.footprint.files import ModelFiles
from roundhouse.footprint.flags import parse
from roundhouse.footprint.headers import FilesError
from roundhouse.footprint.need import GIB
from roundhouse.footprint.quantisation import BF16
from roundhouse.footprint.shapes import ShapesError, shapes
from roundhouse.footprint.weights import from_shapes
from roundhouse.plan.advice import Card, advise
from tests.support import models

CARD = int(15.48 * GIB)


def text(
    kind: str, hidden: int, wide: int, layers: int, heads: int, kv: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocab,
        **more,
    }


def of(architecture: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], **text(*args, **more)}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "image_size": 896, "patch_size": 14}
QWEN2VL = {
    "depth": 32,
    "embed_dim": 1280,
    "hidden_size": 3584,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
}

REAL: dict[str, tuple[dict[str, Any], float, int]] = {
    "qwen2.5-0.5b": (
        of("Qwen2ForCausalLM", "qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
        0.494,
        12_288,
    ),
    "qwen2.5-3b": (
        of("Qwen2ForCausalLM", "qwen2", 2048, 11008, 36, 16, 2, 151936, tie_word_embeddings=True),
        3.09,
        36_864,
    ),
    "qwen2.5-32b": (of("Qwen2ForCausalLM", "qwen2", 5120, 27648, 64, 40, 8, 152064), 32.8, 262_144),
    "qwen2.5-72b": (of("Qwen2ForCausalLM", "qwen2", 8192, 29568, 80, 64, 8, 152064), 72.7, 327_680),
    "qwen3-0.6b": (
        of("Qwen3ForCausalLM", "qwen3", 1024, 3072, 28, 16, 8, 151936, head_dim=128, tie_word_embeddings=True),
        0.596,
        114_688,
    ),
    "qwen3-8b": (of("Qwen3ForCausalLM", "qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128), 8.19, 147_456),
    "qwen3-32b": (of("Qwen3ForCausalLM", "qwen3", 5120, 25600, 64, 64, 8, 151936, head_dim=128), 32.8, 262_144),
    "qwen3-30b-a3b": (
        of(
            "Qwen3MoeForCausalLM",
            "qwen3_moe",
            2048,
            6144,
            48,
            32,
            4,
            151936,
            head_dim=128,
            num_experts=128,
            moe_intermediate_size=768,
        ),
        30.5,
        98_304,
    ),
    "qwen1.5-moe": (
        of(
            "Qwen2MoeForCausalLM",
            "qwen2_moe",
            2048,
            5632,
            24,
            16,
            16,
            151936,
            num_experts=60,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
        ),
        14.3,
        196_608,
    ),
    "qwen2-vl-7b": (
        of("Qwen2VLForConditionalGeneration", "qwen2_vl", 3584, 18944, 28, 28, 4, 152064, vision_config=QWEN2VL),
        8.29,
        57_344,
    ),
    "llama-3.1-8b": (
        of(
            "LlamaForCausalLM",
            "llama",
            4096,
            14336,
            32,
            32,
            8,
            128256,
            rope_scaling=LLAMA3,
            max_position_embeddings=131072,
        ),
        8.03,
        131_072,
    ),
    "llama-3.2-1b": (
        of("LlamaForCausalLM", "llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64, tie_word_embeddings=True),
        1.24,
        32_768,
    ),
    "llama-2-7b": (of("LlamaForCausalLM", "llama", 4096, 11008, 32, 32, 32, 32000), 6.74, 524_288),
    "mistral-7b": (
        of("MistralForCausalLM", "mistral", 4096, 14336, 32, 32, 8, 32768, sliding_window=None),
        7.25,
        131_072,
    ),
    "mistral-7b-v0.1": (
        of("MistralForCausalLM", "mistral", 4096, 14336, 32, 32, 8, 32000, sliding_window=4096),
        7.24,
        131_072,
    ),
    "mistral-nemo": (of("MistralForCausalLM", "mistral", 5120, 14336, 40, 32, 8, 131072, head_dim=128), 12.2, 163_840),
    "mistral-small-3.1": (
        {
            "architectures": ["Mistral3ForConditionalGeneration"],
            "model_type": "mistral3",
            "text_config": text("mistral", 5120, 32768, 40, 32, 8, 131072, head_dim=128),
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "image_size": 1540,
                "patch_size": 14,
                "hidden_act": "silu",
            },
        },
        24.0,
        163_840,
    ),
    "mixtral-8x7b": (
        of("MixtralForCausalLM", "mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8),
        46.7,
        131_072,
    ),
    "gemma-2-9b": (of("Gemma2ForCausalLM", "gemma2", 3584, 14336, 42, 16, 8, 256000, head_dim=256), 9.24, 344_064),
    "gemma-3-4b": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "sliding_window": 1024,
            },
            "vision_config": SIGLIP,
        },
        4.3,
        139_264,
    ),
    "gemma-3-27b": (
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "head_dim": 128,
                "hidden_size": 5376,
                "intermediate_size": 21504,
                "num_attention_heads": 32,
                "num_hidden_layers": 62,
                "num_key_value_heads": 16,
                "sliding_window": 1024,
            },
            "vision_config": SIGLIP,
        },
        27.4,
        507_904,
    ),
    "phi-3-mini": (
        of(
            "Phi3ForCausalLM",
            "phi3",
            3072,
            8192,
            32,
            32,
            32,
            32064,
            sliding_window=262144,
            max_position_embeddings=131072,
        ),
        3.82,
        393_216,
    ),
    "phi-4": (of("Phi3ForCausalLM", "phi3", 5120, 17920, 40, 40, 10, 100352), 14.7, 204_800),
}
"""A configuration, its billions of parameters as its model card has them, its KV bytes per token at 16 bits."""


@pytest.mark.parametrize("name", list(REAL))
def test_a_known_architecture_is_understood(name: str) -> None:
    config, billions, each = REAL[name]
    found = shapes(config)
    assert not found.unknown
    assert sum(it.count for it in from_shapes(found, BF16)) / 1e9 == pytest.approx(billions, rel=0.03)
    cache = estimate.of_files(ModelFiles(name, "folder", config), parse([]), CARD).cache
    assert cache is not None
    assert cache.per_token(16) == each


def test_yarn_stretches_the_context_and_llama_has_done_so_already() -> None:
    assert shapes(REAL["llama-3.1-8b"][0]).max_position == 131_072
    assert (
        shapes(REAL["qwen3-8b"][0] | {"max_position_embeddings": 40960, "rope_scaling": YARN}).max_position == 131_072
    )


def test_windows_are_found_where_each_family_writes_them() -> None:
    assert (shapes(REAL["gemma-2-9b"][0]).kv_layers, shapes(REAL["gemma-2-9b"][0]).window) == (21, 4096)
    assert (shapes(REAL["gemma-3-4b"][0]).kv_layers, shapes(REAL["gemma-3-4b"][0]).window_layers) == (5, 29)
    assert shapes(REAL["mistral-7b-v0.1"][0]).kv_layers == 0
    listed = REAL["qwen3-8b"][0] | {"layer_types": ["full_attention", "sliding_attention"] * 18, "sliding_window": 512}
    assert (shapes(listed).kv_layers, shapes(listed).window_layers) == (18, 18)
    off = REAL["qwen2.5-3b"][0] | {"use_sliding_window": False, "sliding_window": 32768}
    assert shapes(off).window_layers == 0


def test_layers_with_a_state_are_said_to_be_unknown() -> None:
    hybrid = REAL["qwen3-8b"][0] | {"layer_types": ["linear_attention"] * 27 + ["full_attention"] * 9}
    found = shapes(hybrid)
    assert found.kv_layers == 9
    assert "27 of 36 layers keep a state" in found.unknown[0]


def test_an_unknown_architecture_says_so_and_its_weights_are_known_by_their_headers(tmp_path: Path) -> None:
    config = REAL["qwen2.5-0.5b"][0]
    folder = models.write_model(
        tmp_path / "new", config | {"architectures": ["NewForCausalLM"]}, models.qwen(config, "bf16")
    )
    found = estimate.of(str(folder))
    assert found.weights == pytest.approx(0.988e9, rel=0.01)
    assert "NewForCausalLM is not an architecture that plan knows" in found.unknown[0]


def test_an_architecture_of_other_keys_still_has_its_weights(tmp_path: Path) -> None:
    folder = models.write_model(
        tmp_path / "odd", {"architectures": ["OddModel"], "blocks": 12}, models.qwen(REAL["qwen2.5-0.5b"][0], "bf16")
    )
    found = estimate.of(str(folder))
    assert found.weights == pytest.approx(0.988e9, rel=0.01)
    assert found.cache is None
    assert found.unknown == (
        "config.json lacks num_hidden_layers, hidden_size, num_attention_heads, vocab_size: "
        "KV cache and peak cannot be told",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": None}, "lacks num_hidden_layers"),
        ({"hidden_size": -1}, "has hidden_size = -1, which is no size"),
        ({"vocab_size": "many"}, "has vocab_size = 'many', which is no size"),
        ({"num_attention_heads": 0}, "has num_attention_heads = 0, which is no size"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_one_line(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ShapesError, match=words) as error:
        shapes(REAL["qwen2.5-3b"][0] | change)
    assert "\n" not in str(error.value)


def test_a_truncated_header_is_one_line(tmp_path: Path) -> None:
    folder = models.write_model(tmp_path / "m", REAL["qwen2.5-0.5b"][0], models.qwen(REAL["qwen2.5-0.5b"][0], "bf16"))
    shard = sorted(folder.glob("*.safetensors"))[0]
    whole = shard.read_bytes()[:20_000]
    for content in (whole[:100], whole[:5], b"", b"\xff" * 200):
        shard.write_bytes(content)
        with pytest.raises(FilesError, match=f"{shard.name} is truncated") as error:
            estimate.of(str(folder))
        assert "\n" not in str(error.value)
    shard.write_bytes((10).to_bytes(8, "little") + b"not JSON!!")
    with pytest.raises(FilesError, match="no safetensors header"):
        estimate.of(str(folder))


def test_weights_that_end_too_early_are_said_to(tmp_path: Path) -> None:
    folder = models.write_model(
        tmp_path / "m", REAL["qwen2.5-0.5b"][0], models.qwen(REAL["qwen2.5-0.5b"][0], "bf16"), 1
    )
    shard = next(folder.glob("*.safetensors"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1000)
    with pytest.raises(FilesError, match="1000 bytes are missing"):
        estimate.of(str(folder))


@pytest.mark.parametrize("content", ["", "[1]", "{", "nul"])
def test_a_configuration_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(FilesError, match=r"config\.json") as error:
        estimate.of(str(tmp_path))
    assert "\n" not in str(error.value)


def test_what_is_nowhere_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FilesError, match="is not on this machine"):
        estimate.of("someone/something")
    with pytest.raises(FilesError, match="is no folder"):
        estimate.of(str(tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FilesError, match="has neither"):
        estimate.of(str(tmp_path / "empty"))


QUANTISATION = ("quantization_config", "bits", "group_size", "quant_method", "config_groups", "weights", "num_bits")
KEYS = sorted({key for config, _, _ in REAL.values() for key in config} | {"layer_types", *QUANTISATION})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(list(REAL)), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4), st.integers(1, 100))
def test_no_configuration_is_a_crash(name: str, changes: dict[str, Any], gib: int) -> None:
    config = json.loads(json.dumps(REAL[name][0] | changes))
    found = estimate.of_files(ModelFiles(name, "folder", config), parse([]), gib * GIB)
    assert found.shapes is not None or found.unknown
    if found.cache is not None and (found.context or 0) < 10**7:
        assert advise(found, Card(gib * GIB, gib * GIB, 64 * GIB))
