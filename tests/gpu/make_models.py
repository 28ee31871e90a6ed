"""Models of Qwen2.5's real shapes at a reduced depth, with random weights. A script for the engine environment.

    ENGINE_PYTHON tests/gpu/make_models.py FOLDER NAME ...

Real files, not vLLM's ``--load-format dummy``: what sleeps at level 2 reads its weights again, and dummies have none.
The tokenizer is the tiny models'. Rows of the output layer beyond it are zero, so that greedy answers stay within it.

A name that ends in ``-awq`` is stored as AutoAWQ stores 4-bit weights: loading it converts every linear layer, and so
does waking it from level 2, which is where such a model differs from others.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECIPE = 2
"""Count up when a change makes different models: those that an older recipe made are then made again."""

VOCABULARY = 152064
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-14b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "num_hidden_layers": 4,
    },
    "qwen2.5-7b-awq": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 8,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "num_hidden_layers": 28,
    },
}

AWQ = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": None,
}
"""The ``quantization_config`` of Qwen's own AWQ models."""

SPREAD = 0.02
"""Standard deviation of the weights: transformers' ``initializer_range`` for Qwen2."""

AWQ_SCALE = SPREAD / 6.52
"""A weight is ``(number - zero) * scale`` with both from 0 to 15: their difference has a standard deviation of 6.52."""

BITS = 2**31


def describe(name: str) -> dict[str, Any]:
    """What decides how a model looks; a folder with another one in its ``made`` file is made again."""
    return {"recipe": RECIPE, "vocabulary": VOCABULARY, **SHAPES[name]}


def is_made(folder: Path, name: str) -> bool:
    """Whether the model of this recipe is complete in ``folder``."""
    made = folder / "made"
    return made.exists() and json.loads(made.read_text(encoding="utf-8")) == describe(name)


def make(name: str, folder: Path, seed: int) -> None:
    """Make one model. It is complete when its ``made`` file is there."""
    import tiny_models
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer = tiny_models.make_tokenizer(
        folder, tiny_models.TEXT_TOKENS, tiny_models.CHAT_TEMPLATE, end=tiny_models.END
    )
    ids = {**tiny_models.token_ids(tokenizer, tiny_models.END), "vocab_size": VOCABULARY}
    config = Qwen2Config(**SHAPES[name], **ids, max_position_embeddings=32768, tie_word_embeddings=False)
    config.architectures = ["Qwen2ForCausalLM"]
    config.save_pretrained(folder)
    awq = name.endswith("-awq")
    kind: dict[str, Any] = {"torch_dtype": "float16" if awq else "bfloat16"}
    kind |= {"quantization_config": AWQ} if awq else {}
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(described | kind, indent=2), encoding="utf-8")
    with torch.device("meta"):  # names and shapes alone
        plain = {key: tuple(it.shape) for key, it in Qwen2ForCausalLM(config).state_dict().items()}
    torch.manual_seed(seed)
    tensors = dict(awq_tensors(plain) if awq else plain_tensors(plain, torch.bfloat16))
    tensors["lm_head.weight"][len(tokenizer) :] = 0
    save_file({key: it.cpu() for key, it in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "made").write_text(json.dumps(describe(name)), encoding="utf-8")


def plain_tensors(shapes: dict[str, tuple[int, ...]], dtype: Any) -> Iterator[tuple[str, Any]]:
    """Random weights, as transformers would initialise them."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, shape in shapes.items():
        if name.endswith("norm.weight"):
            yield name, torch.ones(shape, dtype=dtype, device=device)
        else:
            yield name, torch.empty(shape, dtype=dtype, device=device).normal_(0, SPREAD)


def awq_tensors(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, Any]]:
    """The same with each linear layer of a block in 4 bits: eight numbers of the output in one of 32 bits."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, shape in shapes.items():
        if not (name.startswith("model.layers.") and name.endswith("proj.weight")):
            yield from plain_tensors({name: shape}, torch.float16)
            continue
        (out, into), at = shape, name.removesuffix("weight")
        groups = into // AWQ["group_size"]
        for part, rows in (("qweight", into), ("qzeros", groups)):
            yield at + part, torch.randint(-BITS, BITS, (rows, out // 8), dtype=torch.int32, device=device)
        yield at + "scales", torch.full((groups, out), AWQ_SCALE, dtype=torch.float16, device=device)


def main() -> None:
    """Make those that are missing."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "launchers" / "vllm"))
    import tiny_models

    os.environ.update(tiny_models.QUIET)
    for name in sys.argv[2:]:
        folder = Path(sys.argv[1]) / name
        if not is_made(folder, name):
            make(name, folder, list(SHAPES).index(name))
        print(name, flush=True)


if __name__ == "__main__":
    main()
