"""Model folders with a ``config.json`` and weights that are all header: sparse files, however big."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from roundhouse.footprint.headers import Tensor

QUANTISED = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}


def write_safetensors(path: Path, tensors: Iterable[Tensor]) -> None:
    """A file of the right length that takes no room on the disk."""
    header, at = {}, 0
    for it in tensors:
        header[it.name] = {"dtype": it.dtype, "shape": list(it.shape), "data_offsets": [at, at + it.size]}
        at += it.size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)


def linear(name: str, out: int, into: int, kind: str) -> list[Tensor]:
    """A linear layer as AutoAWQ, GPTQModel (8 bits), an FP8 quantiser or nobody stores it."""
    groups = into // 128
    if kind == "awq":
        packed = Tensor(f"{name}.qweight", "I32", (into, out // 8), into * out // 2)
        zeros = Tensor(f"{name}.qzeros", "I32", (groups, out // 8), groups * out // 2)
        return [packed, zeros, Tensor(f"{name}.scales", "F16", (groups, out), groups * out * 2)]
    if kind == "int8":
        packed = Tensor(f"{name}.qweight", "I32", (into // 4, out), into * out)
        zeros = Tensor(f"{name}.qzeros", "I32", (groups, out // 4), groups * out)
        order = Tensor(f"{name}.g_idx", "I32", (into,), into * 4)
        return [packed, zeros, order, Tensor(f"{name}.scales", "F16", (groups, out), groups * out * 2)]
    if kind == "fp8":
        scale = Tensor(f"{name}.weight_scale", "BF16", (out, 1), out * 2)
        return [Tensor(f"{name}.weight", "F8_E4M3", (out, into), out * into), scale]
    return [Tensor(f"{name}.weight", "BF16", (out, into), out * into * 2)]


def plain(name: str, *shape: int) -> Tensor:
    """A tensor in 16 bits."""
    count = 2
    for length in shape:
        count *= length
    return Tensor(name, "BF16", shape, count)


def qwen(config: dict[str, Any], kind: str) -> list[Tensor]:
    """Every tensor of a Qwen2.5, or of a Qwen2.5-VL if ``config`` has its tower."""
    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    result = [plain("model.embed_tokens.weight", vocab, hidden), plain("model.norm.weight", hidden)]
    if not config["tie_word_embeddings"]:
        result.append(plain("lm_head.weight", vocab, hidden))
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        for name, out, into in (
            ("self_attn.q_proj", hidden, hidden),
            ("self_attn.k_proj", keys, hidden),
            ("self_attn.v_proj", keys, hidden),
            ("self_attn.o_proj", hidden, hidden),
            ("mlp.gate_proj", wide, hidden),
            ("mlp.up_proj", wide, hidden),
            ("mlp.down_proj", hidden, wide),
        ):
            result += linear(f"{at}.{name}", out, into, kind)
        result += [
            plain(f"{at}.self_attn.{name}.bias", size) for name, size in zip("qkv", (hidden, keys, keys), strict=True)
        ]
        result += [plain(f"{at}.{name}_layernorm.weight", hidden) for name in ("input", "post_attention")]
    return result + (tower(config["vision_config"]) if "vision_config" in config else [])


def tower(config: dict[str, Any]) -> list[Tensor]:
    """Qwen2.5-VL's vision tower, which no quantiser touches."""
    wide, inner, out = config["hidden_size"], config["intermediate_size"], config["out_hidden_size"]
    result = [plain("visual.patch_embed.proj.weight", wide, 3, 2, 14, 14)]
    for block in range(config["depth"]):
        at = f"visual.blocks.{block}"
        result += [plain(f"{at}.norm1.weight", wide), plain(f"{at}.norm2.weight", wide)]
        for name, rows, columns in (
            ("attn.qkv", 3 * wide, wide),
            ("attn.proj", wide, wide),
            ("mlp.gate_proj", inner, wide),
            ("mlp.up_proj", inner, wide),
            ("mlp.down_proj", wide, inner),
        ):
            result += [plain(f"{at}.{name}.weight", rows, columns), plain(f"{at}.{name}.bias", rows)]
    merged = 4 * wide
    result += [plain("visual.merger.ln_q.weight", wide)]
    for name, rows in (("0", merged), ("2", out)):
        result += [
            plain(f"visual.merger.mlp.{name}.weight", rows, merged),
            plain(f"visual.merger.mlp.{name}.bias", rows),
        ]
    return result


def write_model(folder: Path, config: dict[str, Any], tensors: Iterable[Tensor], shards: int = 2) -> Path:
    """A folder as the hub's: ``config.json``, the index and ``shards`` files."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    every = list(tensors)
    names = [f"model-{number + 1:05}-of-{shards:05}.safetensors" for number in range(shards)]
    for number, name in enumerate(names):
        write_safetensors(folder / name, every[number::shards])
    where = {it.name: names[number % shards] for number, it in enumerate(every)}
    total = sum(it.size for it in every)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_qwen(folder: Path, config: dict[str, Any], kind: str) -> Path:
    """A Qwen2.5 folder in ``bf16``, ``fp8``, ``int8`` (GPTQ) or ``awq``."""
    methods: dict[str, dict[str, Any]] = {
        "awq": QUANTISED,
        "int8": {"quant_method": "gptq", "bits": 8, "group_size": 128},
        "fp8": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
    }
    config = {key: value for key, value in config.items() if key != "quantization_config"}
    if kind in methods:
        config["quantization_config"] = methods[kind]
    return write_model(folder, config, qwen(config, kind))
