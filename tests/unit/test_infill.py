"""A completion with a suffix, in the form that a model has learned."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.hooks.infill import filled
from roundhouse.hooks.kinds import refusal

MARKS = ("<P>", "<S>", "<M>")


def test_a_gap_is_written_in_the_models_own_form() -> None:
    assert filled({"prompt": "def f(", "suffix": "):"}, MARKS) == {"prompt": "<P>def f(<S>):<M>", "suffix": None}
    several = filled({"prompt": ["a", "b"], "suffix": "c"}, MARKS)
    assert several == {"prompt": ["<P>a<S>c<M>", "<P>b<S>c<M>"], "suffix": None}


@pytest.mark.parametrize("kwargs", [{"prompt": "a"}, {"prompt": "a", "suffix": ""}, {"prompt": [1, 2], "suffix": "b"}])
def test_where_there_is_no_gap_or_no_text_nothing_is_changed(kwargs: dict[str, Any]) -> None:
    assert filled(kwargs, MARKS) == filled({"prompt": "a", "suffix": "b"}, ()) == {}


def test_a_vllm_model_without_marks_refuses_a_suffix_and_another_server_decides_itself() -> None:
    """vllm-project/vllm#9976: refused by the engine, after a switch, at every keystroke."""
    call: dict[str, Any] = {"prompt": "a", "suffix": "b", "model": "hosted_vllm/a"}
    refused = refusal("a", "atext_completion", {**call, "model_info": {"launcher": {"kind": "vllm"}}})
    assert refused is not None
    assert (refused.code, refused.param) == ("suffix_unsupported", "suffix")
    assert refusal("a", "atext_completion", {**call, "model_info": {"launcher": {"kind": "command"}}}) is None
