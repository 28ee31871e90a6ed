"""Token ids as the input of an embedding: refused, unless the YAML says that the model is sent its own.

Some clients send the ids of OpenAI's tokenizer whatever the model is. An engine takes them for its own, and answers
with the vector of another text: nobody notices. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roundhouse.hooks.kinds import CannotWork

REFUSAL = (
    "the input is token ids, and the model would take those of another tokenizer for another text: send text (in "
    "LangChain check_embedding_ctx_length=False), or set launcher.token_ids where clients use the model's own tokenizer"
)


def refusal(kind: str, kwargs: Mapping[str, Any]) -> CannotWork | None:
    """The refusal of a call for the embedding of token ids, of one text or of several; ``None``: it has none."""
    texts = kwargs.get("input")
    if kind != "aembedding" or not isinstance(texts, list):
        return None
    ids = any(isinstance(it, int) or (isinstance(it, list) and any(isinstance(i, int) for i in it)) for it in texts)
    return CannotWork(REFUSAL, "token_ids", "input") if ids else None
