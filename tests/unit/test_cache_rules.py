"""What the response cache may answer, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from roundhouse.config.key_metadata import KeyMetadata
from roundhouse.hooks.cache_rules import controls

SPACE = "roundhouse"
OFF = {"no-cache": True, "no-store": True}
SURE = {"temperature": 0}


def said(kwargs: dict[str, Any], kind: str = "acompletion", key: str | None = None, **metadata: Any) -> dict[str, Any]:
    return controls(kwargs, kind, key, KeyMetadata(**metadata), SPACE)


@pytest.mark.parametrize("kwargs", [{}, {"temperature": 0.7}, {"temperature": 1}, {"temperature": None}])
@pytest.mark.parametrize("kind", ["acompletion", "aresponses", "anthropic_messages"])
def test_what_is_left_to_chance_is_answered_anew(kwargs: dict[str, Any], kind: str) -> None:
    assert said(kwargs, kind) == {"namespace": SPACE, **OFF}


@pytest.mark.parametrize("kwargs", [SURE, {"temperature": 0.0}, {"temperature": 1, "seed": 0}, {"seed": 7}])
def test_what_is_sure_is_cached(kwargs: dict[str, Any]) -> None:
    assert said(kwargs) == {"namespace": SPACE}


def test_embeddings_have_no_chance_in_them() -> None:
    assert said({}, "aembedding") == {"namespace": SPACE}


def test_a_request_its_model_in_the_yaml_or_its_key_may_want_it_cached_all_the_same() -> None:
    assert said({"cache": {"use-cache": True}}) == {"namespace": SPACE, "use-cache": True}
    assert said({}, cache_chance=True) == {"namespace": SPACE}


@pytest.mark.parametrize("cache", [{}, {"use-cache": True}])
def test_a_stream_is_never_cached(cache: dict[str, Any]) -> None:
    assert said({**SURE, "stream": True, "cache": cache}, cache_chance=True) == {"namespace": SPACE, **cache, **OFF}


def test_each_key_has_its_own_answers_unless_it_shares_and_no_client_chooses_another_ones() -> None:
    assert said(SURE, key="a" * 64)["namespace"] != said(SURE, key="b" * 64)["namespace"]
    assert said(SURE, key="a" * 64, cache="shared")["namespace"] == said(SURE)["namespace"] == SPACE
    theirs = {**SURE, "cache": {"namespace": said(SURE, key="a" * 64)["namespace"]}}
    assert said(theirs, key="b" * 64) == said(SURE, key="b" * 64)


def test_a_request_may_pass_it_by() -> None:
    assert said({**SURE, "cache": {"no-cache": True, "ttl": 60}}) == {"namespace": SPACE, "no-cache": True, "ttl": 60}
    assert said({**SURE, "cache": "yes"}) == {"namespace": SPACE}
