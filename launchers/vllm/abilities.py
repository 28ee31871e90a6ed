"""What a model can do, as far as its launcher says. Clients want to know before they ask; nothing is started for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roundhouse.config.schema import Launcher, VllmLauncher
from roundhouse.footprint.flags import FlagsError, parse

TOOLS, PARSER, REASONING = "--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser"
LLAMA_CONTEXT, LLAMA_SLOTS = ("-c", "--ctx-size"), ("-np", "--parallel")
"""How llama.cpp's server is told its context, in tokens, and how many requests share it."""


def of_launcher(launcher: Launcher) -> dict[str, Any]:
    """LiteLLM's ``model_info`` of the model, as far as it follows from the launcher; what is not known is not in it.

    ``max_input_tokens`` is the whole context: what of it the prompt leaves is for the answer.
    """
    if not isinstance(launcher, VllmLauncher):
        length, slots = _number(launcher.argv, LLAMA_CONTEXT), _number(launcher.argv, LLAMA_SLOTS)
        return {"max_input_tokens": length // max(1, slots)} if length else {}
    names = {word.split("=")[0].replace("_", "-") for word in launcher.args}
    info: dict[str, Any] = {"supports_function_calling": {TOOLS, PARSER} <= names}
    if REASONING in names:
        info["supports_reasoning"] = True
    try:
        context = parse(launcher.args).max_model_len
    except FlagsError:  # vLLM will say so
        context = None
    if context is not None:
        info["max_input_tokens"] = context
    return info


def of_files(folder: Path) -> dict[str, Any]:
    """What the model's ``config.json`` says besides: whether its embeddings may be shortened (``dimensions``).

    vLLM goes by the same two entries (``vllm/config/model.py``, ``is_matryoshka``).
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(config, dict):
        return {}
    return {"supports_dimensions": bool(config.get("matryoshka_dimensions") or config.get("is_matryoshka"))}


def _number(words: Sequence[str], names: Sequence[str]) -> int:
    """The number after the last of ``names`` in a command line; 0 where there is none."""
    found = ""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names:
            found = value if equals else following
    return int(found) if found.isdigit() else 0
