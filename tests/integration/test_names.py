"""Whatever a model is called: it is listed, retrieved, asked, switched to and unloaded, and nobody else is asked."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

import httpx
import pytest
from openai import NotFoundError

from roundhouse.bench.stack import model
from tests.support import fakes
from tests.support.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

WORDS = "a näme no two wörds"
FAR = ("модель", "モデル", "rocket 🚀", "e\u0301", "\u00e9")  # the last two look alike
NAMES = ("acme/m", "acme_m", "qwen:latest", "v1.5-x", WORDS, *FAR)
LISTED = (*NAMES, "acme/cold", "chat/default", "псевдоним", "meta-llama-3-x")
ROUTES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/responses", {"input": "x"}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 5}),
)


@pytest.fixture(scope="module")
def hub() -> Iterator[socket.socket]:
    """A model hub that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as it:
        it.setblocking(False)
        yield it


@pytest.fixture(scope="module")
def stack(hub: socket.socket) -> Iterator[Stack]:
    config = fakes.config({name: [] for name in (*NAMES, "meta-llama-3-x")})
    port = fakes.port_of(config, "acme/m")
    cold: dict[str, Any] = model("acme/cold", {"port": port})
    cold["litellm_params"].update(model="hosted_vllm/acme/m", temperature=0)
    cold["model_info"].pop("launcher")
    config["model_list"].append(cold)
    config["router_settings"]["model_group_alias"] = {"chat/default": "acme/m", "псевдоним": "модель"}
    config["model_list"][NAMES.index("qwen:latest")]["model_info"]["launcher"]["token_ids"] = True
    with Stack(config, {"HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}) as it:
        yield it


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_can_be_retrieved(stack: Stack, name: str) -> None:
    """As by OpenAI's SDK (BerriAI/litellm answers 404 for aliases, and has no route for a name with a slash)."""
    listed = {it["id"]: it for it in stack.http.get("/v1/models").json()["data"]}
    for path in (quote(name), quote(name, safe="")):
        response = stack.http.get(f"/v1/models/{path}")
        assert (response.status_code, response.json()) == (200, listed[name])
    with stack.client() as client:
        assert client.models.retrieve(name).id == name


def test_another_name_is_not_found_and_without_a_key_nothing_is(stack: Stack) -> None:
    with stack.client() as client, pytest.raises(NotFoundError, match="'acme/none' does not exist"):
        client.models.retrieve("acme/none")
    response = stack.http.get("/v1/models/acme/m", headers={"authorization": "Bearer sk-no"})
    assert response.status_code == 401


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_that_name_is_asked_switched_to_and_unloaded(stack: Stack, name: str) -> None:
    answer = stack.chat(name, f"{time.time_ns()}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"].startswith(name)
    stack.http.post("/residency/unload", json={"model": name}).raise_for_status()
    assert stack.resident() is None
    stack.http.post("/residency/switch", json={"model": name}).raise_for_status()
    assert stack.resident() == name
    assert len(list((stack.home).rglob("engines/*.json"))) == 1


@pytest.mark.parametrize("name", [*FAR, "псевдоним"])
def test_a_name_that_no_header_can_have_is_asked_for_on_all_routes(stack: Stack, name: str) -> None:
    """LiteLLM writes names into headers, in Latin-1: the answer was there, and lost."""
    posts = [(path, {**body, "stream": stream}) for path, body in ROUTES for stream in (False, True)]
    for path, body in [*posts, ("/v1/embeddings", {"input": "x"})]:
        answer = stack.http.post(path, json={"model": name, **body})
        assert answer.status_code == 200, f"{path} {body}: {answer.text}"
        if "x-litellm-model-group" in answer.headers:
            assert unquote(answer.headers["x-litellm-model-group"]) == name


def test_names_that_look_alike_have_logs_of_their_own(stack: Stack) -> None:
    for name in ("acme/m", "acme_m", *FAR):
        stack.http.post("/residency/switch", json={"model": name}).raise_for_status()
    ports = [fakes.port_of_file(stack.config_file, name) for name in ("acme/m", "acme_m", "acme/m", *FAR)]
    for name, port in zip(("acme/m", "acme_m", "acme/cold", *FAR), ports, strict=True):
        shown = subprocess.run(
            [sys.executable, "-m", "roundhouse.cli.main", "logs", name],
            env=stack.env,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"http://127.0.0.1:{port}" in shown
        assert sum("Starting vLLM server on" in line and f":{port}" not in line for line in shown.splitlines()) == 0


def test_two_names_of_one_engine_cost_no_switch(stack: Stack) -> None:
    stack.http.post("/residency/switch", json={"model": "acme/cold"}).raise_for_status()
    starts = stack.counter("starts")
    for name in ("acme/m", "acme/cold", "chat/default"):
        stack.chat(name, f"{time.time_ns()}").raise_for_status()
    assert (stack.resident(), stack.counter("starts")) == ("acme/m", starts)


def test_a_health_check_asks_no_engine_by_its_other_name(stack: Stack) -> None:
    stack.http.post("/residency/unload", json={"model": None}).raise_for_status()
    starts = stack.counter("starts")
    health = stack.http.get("/health")
    assert "Traceback" not in health.text
    assert stack.counter("starts") == starts


@pytest.mark.litellm
@pytest.mark.parametrize("name", ["meta-llama-3-x"])
def test_no_name_has_the_gateway_ask_a_hub(stack: Stack, hub: socket.socket, name: str) -> None:
    """LiteLLM chooses a tokenizer by a model's name, and would fetch it: from a silent hub, for ever."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    assert stack.http.post("/v1/messages/count_tokens", json=body, timeout=30).json()["input_tokens"] > 0
    assert stack.http.post("/utils/token_counter", json=body, timeout=30).json()["total_tokens"] > 0
    with stack.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}, timeout=30) as stream:
        assert stream.read().rstrip().endswith(b"[DONE]")
    with pytest.raises(BlockingIOError):
        hub.accept()


@pytest.mark.parametrize("ids", [[906, 917], [[906, 917], [9906]]])
@pytest.mark.parametrize("name", ["acme_m", "acme/cold", "chat/default"])
def test_an_embedding_of_token_ids_is_refused_and_starts_nothing(stack: Stack, name: str, ids: list[Any]) -> None:
    """LangChain sends those of OpenAI's tokenizer: its check_embedding_ctx_length."""
    starts = stack.counter("starts")
    response = stack.http.post("/v1/embeddings", json={"model": name, "input": ids})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "token_ids")
    assert "check_embedding_ctx_length=False" in response.json()["error"]["message"]
    assert stack.counter("starts") == starts


def test_token_ids_go_through_where_the_yaml_says_so(stack: Stack) -> None:
    response = stack.http.post("/v1/embeddings", json={"model": "qwen:latest", "input": [906, 917]})
    assert response.status_code == 200, response.text


@pytest.mark.litellm
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_of_a_batch_what_is_known_is_not_computed_again_and_each_vector_is_its_texts(
    stack: Stack, encoding: Any
) -> None:
    """LiteLLM puts what the cache has and what the engine says together: in the order of the inputs."""
    texts = [f"{encoding} {time.time_ns()} {'x' * (n % 97)}{n}" for n in range(2048)]
    known = texts[1::2]
    with stack.client() as client:
        client.embeddings.create(model="acme_m", input=known, encoding_format=encoding)
        answer = client.embeddings.create(model="acme_m", input=texts, encoding_format=encoding)
    assert [it.index for it in answer.data] == list(range(2048))
    assert [it.embedding[0] for it in answer.data] == [float(len(text)) for text in texts]
    port = fakes.port_of_file(stack.config_file, "acme_m")
    computed = httpx.get(f"http://127.0.0.1:{port}/fake/stats").json()["last"]["input"]
    assert set(texts[::2]) <= set(computed) < set(texts)
