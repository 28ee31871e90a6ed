"""Folders as the model hub would give them for the models of the shipped YAMLs, without their weights.

The configurations are those that the product ships (footprint/known_models.json) and what a real one has beside; the
tokenizer is the tiny models'; the weights' file has a header with one tensor of each kind, enough for vLLM to see what
is stored how.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from roundhouse.footprint.headers import Tensor
from tests.support.models import write_safetensors

KNOWN = Path(__file__).resolve().parents[2] / "footprint" / "known_models.json"
BESIDE: dict[str, Any] = {
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "sliding_window": None,
    "initializer_range": 0.02,
    "transformers_version": "4.49.0",
    "bos_token_id": 0,
    "eos_token_id": 2,
}
VISION = {
    "model_type": "qwen2_5_vl",
    "num_heads": 16,
    "in_chans": 3,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "spatial_patch_size": 14,
}
PICTURES = {
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "image_token_id": 5,
    "video_token_id": 6,
    "vision_start_token_id": 7,
    "vision_end_token_id": 8,
    "vision_token_id": 9,
}

PROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2_5_VLProcessor",
}
"""What Qwen2.5-VL has in ``preprocessor_config.json``."""


def write(model: str, root: Path, tiny: Path) -> Path:
    """The folder of the hub's ``model`` under ``root``; ``tiny`` is where the tiny models are."""
    config = configuration(model)
    folder = root / model.rsplit("/", 1)[-1]
    if folder.exists():
        return folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for file in (tiny / "chat").iterdir():
        if file.suffix != ".safetensors" and file.name not in ("config.json", "roundhouse.json"):
            shutil.copy(file, folder)
    if "vision_config" in config:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    write_safetensors(folder / "model.safetensors", stored(config))
    return folder


def configuration(model: str) -> dict[str, Any]:
    """What is in ``config.json`` of the hub's ``model``."""
    config: dict[str, Any] = {**BESIDE, **json.loads(KNOWN.read_text())[model]}
    config["max_window_layers"] = config["num_hidden_layers"]
    if "quantization_config" in config:
        left = ["visual"] if "vision_config" in config else None
        config["quantization_config"] |= {"version": "gemm", "modules_to_not_convert": left}
    if "vision_config" in config:
        config |= PICTURES
        config["vision_config"] = {**VISION, **config["vision_config"]}
    return config


def stored(config: dict[str, Any]) -> list[Tensor]:
    """One tensor of each kind, each of one number. A stored output layer would not be taken for a tied one."""
    quantised = "quantization_config" in config
    ends = ["model.embed_tokens"] + ["lm_head"] * (not config["tie_word_embeddings"])
    names = [f"model.layers.0.self_attn.{part}_proj" for part in "qkvo"]
    kinds = (("qweight", "I32", 4), ("scales", "F16", 2)) if quantised else (("weight", "F16", 2),)
    parts = [Tensor(f"{name}.{kind}", width, (1,), size) for name in names for kind, width, size in kinds]
    return [Tensor(f"{name}.weight", "F16", (1,), 2) for name in ends] + parts


def known() -> list[str]:
    """The hub's names of all models that the product knows in 4 bits."""
    return [name for name in json.loads(KNOWN.read_text()) if name.endswith("-AWQ")]
