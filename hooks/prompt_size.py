"""Prompts that are longer than the model's context: counted before a model is brought on for them.

What is counted is a lower bound: the texts by themselves, without the template that goes round them, so that nothing is
refused that the engine would take. It is counted only where the model's tokenizer is on the disk, and only for texts
so long that they may not fit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer

from roundhouse.config.schema import Launcher, VllmLauncher
from roundhouse.hooks.kinds import CannotWork
from roundhouse.launchers.vllm import weights

log = logging.getLogger("roundhouse.hook")

DENSE = 2
"""Bytes a token has at least in texts that people and programs write (hex digits; prose has four): what has no more
than that for each token of the context is not counted, for it may well fit, and counting costs 0.5 s a megabyte."""

SEAM = 2
"""Tokens by which a text of its own may count for more than inside of a prompt, where it can grow together with what
stands before and after it."""

FILE = "tokenizer.json"

OTHER_TOKENIZER = "--tokenizer"
"""With this flag of vLLM's the model's own file is not what counts."""

PARAMETERS = {"aembedding": "input", "aresponses": "input", "atext_completion": "prompt"}
"""By kind of call what the prompt is called; in the others it is the messages."""

Text = str | int
"""A text, or the number of token ids that stand for one."""


class PromptSizes:
    """Counts with the tokenizers of ``launchers`` (model -> launcher), each read when it is first needed."""

    def __init__(self, launchers: Mapping[str, Launcher]) -> None:
        self._launchers = launchers
        self._read: dict[str, Tokenizer | None] = {}

    async def refusal(self, model: str, kind: str, kwargs: Mapping[str, Any]) -> CannotWork | None:
        """Why the prompt of a call cannot fit into the context, or ``None``: it may."""
        context = (kwargs.get("model_info") or {}).get("max_input_tokens")
        extra = kwargs.get("extra_body") or {}
        if not isinstance(context, int) or kwargs.get("truncate_prompt_tokens") or extra.get("truncate_prompt_tokens"):
            return None
        for prompt in prompts(kind, kwargs):
            if _bytes(prompt) > DENSE * context and (tokens := await self._count(model, prompt)) > context:
                name = PARAMETERS.get(kind, "messages")
                text = f"the prompt has at least {tokens} tokens, and the context of {model} has {context}: send less"
                return CannotWork(text, "context_length_exceeded", name)
        return None

    async def _count(self, model: str, prompt: Sequence[Text]) -> int:
        """How many tokens a prompt has at least; 0 where there is no tokenizer to tell."""
        if model not in self._read:
            self._read[model] = await asyncio.to_thread(tokenizer_of, model, self._launchers[model])
        tokenizer = self._read[model]
        return 0 if tokenizer is None else await asyncio.to_thread(count, tokenizer, prompt)


def tokenizer_of(model: str, launcher: Launcher) -> Tokenizer | None:
    """The tokenizer that vLLM will use; ``None`` where its file is not on the disk, or cannot be read."""
    if not isinstance(launcher, VllmLauncher) or any(word.startswith(OTHER_TOKENIZER) for word in launcher.args):
        return None
    try:
        folder = weights.local_folder(weights.name_of(model, launcher))
        if folder is None or not (folder / FILE).is_file():
            return None
        tokenizer = Tokenizer.from_file(str(folder / FILE))
    except Exception as error:  # the library raises no narrower class for a file that is none
        log.warning("event=no_tokenizer model=%s text=%r", model, str(error))
        return None
    tokenizer.no_truncation()  # the files of embedders cut what is too long
    tokenizer.no_padding()
    return tokenizer


def count(tokenizer: Tokenizer, prompt: Sequence[Text]) -> int:
    """How many tokens the texts of one prompt have at least."""
    texts = [it for it in prompt if isinstance(it, str)]
    found = sum(len(it.ids) for it in tokenizer.encode_batch([it.strip() for it in texts], add_special_tokens=False))
    return max(0, found - SEAM * len(texts)) + sum(it for it in prompt if isinstance(it, int))


def prompts(kind: str, kwargs: Mapping[str, Any]) -> Iterator[list[Text]]:
    """The texts of each prompt of a call: an embedding's or a completion's may be several."""
    if kind in ("aembedding", "atext_completion"):
        given = kwargs.get("input" if kind == "aembedding" else "prompt")
        several = given if isinstance(given, list) and not any(isinstance(it, int) for it in given) else [given]
        for one in several:
            if isinstance(one, str):
                yield [one]
            elif isinstance(one, list) and all(isinstance(it, int) for it in one):
                yield [len(one)]
        return
    given = [kwargs.get("instructions"), kwargs.get("system"), kwargs.get("messages"), kwargs.get("input")]
    yield [text for it in given for text in _texts(it)]


def _texts(given: Any) -> Iterator[str]:
    """The texts of a message, of its parts, or of a list of these."""
    if isinstance(given, str):
        yield given
    elif isinstance(given, list):
        for it in given:
            yield from _texts(it)
    elif isinstance(given, Mapping):
        yield from _texts(given.get("content"))
        text = given.get("text")
        if isinstance(text, str):
            yield text


def _bytes(prompt: Sequence[Text]) -> int:
    return sum(len(it.encode("utf-8", "replace")) if isinstance(it, str) else DENSE * it for it in prompt)
