"""Who asks: from a key's metadata and a request's headers, which can only lower what the key was given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from roundhouse.config.key_metadata import Priority
from roundhouse.hooks.caller import Asking, asking

DEFAULT_S = 300.0


def call(settings: Any = None, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    metadata = {
        "user_api_key_hash": "hash",
        "user_api_key_metadata": {"roundhouse": settings},
        "headers": headers or {},
    }
    return {"metadata": metadata, **more}


def test_a_request_without_anything_is_nobodys_and_normal() -> None:
    assert asking({}, DEFAULT_S) == Asking()


def test_a_key_is_known_by_its_hash_and_a_program_under_it_by_its_session() -> None:
    assert asking(call(), DEFAULT_S).caller == "hash"
    assert asking(call(headers={"X-Session-Id": "editor"}), DEFAULT_S).caller == "hash/editor"
    assert asking(call(headers={"x-litellm-session-id": "a", "x-session-id": "b"}), DEFAULT_S).caller == "hash/a"
    assert asking(call(user="ann"), DEFAULT_S).caller == "hash/ann"
    assert asking(call(litellm_session_id="run"), DEFAULT_S).caller == "hash/run"


def test_a_header_may_lower_the_priority_and_never_raise_it() -> None:
    assert asking(call({"priority": "interactive"}), DEFAULT_S).priority is Priority.INTERACTIVE
    lowered = call({"priority": "interactive"}, {"x-roundhouse-priority": "Batch"})
    assert asking(lowered, DEFAULT_S).priority is Priority.BATCH
    raised = call({"priority": "batch"}, {"x-roundhouse-priority": "interactive"})
    assert asking(raised, DEFAULT_S).priority is Priority.BATCH
    assert asking(call(headers={"x-roundhouse-priority": "urgent"}), DEFAULT_S).priority is Priority.NORMAL


@pytest.mark.parametrize(
    ("of_key", "header", "result"),
    [
        (None, None, None),
        (None, "20", 20.0),
        (None, "5000", DEFAULT_S),
        (900, None, 900.0),
        (900, "5000", 900.0),
        (900, "60", 60.0),
        (900, "soon", 900.0),
        (900, "-1", 900.0),
        (900, "nan", 900.0),
    ],
)
def test_a_header_may_shorten_the_wait_up_to_the_keys_own(of_key: Any, header: Any, result: Any) -> None:
    headers = {} if header is None else {"x-roundhouse-max-wait": header}
    assert asking(call({"max_wait": of_key}, headers), DEFAULT_S).max_wait_s == result


@pytest.mark.parametrize(
    ("settings", "hour", "may"),
    [(None, 12, True), ("always", 12, True), ("never", 3, False), ("off-hours", 12, False), ("off-hours", 3, True)],
)
def test_whether_a_key_may_switch(settings: Any, hour: int, may: bool) -> None:
    it = call({"may_switch": settings} if settings else None)
    assert asking(it, DEFAULT_S, datetime(2026, 1, 5, hour)).may_switch is may


@pytest.mark.parametrize("settings", ["batch", 3, [], {"priority": "urgent"}, {"prioritty": "batch"}, {"max_wait": -1}])
def test_malformed_metadata_is_ignored_with_one_warning(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert asking(call(settings), DEFAULT_S) == Asking(caller="hash")
    assert caplog.text.count("key_metadata_ignored") == 1
