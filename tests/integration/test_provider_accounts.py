"""Nobody with a key of ours uses the operator's accounts at providers, and the gateway does not call itself.

Recorders stand in the place of four providers: every variable by which LiteLLM finds them leads there. The tests share
a stack with virtual keys; its YAML names those variables, so that the providers' keys are in the gateway on purpose.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from roundhouse.proxy.served import Routes
from tests.support import fakes
from tests.support.database import require_parts
from tests.support.recorder import Recorder, recording
from tests.support.route_table import litellms
from tests.support.stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(300)]

MODELS = {"OPENAI": "openai/gpt-4o", "ANTHROPIC": "anthropic/claude-x", "COHERE": "cohere/command-x"}
MODELS["MISTRAL"] = "mistral/mistral-x"
"""Provider, as its variables begin -> a model there."""

AT_ONCE = 12


@pytest.fixture(scope="module")
def accounts() -> Iterator[Recorder]:
    """All four providers, by the variables of the shell and of the YAML."""
    with recording() as it:
        yield it


@pytest.fixture(scope="module")
def detour() -> Iterator[Recorder]:
    """A name under which the gateway reaches itself, as a proxy in front of it has one."""
    with recording() as it:
        yield it


@pytest.fixture(scope="module")
def stack(accounts: Recorder, detour: Recorder) -> Iterator[Stack]:
    require_parts()
    document = fakes.config({"a": [], "b": []}, max_wait_s=60)
    shell = {"UNHEARD_OF_API_KEY": "x", "AZURE_API_KEY": "x", "LITELLM_UNHEARD_OF": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    shell["MODEL_WEIGHTS_TOKEN"] = "for the engines"
    for provider, model in MODELS.items():
        shell[f"{provider}_API_KEY"] = f"sk-operator-{provider.lower()}"
        shell[f"{provider}_BASE_URL"] = shell[f"{provider}_API_BASE"] = accounts.url
        params = {"model": model, "api_key": f"os.environ/{provider}_API_KEY", "api_base": accounts.url}
        named = {name: f"os.environ/{provider}_{name}" for name in ("BASE_URL", "API_BASE")}
        entry = {"model_name": f"at-{provider.lower()}", "litellm_params": params}
        document["model_list"].append(entry | {"model_info": {"disable_background_health_check": True, "note": named}})
    circle = {"model": "openai/self", "api_key": "os.environ/LITELLM_MASTER_KEY", "api_base": f"{detour.url}/v1"}
    document["model_list"].append({"model_name": "self", "litellm_params": circle})
    document["model_list"][0]["model_info"]["launcher"]["env"]["TOKEN"] = "${MODEL_WEIGHTS_TOKEN}"
    document["general_settings"]["pass_through_endpoints"] = [{"path": "/weather", "target": f"{accounts.url}/weather"}]
    with Stack(document, shell, keys=True) as it:
        detour.forward = it.url
        yield it


@pytest.fixture(scope="module")
def keys(stack: Stack) -> dict[str, str]:
    """Whose request it is -> their key."""
    made = {"master": stack.key}
    for name, body in {"wide": {}, "narrow": {"models": ["a"]}}.items():
        made[name] = stack.http.post("/key/generate", json={"key_alias": name, **body}).json()["key"]
    return made


QUESTION = [{"role": "user", "content": "my private text"}]


def body(model: str | None) -> dict[str, Any]:
    """Something of everything that a route may want."""
    return {
        **({} if model is None else {"model": model}),
        "messages": QUESTION,
        "input": "my private text",
        "prompt": "my private text",
        "query": "q",
        "documents": ["d"],
        "contents": [{"role": "user", "parts": [{"text": "my private text"}]}],
        "max_tokens": 5,
        "voice": "alloy",
        "purpose": "batch",
        "name": "n",
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "custom_llm_provider": "openai",
        "litellm_params": {"model": model or "gpt-4o"},
    }


def every_request() -> Iterator[tuple[str, str]]:
    """Method and path of every route of LiteLLM's."""
    values = {"provider": "openai", "model": "gpt-4o", "model_name": "gpt-4o", "model_id": "gpt-4o"}
    values |= {"endpoint": "v1/chat/completions", "response_id": "resp_1", "file_id": "file-1", "path": "v1/files"}
    for route in litellms():
        path = route.path
        for name in {part.split("}")[0] for part in path.split("{")[1:]}:
            path = path.replace(f"{{{name}}}", values.get(name.split(":")[0], "x"))
        yield from ((method, path) for method in route.methods)


