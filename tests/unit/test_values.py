"""Values that vLLM is sure to refuse: each is refused, those at the edge are not, and nothing is assumed of others."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.hooks.values import RANGES, refusal

VLLM = {"launcher": {"kind": "vllm"}}
GOOD: dict[str, dict[str, Any]] = {
    "acompletion": {"messages": [{"role": "user", "content": "x"}]},
    "atext_completion": {"prompt": "x"},
    "aresponses": {"input": "x"},
    "anthropic_messages": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    "aembedding": {"input": "x"},
}
TOOL = {"type": "function", "function": {"name": "f"}}


def said(kind: str, **more: Any) -> str | None:
    found = refusal(kind, {"model_info": VLLM, **GOOD[kind], **more})
    return found and found.message


@pytest.mark.parametrize("name", [*RANGES])
def test_the_ends_of_a_range_are_taken_and_what_is_beyond_is_not(name: str) -> None:
    kinds, numbers = RANGES[name]
    for kind in kinds:
        low = numbers.low + 0.001 if numbers.above else numbers.low
        assert said(kind, **{name: low}) is None
        assert str(said(kind, **{name: numbers.low - 1})).startswith(f"{name} is ")
        if numbers.high != float("inf"):
            assert said(kind, **{name: numbers.high}) is None
            assert str(said(kind, **{name: numbers.high + 1})).startswith(f"{name} is ")
        assert said(kind, **{name: None}) is None
        assert said(kind, **{name: "0.5"}) is None  # vLLM reads numbers in quotes


def test_what_a_sentence_says() -> None:
    assert said("acompletion", temperature=3) == "temperature is 3: it must be from 0 to 2"
    assert said("acompletion", top_p=0) == "top_p is 0: it must be above 0 and at most 1"
    assert said("acompletion", n=0) == "n is 0: it must be at least 1"
    assert said("acompletion", extra_body={"min_p": 2}) == "min_p is 2: it must be from 0 to 1"
    assert said("acompletion", temperature=float("nan")) == "temperature is nan: it must be from 0 to 2"


@pytest.mark.parametrize("kind", [*GOOD])
def test_an_ordinary_call_is_let_through(kind: str) -> None:
    assert said(kind) is None


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("acompletion", {"tools": [TOOL], "tool_choice": TOOL}),
        ("acompletion", {"tool_choice": TOOL}),  # LiteLLM leaves it out
        ("acompletion", {"logprobs": True, "top_logprobs": 5}),
        ("acompletion", {"top_logprobs": 0}),
        ("acompletion", {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
        ("acompletion", {"stream": True, "stream_options": {"include_usage": True}}),
        ("acompletion", {"seed": -(2**63)}),
        ("acompletion", {"stop": ["x"]}),
        ("atext_completion", {"prompt": [1, 2]}),
        ("atext_completion", {"prompt": [[1, 2]]}),
        ("atext_completion", {"max_tokens": 0, "echo": True}),
        ("atext_completion", {"logprobs": 5}),
        (
            "aresponses",
            {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function", "name": "f"}},
        ),
        ("aresponses", {"tools": [{"type": "custom", "name": "f"}, {"type": "web_search"}]}),
        ("aresponses", {"max_output_tokens": 0}),
        ("aembedding", {"input": ["x", ""], "encoding_format": "base64"}),
        ("aembedding", {"dimensions": 32}),
    ],
)
def test_what_vllm_may_take_is_let_through(kind: str, more: dict[str, Any]) -> None:
    assert said(kind, **more) is None


def test_of_an_engine_that_is_no_vllm_nothing_is_assumed() -> None:
    call = {**GOOD["acompletion"], "temperature": 9}
    assert refusal("acompletion", {**call, "model_info": {"launcher": {"kind": "command"}}}) is None
    assert refusal("acompletion", call) is None
