"""Tools with strict: true reach vLLM with it."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.hooks.strict_tools import kept

STRICT = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"additionalProperties": False}}}
LOOSE = {"type": "function", "function": {"name": "g"}}


def test_strict_tools_reach_the_engine_as_they_are_whatever_else_is_sent_besides() -> None:
    body = {"tools": [LOOSE, STRICT], "extra_body": {"min_p": 0.1}}
    assert kept("acompletion", body) == {"extra_body": {"min_p": 0.1, "tools": [LOOSE, STRICT]}}


@pytest.mark.parametrize("tools", [None, [], [LOOSE], [STRICT, {"type": "custom", "name": "p"}], ["odd"], "odd"])
def test_others_are_left_to_litellm(tools: Any) -> None:
    assert kept("acompletion", {"tools": tools}) == {}
    assert kept("aresponses", {"tools": [STRICT]}) == {}
