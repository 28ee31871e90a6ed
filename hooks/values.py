"""Values that vLLM is sure to refuse, as a table: known before a model is brought on for them. Pure.

They are those of the pinned release: ``vllm/sampling_params.py`` (``_verify_args``) and the ``protocol.py`` of each
endpoint. What is not in the table vLLM decides; of engines that are not vLLM nothing is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from roundhouse.hooks.kinds import CannotWork

Call = Mapping[str, Any]

CHAT, COMPLETION, RESPONSE, MESSAGES, EMBEDDING = (
    frozenset({kind}) for kind in ("acompletion", "atext_completion", "aresponses", "anthropic_messages", "aembedding")
)
SAMPLED = CHAT | COMPLETION | RESPONSE | MESSAGES

INT64 = 2**63


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``; ``above``: ``low`` itself is not one of them."""

    low: float
    high: float = inf
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return isfinite(value) and (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if self.high == inf:
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        return f"above {self.low:g} and at most {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"


RANGES: dict[str, tuple[frozenset[str], Range]] = {
    "temperature": (SAMPLED, Range(0, 2)),
    "top_p": (SAMPLED, Range(0, 1, above=True)),
    "top_k": (CHAT | COMPLETION | MESSAGES, Range(-1)),
    "min_p": (CHAT | COMPLETION, Range(0, 1)),
    "presence_penalty": (CHAT | COMPLETION, Range(-2, 2)),
    "frequency_penalty": (CHAT | COMPLETION, Range(-2, 2)),
    "repetition_penalty": (CHAT | COMPLETION, Range(0, above=True)),
    "n": (CHAT | COMPLETION, Range(1)),
    "max_tokens": (CHAT | MESSAGES, Range(1)),
    "max_completion_tokens": (CHAT, Range(1)),
    "min_tokens": (CHAT | COMPLETION, Range(0)),
}
"""Parameter -> the kinds of calls in which it counts, and the numbers that are taken."""

CHAT_ONLY = ("tools", "tool_choice", "top_logprobs", "max_completion_tokens", "response_format")
"""LiteLLM sends these of a completion to a client library that does not know them, and answers 500."""

FORMATS = ("text", "json_object", "json_schema", "structural_tag")
ENCODINGS = ("float", "base64", "bytes", "bytes_only")


def _messages(call: Call) -> str | None:
    given = call.get("messages")
    if isinstance(given, list) and given and all(isinstance(it, Mapping) for it in given):
        return None
    return "it must be a list of messages, and not be empty"


def _prompt(call: Call) -> str | None:
    given = call.get("prompt")
    if given and (isinstance(given, str) or (isinstance(given, list) and isinstance(given[0], str | int | list))):
        return None
    return "it must be a text or a list of texts, and not be empty"


def _input(call: Call) -> str | None:
    return "it must not be an empty list" if call.get("input") == [] else None


def _max_tokens(call: Call) -> str | None:
    given = call.get("max_tokens")
    return "it must be at least 1" if isinstance(given, int) and given < 1 and not call.get("echo") else None


def _seed(call: Call) -> str | None:
    given = call.get("seed")
    whole = not isinstance(given, int | float) or (given == int(given) and -INT64 <= given < INT64)
    return None if whole else "it must be an integer of 64 bits"


def _logprobs(call: Call) -> str | None:
    given = call.get("logprobs")
    return "it must be true or false" if isinstance(given, int | float) and given not in (0, 1) else None


def _stop(call: Call) -> str | None:
    given = call.get("stop")
    return "it must not have an empty text" if given == "" or (isinstance(given, list) and "" in given) else None


def _stream_options(call: Call) -> str | None:
    return "it is for stream: true only" if call.get("stream_options") and not call.get("stream") else None


def _top_logprobs(call: Call) -> str | None:
    given = call.get("top_logprobs")
    return "it needs logprobs: true" if isinstance(given, int) and given > 0 and not call.get("logprobs") else None


def _tools(call: Call) -> str | None:
    return "it must not be an empty list: leave it out" if call.get("tools") == [] else None


def _tool_choice(call: Call) -> str | None:
    tools, given = call.get("tools"), call.get("tool_choice")
    if not isinstance(given, Mapping) or given.get("type") != "function" or not isinstance(tools, list):
        return None  # without tools LiteLLM leaves it out of a chat
    wanted = given.get("name") or (given.get("function") or {}).get("name")
    names = [(it.get("function") or it).get("name") for it in tools if isinstance(it, Mapping)]
    return None if not wanted or wanted in names else f"there is no {wanted!r} among the tools"


def _tool_choice_alone(call: Call) -> str | None:
    given = call.get("tool_choice")
    needs = given == "required" or isinstance(given, Mapping)
    return "it needs tools" if needs and not call.get("tools") else None


def _response_format(call: Call) -> str | None:
    given = call.get("response_format")
    if not isinstance(given, Mapping):
        return None
    if given.get("type") not in FORMATS:
        return f"its type must be one of {', '.join(FORMATS)}"
    return "it lacks json_schema" if given["type"] == "json_schema" and not given.get("json_schema") else None


def _grammar(call: Call) -> str | None:
    tools = call.get("tools")
    grammars = [
        it.get("name")
        for it in (tools if isinstance(tools, list) else ())
        if isinstance(it, Mapping) and it.get("type") == "custom" and (it.get("format") or {}).get("type") == "grammar"
    ]
    return f"the tool {grammars[0]!r} has a grammar, which vLLM does not take for tools" if grammars else None


def _encoding(call: Call) -> str | None:
    given = call.get("encoding_format")
    return None if given is None or given in ENCODINGS else f"it must be one of {', '.join(ENCODINGS[:2])}"


def _dimensions(call: Call) -> str | None:
    shortens = (call.get("model_info") or {}).get("supports_dimensions")
    if call.get("dimensions") is None or shortens is not False:
        return None
    return "the model's embeddings have one length only: leave it out"


CHECKS: tuple[tuple[frozenset[str], str, Callable[[Call], str | None]], ...] = (
    (CHAT | MESSAGES, "messages", _messages),
    (COMPLETION, "prompt", _prompt),
    (EMBEDDING | RESPONSE, "input", _input),
    (CHAT | COMPLETION, "seed", _seed),
    (CHAT, "logprobs", _logprobs),
    (COMPLETION, "max_tokens", _max_tokens),
    (CHAT | COMPLETION, "stop", _stop),
    (CHAT | COMPLETION, "stream_options", _stream_options),
    (CHAT, "top_logprobs", _top_logprobs),
    (CHAT, "tools", _tools),
    (CHAT | RESPONSE, "tool_choice", _tool_choice),
    (RESPONSE, "tool_choice", _tool_choice_alone),
    (CHAT, "response_format", _response_format),
    (RESPONSE, "tools", _grammar),
    (EMBEDDING, "encoding_format", _encoding),
    (EMBEDDING, "dimensions", _dimensions),
)
"""The kinds of calls, the parameter, and what is wrong with it."""


def refusal(kind: str, kwargs: Call) -> CannotWork | None:
    """Why vLLM would refuse the call, or ``None``: it may take it."""
    if ((kwargs.get("model_info") or {}).get("launcher") or {}).get("kind") != "vllm":
        return None
    if kind in COMPLETION and (name := next((it for it in CHAT_ONLY if kwargs.get(it) is not None), None)):
        return CannotWork(f"{name} is no parameter of /v1/completions", "unsupported_parameter", name)
    call = {**(kwargs.get("extra_body") or {}), **kwargs}
    for name, (kinds, numbers) in RANGES.items():
        value = call.get(name)
        if kind in kinds and isinstance(value, int | float) and not isinstance(value, bool) and value not in numbers:
            return CannotWork(f"{name} is {value}: it must be {numbers}", "invalid_value", name)
    for kinds, name, check in CHECKS:
        if kind in kinds and (wrong := check(call)):
            return CannotWork(f"{name}: {wrong}", "invalid_value", name)
    return None
