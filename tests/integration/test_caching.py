"""The response cache as clients meet it: what is answered anew, what comes from Redis, and what is never kept."""

from __future__ import annotations

import base64
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support import fakes
from tests.support.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(120)]

CONFIG = fakes.config({"a": [], "b": [], "kept": []})
CONFIG["model_list"][2]["litellm_params"]["cache"] = {"use-cache": True}

ROUTES = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
SURE = [{"temperature": 0}, {"temperature": 1, "seed": 5}]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(CONFIG) as it:
        it.http.post("/residency/switch", json={"model": "a"}).raise_for_status()
        yield it


def body(route: str, **more: Any) -> dict[str, Any]:
    text = f"{time.time_ns()}"
    if route == "/v1/responses":
        return {"model": "a", "input": text, **more}
    return {"model": "a", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}


def asked(name: str = "a") -> int:
    """How many requests an engine has had."""
    count: int = httpx.get(f"http://127.0.0.1:{fakes.port_of(CONFIG, name)}/fake/stats").json()["requests"]
    return count


def twice(stack: Stack, route: str, question: dict[str, Any], name: str = "a") -> int:
    """How often the engine was asked for the same question asked twice."""
    stack.http.post("/residency/switch", json={"model": name}).raise_for_status()
    before = asked(name)
    answers = [stack.http.post(route, json={**question, "model": name}) for _ in range(2)]
    assert [it.status_code for it in answers] == [200, 200], answers[0].text
    assert not [it for answer in answers for it in answer.headers if "cache-key" in it]  # it tells what others asked
    return asked(name) - before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("chance", [{}, {"temperature": 1}, {"temperature": 0.7}])
def test_regenerate_gives_another_answer(stack: Stack, route: str, chance: dict[str, Any]) -> None:
    """vercel/ai#445: temperature 1 always gave the same text; the cache was the cause."""
    assert twice(stack, route, body(route, **chance)) == 2


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("sure", SURE[:1])
def test_a_sure_answer_comes_from_the_cache(stack: Stack, route: str, sure: dict[str, Any]) -> None:
    assert twice(stack, route, body(route, **sure)) == 1


def test_a_seed_makes_it_sure(stack: Stack) -> None:
    assert twice(stack, ROUTES[0], body(ROUTES[0], temperature=1, seed=5)) == 1


def test_a_request_or_its_model_in_the_yaml_may_want_it_cached_all_the_same(stack: Stack) -> None:
    assert twice(stack, ROUTES[0], body(ROUTES[0], cache={"use-cache": True})) == 1
    assert twice(stack, ROUTES[0], body(ROUTES[0]), "kept") == 1


def test_a_request_may_pass_the_cache_by(stack: Stack) -> None:
    assert twice(stack, ROUTES[0], body(ROUTES[0], temperature=0, cache={"no-cache": True})) == 2


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_is_never_replayed(stack: Stack, route: str) -> None:
    """BerriAI/litellm#32068: a replayed stream has lost its reasoning, and its usage the details."""
    assert twice(stack, route, body(route, temperature=0, stream=True)) == 2


def test_a_whole_answer_is_not_replayed_to_who_wants_a_stream(stack: Stack) -> None:
    question, before = body(ROUTES[0], temperature=0), asked()
    for stream in (False, True, False, True):
        assert stack.http.post(ROUTES[0], json={**question, "stream": stream}).status_code == 200
    assert asked() - before == 3


def test_a_conversation_of_more_than_four_messages_is_not_cached(stack: Stack) -> None:
    """LiteLLM's own rule, and docs/configuration.md says it: a fact of the version that is pinned."""
    words = [{"role": "user", "content": f"{time.time_ns()}"}] * 5
    assert twice(stack, ROUTES[0], {"messages": words[:4], "temperature": 0}) == 1
    assert twice(stack, ROUTES[0], {"messages": words, "temperature": 0}) == 2


def test_a_client_cannot_name_a_cached_answer(stack: Stack) -> None:
    """Who knows the name of another key's answer would be told it."""
    named = {"cache": {"namespace": "mine"}, "metadata": {"redis_namespace": "mine"}}
    named |= {"litellm_params": {"preset_cache_key": "mine"}, "preset_cache_key": "mine"}
    questions = [body(ROUTES[0], temperature=0, **named) for _ in range(2)]
    ids = [stack.http.post(ROUTES[0], json=it) for it in questions]
    assert ids[0].status_code == ids[1].status_code == 200, ids[0].text
    assert ids[0].json()["id"] != ids[1].json()["id"]


@pytest.mark.parametrize("form", ["float", "base64"])
def test_of_a_mixed_batch_the_engine_gets_what_is_not_cached_and_each_text_keeps_its_place(
    stack: Stack, form: str
) -> None:
    """200 of 1,024 hits were asked for again: Redis had too little time for so many at once."""
    words = [f"{time.time_ns()} {'x' * (n % 500)} {n}" for n in range(2048)]
    url, more = "/v1/embeddings", {"model": "a", "encoding_format": form}
    stack.http.post(url, json={"input": words[:1024], **more}).raise_for_status()
    before = texts()
    stack.http.post(url, json={"input": words[:1024], **more}).raise_for_status()
    assert texts() == before
    random.Random(1).shuffle(words)
    mixed = stack.http.post(url, json={"input": words, **more}).json()["data"]
    assert texts() - before == 1024
    assert [it["index"] for it in mixed] == [*range(2048)]
    assert [first(it["embedding"]) for it in mixed] == [float(len(word)) for word in words]


def first(embedding: list[float] | str) -> float:
    """The first number of an embedding in either form."""
    if isinstance(embedding, str):
        return float(struct.unpack_from("<f", base64.b64decode(embedding))[0])
    return embedding[0]


def texts() -> int:
    """For how many texts the engine was asked."""
    count: int = httpx.get(f"http://127.0.0.1:{fakes.port_of(CONFIG, 'a')}/fake/stats").json()["inputs"]
    return count


def test_a_batch_of_embeddings_asks_only_for_what_is_not_cached(stack: Stack) -> None:
    words = [f"{time.time_ns()} {'x' * n}" for n in range(6)]
    url, first = "/v1/embeddings", asked()
    stack.http.post(url, json={"model": "a", "input": words[:3]}).raise_for_status()
    mixed = stack.http.post(url, json={"model": "a", "input": [words[5], words[1], words[3], words[0]]}).json()
    assert asked() - first == 2
    assert [it["embedding"][0] for it in mixed["data"]] == [float(len(words[n])) for n in (5, 1, 3, 0)]
    assert [it["index"] for it in mixed["data"]] == [0, 1, 2, 3]
    stack.http.post(url, json={"model": "a", "input": words[:2]}).raise_for_status()
    assert asked() - first == 2
