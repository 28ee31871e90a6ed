"""Requests that cannot work on the model that they name: refused before a model leaves the device for them. Pure.

Only what is sure is refused. A model without ``mode`` may be anything, and then its engine has the word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TALKS = frozenset({"chat", "completion", "responses"})
EMBEDS = frozenset({"embedding"})
RANKS = frozenset({"rerank"})
HEARS = frozenset({"audio_transcription"})
SPEAKS = frozenset({"audio_speech"})
DRAWS = frozenset({"image_generation", "image_edit"})
MODERATES = frozenset({"moderation"})
MODES = TALKS | EMBEDS | RANKS | HEARS | SPEAKS | DRAWS | MODERATES

KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "acompletion": ("chat", TALKS),
    "atext_completion": ("completions", TALKS),
    "aresponses": ("responses", TALKS),
    "anthropic_messages": ("messages", TALKS),
    "agenerate_content": ("chat", TALKS),
    "agenerate_content_stream": ("chat", TALKS),
    "aembedding": ("embeddings", EMBEDS),
    "arerank": ("rerank", RANKS | EMBEDS),
    "atranscription": ("transcriptions", HEARS),
    "aspeech": ("speech", SPEAKS),
    "aimage_generation": ("images", DRAWS),
    "aimage_edit": ("images", DRAWS),
    "amoderation": ("moderations", MODERATES),
}
"""LiteLLM's kind of call (litellm.types.utils.CallTypes) -> its name for a reader, and the modes of models that answer.

These are one question and one answer. No others are served: files, batches and stored responses would be gone with the
engine, and a WebSocket session would hold the device while nobody says anything."""

PICTURES = frozenset({"image_url", "input_image", "image"})
"""The types of the content parts that are pictures, in the three dialects."""

STORED = ("previous_response_id", "background", "conversation")
"""What of a request for a response needs an earlier one, or one that is kept."""

REFERENCE = "item_reference"
"""The type of an input item that is no more than the id of an earlier one."""

CALLING = frozenset({"acompletion", "anthropic_messages"})
"""The kinds of calls in which vLLM wants a parser for tools; a response goes without."""

NO_TOOLS = (
    "{} takes no tools: its launcher.args in the YAML lack --enable-auto-tool-choice and --tool-call-parser, or its "
    "model_info says supports_function_calling: false. /model/info tells which models do."
)


@dataclass(frozen=True)
class CannotWork:
    """Why a request cannot work: a sentence, a code for programs, and the parameter that is at fault."""

    message: str
    code: str
    param: str

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        return {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}


def refusal(model: str, kind: str, kwargs: Mapping[str, Any]) -> CannotWork | None:
    """Why the call cannot work, or ``None``: it may."""
    info = kwargs.get("model_info") or {}
    return (
        _of_another_kind(model, kind, info)
        or _of_a_completion(model, kind, kwargs, info)
        or _stored(kind, kwargs)
        or _several(kwargs)
        or _tools(model, kind, kwargs, info)
        or _pictures(model, kwargs, info)
    )


def _of_another_kind(model: str, kind: str, info: Mapping[str, Any]) -> CannotWork | None:
    mode = info.get("mode")
    named, modes = KINDS.get(kind, ("", MODES))
    hears = kind == "atranscription" and info.get("supports_audio_input")
    if mode not in MODES or mode in modes or hears:
        return None
    text = f"{model} is a model for {_of(mode)}: it does not answer requests for {named}. See /v1/models for others."
    return CannotWork(text, "wrong_model_kind", "model")


def _of_a_completion(model: str, kind: str, kwargs: Mapping[str, Any], info: Mapping[str, Any]) -> CannotWork | None:
    """What of ``/v1/completions`` alone cannot work: LiteLLM passes no ids to vLLM, and few models fill gaps."""
    if kind != "atext_completion":
        return None
    prompt = kwargs.get("prompt")
    provider = str(kwargs.get("custom_llm_provider") or kwargs.get("model")).partition("/")[0]
    if provider == "hosted_vllm" and isinstance(prompt, list) and any(not isinstance(it, str) for it in prompt):
        text = f"the prompt is token ids: send text, or have the YAML say model: openai/NAME for {model}."
        return CannotWork(text, "token_ids", "prompt")
    if kwargs.get("suffix") and (info.get("launcher") or {}).get("kind") == "vllm":  # the marks would have taken it out
        text = f"{model} fills no gaps: leave suffix out, or write its marks into launcher.infill in the YAML."
        return CannotWork(text, "suffix_unsupported", "suffix")
    return None


def _stored(kind: str, kwargs: Mapping[str, Any]) -> CannotWork | None:
    if kind != "aresponses":
        return None
    name = next((name for name in STORED if kwargs.get(name)), None)
    items = kwargs.get("input")
    if name is None and isinstance(items, list) and any(_type(item) == REFERENCE for item in items):
        name = REFERENCE
    if name is None:
        return None
    text = f"{name}: stored responses are not kept here. Send the whole input with each request."
    return CannotWork(text, "stored_responses_unsupported", name)


def _several(kwargs: Mapping[str, Any]) -> CannotWork | None:
    """LiteLLM ends all answers of a stream with the first."""
    several = kwargs.get("n")
    if not kwargs.get("stream") or not isinstance(several, int) or several < 2:
        return None
    text = f"n={several} is not streamed: ask without stream, or {several} times."
    return CannotWork(text, "several_streams_unsupported", "n")


def _tools(model: str, kind: str, kwargs: Mapping[str, Any], info: Mapping[str, Any]) -> CannotWork | None:
    automatic = kind in CALLING and kwargs.get("tools") and kwargs.get("tool_choice") in (None, "auto")
    if not automatic or info.get("supports_function_calling") is not False:
        return None
    return CannotWork(NO_TOOLS.format(model), "tools_unsupported", "tools")


def _pictures(model: str, kwargs: Mapping[str, Any], info: Mapping[str, Any]) -> CannotWork | None:
    if info.get("supports_vision") is not False:
        return None
    for name in ("messages", "input"):
        if any(part.get("type") in PICTURES for part in _parts(kwargs.get(name))):
            text = f"{model} reads no pictures (supports_vision is false): send text, or name a model that does."
            return CannotWork(text, "pictures_unsupported", name)
    return None


def _type(item: Any) -> Any:
    return item.get("type") if isinstance(item, Mapping) else None


def _of(mode: str) -> str:
    return {"embedding": "embeddings", "audio_transcription": "transcriptions", "audio_speech": "speech"}.get(
        mode, mode.replace("_", " ")
    )


def _parts(messages: Any) -> Iterator[Mapping[str, Any]]:
    """The content parts of a list of messages or of input items."""
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, Mapping):
                yield part
