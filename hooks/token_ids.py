"""Token ids as the input of an embedding: refused, unless the YAML says that the model is sent its own.

Some clients send the ids of OpenAI's tokenizer whatever the model is. An engine takes them for its own, and answers
with the vector of another text: nobody notices. A prompt of ids for a completion is usual, and goes through.
"""

from __future__ import annotations

from typing import Any

REFUSAL = (
    "the input is token ids, and the model would take those of another tokenizer for another text: send text (in "
    "LangChain check_embedding_ctx_length=False), or set launcher.token_ids where clients use the model's own tokenizer"
)


def given(kind: str, data: dict[str, Any]) -> bool:
    """Whether a call of ``kind`` is for the embedding of token ids: of one text, or of several."""
    if kind != "aembedding" or not isinstance(texts := data.get("input"), list):
        return False
    return any(isinstance(it, int) or (isinstance(it, list) and any(isinstance(i, int) for i in it)) for it in texts)
