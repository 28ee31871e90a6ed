"""Models of Qwen2.5's real shapes at a reduced depth, with random weights. A script for the engine environment.

    ENGINE_PYTHON tests/gpu/make_models.py FOLDER

Real files, not vLLM's ``--load-format dummy``: what sleeps at level 2 reads its weights again, and dummies have none.
The tokenizer is the tiny models'. Rows of the output layer beyond it are zero, so that greedy answers stay within it.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

VOCABULARY = 152064
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-14b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "num_hidden_layers": 4,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 6,
    },
    "qwen2.5-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "num_hidden_layers": 28,
    },
}


def make(name: str, folder: Path, seed: int) -> None:
    """One model, complete when its ``made`` file is there."""
    import tiny_models
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_models.make_tokenizer(
        folder, tiny_models.TEXT_TOKENS, tiny_models.CHAT_TEMPLATE, end=tiny_models.END
    )
    ids = {**tiny_models.token_ids(tokenizer, tiny_models.END), "vocab_size": VOCABULARY}
    config = Qwen2Config(**SHAPES[name], **ids, max_position_embeddings=32768, tie_word_embeddings=False)
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"), torch.no_grad():
        model = Qwen2ForCausalLM(config)
        model.lm_head.weight[len(tokenizer) :] = 0
    model.save_pretrained(folder)
    (folder / "made").write_text(json.dumps(SHAPES[name]))


def main() -> None:
    """Make those that are missing."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "launchers"))
    import tiny_models

    os.environ.update(tiny_models.QUIET)
    for seed, name in enumerate(SHAPES):
        folder = Path(sys.argv[1]) / name
        if not (folder / "made").exists() or json.loads((folder / "made").read_text()) != SHAPES[name]:
            make(name, folder, seed)
        print(name, flush=True)


if __name__ == "__main__":
    main()