async def sweep(stack: Stack, key: str, model: str | None, requests: list[tuple[str, str]]) -> list[int]:
    """Make all ``requests``, with ``model``; the statuses of the answers."""
    slots = asyncio.Semaphore(AT_ONCE)
    limits = httpx.Limits(max_connections=AT_ONCE)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=120, limits=limits) as client:

        async def ask(method: str, path: str) -> int:
            async with slots, client.stream(method, path, json=body(model)) as answer:
                return answer.status_code

        return await asyncio.gather(*itertools.starmap(ask, requests))


async def test_no_route_of_litellms_reaches_an_account(stack: Stack, accounts: Recorder, keys: dict[str, str]) -> None:
    """With a key for everything, for a model that the YAML does not have."""
    before = len(accounts.asked)
    statuses = await sweep(stack, keys["wide"], "gpt-4o", list(every_request()))
    assert accounts.asked[before:] == []
    assert len(statuses) > 1000
    assert sum(status == 400 for status in statuses) > 500
    assert stack.counter("starts") == 0


@pytest.mark.parametrize(("whose", "model"), [("narrow", None), ("master", "gpt-4o")])
async def test_no_route_that_is_served_reaches_an_account_with_any_key(
    stack: Stack, accounts: Recorder, keys: dict[str, str], whose: str, model: str | None
) -> None:
    """The others are refused before the key is looked at. The key for one model asks for none."""
    routes = Routes(keys=True)
    before = len(accounts.asked)
    statuses = await sweep(
        stack, keys[whose], model, [it for it in every_request() if routes.decide(*it).path is not None]
    )
    assert accounts.asked[before:] == []
    assert len(statuses) > 300
    assert stack.counter("starts") == 0


SPELLINGS = """
GET /v1/files
GET /v1/files/
GET //v1/files
GET /v1//files
GET /v1%2Ffiles
GET /%76%31/files
GET /V1/Files
GET /v1/files%0A
GET /v1/files;x
GET /./v1/files
GET /ui/../v1/files
GET /ui/%2e%2e/v1/files
GET /v1/models/../files
GET http://localhost/v1/files
GET /v1/files?model=a
GET /openai/v1/files
GET /azure/v1/files
DELETE /v1/files/file-1
POST /v1/moderations
POST /openai/v1/chat/completions
PUT /openai/deployments/a/chat/completions
POST /openai//deployments/a/chat/completions
POST /anthropic/v1/messages
POST /cohere/v1/chat
POST /mistral/v1/chat/completions
POST /cursor/v1/chat/completions
POST /vllm/v1/chat/completions
GET /get/latest_release_info
HEAD /v1/files
OPTIONS /v1/files
"""


@pytest.mark.parametrize("line", SPELLINGS.split("\n")[1:-1])
def test_a_route_that_is_refused_is_refused_however_it_is_spelled(
    stack: Stack, accounts: Recorder, keys: dict[str, str], line: str
) -> None:
    before = len(accounts.asked)
    method, path = line.split(" ", 1)
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    headers = {"authorization": f"Bearer {keys['wide']}", "content-type": "application/json"}
    connection.request(method, path, json.dumps(body("gpt-4o")), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status in ((405,) if method == "PUT" else (400, 404) if path.startswith("/ui") else (400,))
    if content and answer.status == 400:
        error = json.loads(content)["error"]
        assert (error["type"], error["code"], error["message"] != "") == ("residency_error", "not_served", True)
    assert accounts.asked[before:] == []


async def test_no_websocket_is_opened(stack: Stack, keys: dict[str, str]) -> None:
    paths = [it.path.replace("{endpoint:path}", "v1/realtime") for it in litellms() if it.kind == "websocket"]
    assert len(paths) > 5
    for path in paths:
        url = f"{stack.url.replace('http:', 'ws:')}{path}?model=a"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, additional_headers={"authorization": f"Bearer {keys['wide']}"}):
                pass
        assert refused.value.response.status_code == 400, path
        assert json.loads(refused.value.response.body or b"")["error"]["code"] == "not_served", path


def test_a_slash_at_the_end_does_not_turn_a_model_of_ours_into_a_pass_through(
    stack: Stack, accounts: Recorder, keys: dict[str, str]
) -> None:
    before = len(accounts.asked)
    headers = {"authorization": f"Bearer {keys['narrow']}"}
    request = {"messages": [{"role": "user", "content": f"{time.time_ns()}"}]}
    path = f"{stack.url}/openai/deployments/a/chat/completions/"
    answer = httpx.post(path, json=request, headers=headers, timeout=60)
    assert answer.json()["choices"][0]["message"]["content"].startswith("a")
    assert accounts.asked[before:] == []


