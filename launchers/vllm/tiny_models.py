"""Tiny models of real architectures with random weights, made on the spot where nothing can be downloaded.

A script for the engine environment (torch and transformers; roundhouse itself is not installed there):

    ENGINE_PYTHON launchers/vllm/tiny_models.py FOLDER

makes FOLDER/chat, FOLDER/code, FOLDER/vision and FOLDER/embedding, 2-3 MB each, in a few seconds. vLLM serves
them like any other model. Their text is noise, but at temperature 0 it is always the same noise, and a
different one for each model: whoever reads an answer can tell which model gave it.

A model is built beside its place and renamed into it, so a folder that exists is complete. What is there
already is kept. One line ``chat 1/4`` is printed for each model that is in place.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPE = 1
"""Count up when a change makes different models: those that an older recipe made are then made again."""

RECIPE_FILE = "roundhouse.json"
QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
VOCABULARY = 2048
CONTEXT = 16384
"""Tokens. Long, so that a request can be made to run for many seconds (``ignore_eos``)."""

TEXT_SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    # Tied random weights repeat one token for ever.
    "tie_word_embeddings": False,
    # Ten times the usual: else all tokens are about as likely, and above temperature 0 only the sampler's
    # seed decides, which is the same in every engine: two models would give one answer.
    "initializer_range": 0.2,
}

PAD, TURN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEXT_TOKENS = [PAD, TURN, END, "<tool_call>", "</tool_call>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for p in m.content or [] %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Idefics3 (the SmolVLM family) is the one vision architecture that works without torchvision. Its processor
# asks for these tokens by name: one for the image, and one for the place of each tile of a big image.
IMAGE, END_OF_UTTERANCE = "<image>", "<end_of_utterance>"
VISION_TOKENS = [
    *TEXT_TOKENS,
    *(IMAGE, "<fake_token_around_image>", "<global-img>", END_OF_UTTERANCE),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
]
VISION_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}:"
    "{% if m.content is string %} {{ m.content }}"
    "{% else %}{% for p in m.content or [] %}"
    "{% if p.type == 'text' %}{{ p.text }}{% else %}<image>{% endif %}{% endfor %}"
    "{% endif %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TILE, PATCH, SHRINK = 64, 8, 2
"""Pixels of a tile's side and of a patch's side; how many patches a side are merged into one token."""


@dataclass(frozen=True)
class TinyModel:
    """One model: how to make it in a folder, and the seed of its weights."""

    name: str
    make: Callable[[Path], None]
    seed: int


def make_chat(folder: Path) -> None:
    """A Qwen2 that answers chats."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer(folder, TEXT_TOKENS, CHAT_TEMPLATE, end=END)
    save(Qwen2ForCausalLM(Qwen2Config(**TEXT_SHAPE, **token_ids(tokenizer, END))), folder)


def make_code(folder: Path) -> None:
    """A Qwen3: another architecture, not only other weights, than the chat model."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = make_tokenizer(folder, TEXT_TOKENS, CHAT_TEMPLATE, end=END)
    config = Qwen3Config(**TEXT_SHAPE, **token_ids(tokenizer, END), head_dim=32)
    save(Qwen3ForCausalLM(config), folder)


def make_embedding(folder: Path) -> None:
    """A Qwen2 for vLLM's ``--runner pooling --convert embed``: the last hidden state is the vector."""
    make_chat(folder)


def make_vision(folder: Path) -> None:
    """An Idefics3 that takes pictures of any size and cuts them into tiles."""
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    tokenizer = make_tokenizer(folder, VISION_TOKENS, VISION_TEMPLATE, end=END_OF_UTTERANCE)
    config = Idefics3Config(
        text_config={"model_type": "llama", **TEXT_SHAPE, **token_ids(tokenizer, END_OF_UTTERANCE)},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE,
            "patch_size": PATCH,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        pad_token_id=tokenizer.pad_token_id,
        scale_factor=SHRINK,
        tie_word_embeddings=False,
    )
    save(Idefics3ForConditionalGeneration(config), folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"longest_edge": 4 * TILE},
            "do_image_splitting": True,
            "max_image_size": {"longest_edge": TILE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "do_pad": True,
        },
    )
    tokens_per_tile = (TILE // PATCH // SHRINK) ** 2
    write_json(
        folder / "processor_config.json",
        {"processor_class": "Idefics3Processor", "image_seq_len": tokens_per_tile},
    )


MODELS = (
    TinyModel("chat", make_chat, seed=1),
    TinyModel("code", make_code, seed=2),
    TinyModel("vision", make_vision, seed=3),
    TinyModel("embedding", make_embedding, seed=4),
)


def make_tokenizer(folder: Path, special: list[str], template: str, end: str) -> Any:
    """Train a byte-level BPE on Python's own sources and save it. All bytes are in it: it covers any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=end,
        pad_token=PAD,
        additional_special_tokens=[token for token in special if token not in (end, PAD)],
        model_max_length=CONTEXT,
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def corpus() -> Iterator[str]:
    """Some 300 KB of English and Python that every machine has."""
    import http
    import logging
    import typing

    for module in (argparse, http, json, logging, typing):
        yield Path(str(module.__file__)).read_text(encoding="utf-8")


def token_ids(tokenizer: Any, end: str) -> dict[str, Any]:
    """The parts of a model's configuration that depend on its tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.convert_tokens_to_ids(end),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }


def save(model: Any, folder: Path) -> None:
    """Write the weights as bfloat16."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)


def write_json(path: Path, value: object) -> None:
    """Write ``value``, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds a model made by this recipe."""
    try:
        made = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and made.get("recipe") == RECIPE


def make(model: TinyModel, root: Path) -> None:
    """Make ``model`` at ``root/NAME``, all or nothing."""
    import torch

    making = root / f".making-{model.name}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    torch.manual_seed(model.seed)
    model.make(making)
    write_json(making / RECIPE_FILE, {"recipe": RECIPE, "model": model.name, "seed": model.seed})
    shutil.rmtree(root / model.name, ignore_errors=True)
    making.rename(root / model.name)


@contextmanager
def alone_in(root: Path) -> Iterator[None]:
    """Only one process at a time makes models in ``root``."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Make the models that are missing. Exit code 0: all are there; 1: the folder can't be written."""
    parser = argparse.ArgumentParser(description="Make tiny random-weight models for vLLM.")
    parser.add_argument("folder", type=Path)
    root: Path = parser.parse_args(arguments).folder
    os.environ.update(QUIET)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with alone_in(root):
            for number, model in enumerate(MODELS, start=1):
                if not is_complete(root / model.name):
                    make(model, root)
                print(f"{model.name} {number}/{len(MODELS)}", flush=True)
    except OSError as error:
        print(f"cannot make the tiny models in {root}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
