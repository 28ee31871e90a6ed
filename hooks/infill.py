"""Fill-in-the-middle: a completion with a ``suffix``, in the form that the model has learned. Pure.

vLLM refuses ``suffix`` for nearly all models; editors send it at every keystroke. Models that fill gaps take a prompt
with three marks of their own: before the text in front of the gap, before the text behind it, and where theirs comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def filled(kwargs: Mapping[str, Any], marks: Sequence[str]) -> dict[str, Any]:
    """What of a call to change, so that its ``suffix`` is in its prompt; nothing where there is none to fill."""
    suffix, prompt = kwargs.get("suffix"), kwargs.get("prompt")
    if not suffix or len(marks) != 3:
        return {}
    before, behind, here = marks

    def one(text: str) -> str:
        return f"{before}{text}{behind}{suffix}{here}"

    if isinstance(prompt, str):
        return {"prompt": one(prompt), "suffix": None}
    if isinstance(prompt, list) and all(isinstance(it, str) for it in prompt):
        return {"prompt": [one(it) for it in prompt], "suffix": None}
    return {}