def test_a_refusal_comes_before_the_key_is_looked_at(stack: Stack) -> None:
    with httpx.Client(base_url=stack.url) as client:
        assert client.get("/v1/files").json()["error"]["code"] == "not_served"
        assert client.get("/v1/models").status_code == 401


# --- what is meant works -----------------------------------------------------------------------------


def test_a_model_elsewhere_is_asked_with_the_key_that_the_yaml_names(
    stack: Stack, accounts: Recorder, keys: dict[str, str]
) -> None:
    before = len(accounts.asked)
    request = {"model": "at-openai", "messages": [{"role": "user", "content": f"{time.time_ns()}"}]}
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        answers = {
            whose: client.post("/v1/chat/completions", json=request, headers={"authorization": f"Bearer {keys[whose]}"})
            for whose in ("narrow", "wide")
        }
    assert answers["narrow"].status_code == 403
    assert answers["wide"].json()["choices"][0]["message"]["content"] == "from elsewhere"
    (asked,) = accounts.asked[before:]
    assert (asked.path, asked.headers["authorization"]) == ("/chat/completions", "Bearer sk-operator-openai")


def test_a_pass_through_route_of_the_yaml_is_served(stack: Stack, accounts: Recorder) -> None:
    before = len(accounts.asked)
    assert stack.http.get("/weather").status_code == 200
    assert [(it.method, it.path) for it in accounts.asked[before:]] == [("GET", "/weather")]


def test_a_service_has_of_its_callers_variables_what_it_needs_and_what_the_yaml_names(stack: Stack) -> None:
    names = {service: set(stack.worker(service).environ()) for service in ("proxy", "residency")}
    shell = {name for name in stack.env if name.endswith(("_API_KEY", "_API_BASE", "_BASE_URL", "_TOKEN"))}
    shell |= {"LITELLM_UNHEARD_OF", "AWS_SECRET_ACCESS_KEY"}
    named = {f"{provider}_{it}" for provider in MODELS for it in ("API_KEY", "API_BASE", "BASE_URL")}
    assert names["proxy"] & shell == named
    assert names["residency"] & shell == {"MODEL_WEIGHTS_TOKEN"}


# --- circles -------------------------------------------------------------------------------------------

CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION},
    "/v1/completions": {"prompt": "x"},
    "/v1/responses": {"input": "x"},
    "/v1/messages": {"messages": QUESTION, "max_tokens": 5},
    "/v1/embeddings": {"input": "x"},
    "/v1/moderations": {"input": "x"},
    "/v1/images/generations": {"prompt": "x"},
    "/v1/audio/speech": {"input": "x", "voice": "alloy"},
    "/v1beta/models/self:generateContent": {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
}


FORMS: dict[str, dict[str, Any]] = {
    "/v1/audio/transcriptions": {"file": ("a.wav", b"RIFF", "audio/wav")},
    "/v1/images/edits": {"image": ("a.png", b"\x89PNG", "image/png")},
}


@pytest.mark.parametrize("path", [*CALLS, *FORMS])
def test_a_call_that_leads_back_here_ends_at_its_first_step(
    stack: Stack, detour: Recorder, keys: dict[str, str], path: str
) -> None:
    before = len(detour.asked)
    answer = call_self(stack, keys, path)
    assert answer.status_code >= 400
    assert "this gateway itself" in answer.text
    assert len(detour.asked) - before == 1


@pytest.mark.parametrize("path", [*CALLS, *FORMS])
def test_a_circle_of_two_gateways_ends_too(stack: Stack, detour: Recorder, keys: dict[str, str], path: str) -> None:
    """What was sent on by another gateway names it when it is sent on again; or it is not sent on."""
    before = len(detour.asked)
    answer = call_self(stack, keys, path, **{"x-roundhouse-via": "another"})
    assert answer.status_code >= 400
    assert all("another" in it.headers["x-roundhouse-via"] for it in detour.asked[before:])


def call_self(stack: Stack, keys: dict[str, str], path: str, **headers: str) -> httpx.Response:
    """Ask for the model that is this gateway, by a detour."""
    headers["authorization"] = f"Bearer {keys['wide']}"
    if path in FORMS:
        form = {"model": "self", "prompt": "x"}
        return httpx.post(stack.url + path, data=form, files=FORMS[path], headers=headers, timeout=60)
    return httpx.post(stack.url + path, json={"model": "self", **CALLS[path]}, headers=headers, timeout=60)


def test_a_gateway_behind_a_gateway_is_answered(stack: Stack, keys: dict[str, str]) -> None:
    headers = {"authorization": f"Bearer {keys['wide']}", "x-roundhouse-via": "another"}
    assert httpx.get(f"{stack.url}/v1/models", headers=headers, timeout=60).status_code == 200
