"""Clients that give up: soon, and try again; or at once, and do not mean it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.support import fakes
from tests.support.stack import Stack
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

START_S, PATIENCE_S = 6.0, 2.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(fakes.config({"a": ["--tokens", "2"], "slow": ["--start-delay", str(START_S), "--tokens", "2"]})) as it:
        yield it


def ask(stack: Stack, model: str, patience_s: float) -> int:
    """The status, or 0 if the client gave up."""
    body = {"model": model, "messages": [{"role": "user", "content": f"{time.time_ns()}"}]}
    with suppress(httpx.TimeoutException):
        return stack.http.post("/v1/chat/completions", json=body, timeout=patience_s).status_code
    return 0


def test_a_request_that_is_cancelled_at_once_leaves_the_resident_alone(stack: Stack) -> None:
    """ggml-org/llama.cpp#25528: an editor's requests, cancelled at the next keystroke, throw the other model out."""
    assert ask(stack, "a", 60.0) == 200
    before = stack.counter("starts")
    for _ in range(3):
        assert ask(stack, "slow", 0.3) == 0
    wait_for(lambda: stack.status()["models"]["slow"]["waiting"] == 0, "nobody waits", 5.0)
    assert (stack.state("a"), stack.state("slow")) == ("ready", "stopped")
    assert stack.counter("starts") == before


def test_a_client_with_a_time_out_shorter_than_the_start_gets_its_model(stack: Stack) -> None:
    """rsynnot/magic-lists-for-navidrome#34: each try began a start that ended when the client left."""
    before = stack.counter("starts")
    answers = [ask(stack, "slow", PATIENCE_S) for _ in range(8)]
    assert answers[0] == 0
    assert answers[-1] == 200
    assert stack.counter("starts") == before + 1
