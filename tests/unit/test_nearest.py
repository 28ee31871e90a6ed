"""The names that a client may have meant."""

from __future__ import annotations

from roundhouse.hooks.nearest import nearest

NAMES = ["reasoning", "code", "qwen-0.5b", "qwen-coder-0.5b", "acme/Ünicode"]


def test_the_nearest_names_are_told_whatever_their_case() -> None:
    assert nearest("Reasonning", NAMES, []) == ("reasoning",)
    assert nearest("qwen-0.5", NAMES, []) == ("qwen-0.5b", "qwen-coder-0.5b")
    assert nearest("ACME/ünicode", NAMES, ["all-proxy-models"]) == ("acme/Ünicode",)
    assert nearest("gpt-4o", NAMES, []) == ()


def test_a_key_is_told_only_of_models_that_it_may_use() -> None:
    assert nearest("reasonning", NAMES, ["code"]) == ()
    assert nearest("cod", NAMES, ["code"]) == ("code",)
