"""What gets as far as LiteLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from roundhouse.hooks import via
from roundhouse.proxy.door import Answer, Door
from roundhouse.proxy.served import Routes

EXTRA = [
    {"path": "/weather", "target": "http://weather.example"},
    {"path": "/maps/", "target": "http://maps.example", "include_subpath": True, "methods": ["GET"]},
    {"path": "/v1/files", "target": "http://store.example", "include_subpath": True},
    {"path": "/v1/chat/completions", "target": "http://chat.example"},
]


def ask(method: str, path: str, keys: bool = True, **headers: str) -> Any:
    """The path that LiteLLM is asked for, or status and code of the answer."""
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    door = Door(Routes(keys=keys, extra=EXTRA), "me")
    admitted = door.admit({"type": "http", "method": method, "path": path, "raw_path": b"", "headers": encoded})
    if isinstance(admitted, Answer):
        return admitted.status, json.loads(admitted.content)["error"]["code"]
    return admitted["path"]


NOT_SERVED = (400, "not_served")
WRONG_METHOD = (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/", "/v1/chat/completions"),
        ("GET", "/v1/models/acme", "/v1/models/acme"),
        ("POST", "/openai/deployments/acme/m/chat/completions", "/openai/deployments/acme/m/chat/completions"),
        ("POST", "/openai/deployments/m/chat/completions/", "/openai/deployments/m/chat/completions"),
        ("GET", "/ui", "/ui"),
        ("GET", "/ui/", "/ui/"),
        ("GET", "/ui/_next/x.js", "/ui/_next/x.js"),
        ("GET", "/metrics", "/metrics"),
        ("GET", "/residency/", "/residency/"),
        ("GET", "/health/liveliness", "/health/liveliness"),
        ("GET", "/v1/files", NOT_SERVED),
        ("GET", "/uix", NOT_SERVED),
        ("GET", "/nowhere", NOT_SERVED),
        ("GET", "", NOT_SERVED),
        ("POST", "/v1/chat/completions//", NOT_SERVED),
        ("POST", "//v1/chat/completions", NOT_SERVED),
        ("POST", "/V1/chat/completions", NOT_SERVED),
        ("GET", "/v1/chat/completions", WRONG_METHOD),
        ("HEAD", "/health/liveliness", WRONG_METHOD),
        ("OPTIONS", "/v1/models", WRONG_METHOD),
        ("POST", "/ui/", WRONG_METHOD),
    ],
)
def test_the_table_decides_by_method_and_path(method: str, path: str, expected: object) -> None:
    assert ask(method, path) == expected


def test_a_browser_may_ask_whether_it_may_ask() -> None:
    assert ask("OPTIONS", "/v1/models", origin="http://x", access_control_request_method="GET") == "/v1/models"
    assert ask("OPTIONS", "/v1/files", origin="http://x", access_control_request_method="GET") == NOT_SERVED


def test_there_is_no_admin_ui_without_keys() -> None:
    assert ask("GET", "/ui/", keys=False) == NOT_SERVED
    assert ask("GET", "/sso/key/generate", keys=False) == NOT_SERVED
    assert ask("GET", "/v1/models", keys=False) == "/v1/models"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/weather", "/weather"),
        ("POST", "/weather/today", NOT_SERVED),
        ("GET", "/maps", "/maps"),
        ("GET", "/maps/a/b", "/maps/a/b"),
        ("POST", "/maps/a/b", NOT_SERVED),
        ("GET", "/mapsx", NOT_SERVED),
        ("GET", "/v1/files", NOT_SERVED),
        ("GET", "/v1/files/x", NOT_SERVED),
        ("GET", "/v1/chat/completions", WRONG_METHOD),
    ],
)
def test_the_yaml_adds_routes_and_opens_none_that_is_refused(method: str, path: str, expected: object) -> None:
    assert ask(method, path) == expected


def test_no_websocket_is_admitted() -> None:
    admitted = Door(Routes(keys=True), "me").admit({"type": "websocket", "path": "/v1/realtime", "headers": []})
    assert isinstance(admitted, Answer)
    assert admitted.status == 400


def test_a_refusal_says_why_and_does_not_repeat_a_path_without_end() -> None:
    door = Door(Routes(keys=True), "me")
    for path, why in (("/v1/batches", "outlive a request"), ("/" + "x" * 100_000, "no such route")):
        answer = door.admit({"type": "http", "method": "GET", "path": path, "headers": []})
        assert isinstance(answer, Answer)
        assert why in answer.content.decode()
        assert len(answer.content) < 1000


# --- circles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("me", NOT_SERVED),
        ("other, me", NOT_SERVED),
        ("me,other", NOT_SERVED),
        (", ".join(f"gateway{i}" for i in range(9)), NOT_SERVED),
        ("other", "/v1/models"),
        ("", "/v1/models"),
        ("meow", "/v1/models"),
    ],
)
def test_a_request_that_was_here_before_is_refused(header: str, expected: object) -> None:
    assert ask("GET", "/v1/models", **{via.HEADER.replace("-", "_"): header}) == expected


def test_what_is_sent_on_names_every_gateway_on_its_way() -> None:
    assert via.onward({}, "me") == "me"
    assert via.onward({via.HEADER: "first, second"}, "me") == "first, second, me"
    assert via.onward({}, "") == ""
