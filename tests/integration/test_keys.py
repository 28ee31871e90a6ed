"""Virtual keys on the whole stack, with two LiteLLM workers: limits, money, refusals, crashes, backups, secrets.

The tests share a stack and run in this order: the last ones break it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from openai import APIStatusError, OpenAI

from roundhouse.deploy.services import cluster
from tests.support import fakes
from tests.support.database import require_parts
from tests.support.stack import Stack, _environment
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm, pytest.mark.timeout(240)]

CACHE_S = 3
"""How long a worker may know a key without asking; by default LiteLLM's 60 s."""

PRICE = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.02}
CALL_USD = 1 * 0.01 + 2 * 0.02
"""The fake engines count one token in and two out."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    document = fakes.config({"a": [], "b": [], "priced": []}, max_wait_s=60)
    for entry in document["model_list"]:
        price = PRICE if entry["model_name"] == "priced" else dict.fromkeys(PRICE, 0)
        entry["model_info"].update(price)
    elsewhere = {"model": "openai/gpt", "api_base": "http://127.0.0.1:9/v1", "api_key": "none"}
    document["model_list"].append({"model_name": "elsewhere", "litellm_params": elsewhere})
    document["router_settings"]["model_group_alias"] = {"second": "b"}
    document["general_settings"]["user_api_key_cache_ttl"] = CACHE_S
    env = {"ROUNDHOUSE_WORKERS": "2", "PROXY_BATCH_WRITE_AT": "1"}
    require_parts()
    with Stack(document, env, keys=True) as it:
        yield it


# --- helpers -------------------------------------------------------------------------------------


def roundhouse(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, as a person runs it."""
    argv = [sys.executable, "-m", "roundhouse.cli.main", *arguments]
    return subprocess.run(argv, env=stack.env, capture_output=True, text=True, timeout=120, check=False)


def create(stack: Stack, *options: str, name: str = "") -> str:
    """A new key, made by the command."""
    done = roundhouse(stack, "keys", "create", name or f"k{time.time_ns()}", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@contextmanager
def sdk(stack: Stack, key: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0, timeout=120) as client:
        yield client


def ask(stack: Stack, key: str, model: str = "a") -> int:
    """The status of one chat with a new question."""
    with sdk(stack, key) as client:
        try:
            messages = [{"role": "user", "content": f"{time.time_ns()}"}]
            client.chat.completions.create(model=model, messages=messages)  # type: ignore[call-overload]
        except APIStatusError as error:
            return error.status_code
    return 200


def workers(stack: Stack) -> list[psutil.Process]:
    """The two LiteLLM workers."""
    children = psutil.Process(stack._lines["proxy"].pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


@contextmanager
def one_connection_each(stack: Stack) -> Iterator[list[httpx.Client]]:
    """A client connected to each worker: the others stand still while it connects."""
    with ExitStack() as cleanup:
        clients = []
        everybody = workers(stack)
        assert len(everybody) == 2
        for wanted in everybody:
            others = [worker for worker in everybody if worker != wanted]
            client = cleanup.enter_context(httpx.Client(base_url=stack.url, timeout=60))
            try:
                for other in others:
                    other.send_signal(signal.SIGSTOP)
                assert client.get("/health/liveliness").status_code == 200
            finally:
                for other in others:
                    other.send_signal(signal.SIGCONT)
            clients.append(client)
        yield clients


def chat(client: httpx.Client, key: str, model: str = "a", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": f"{time.time_ns()}"}], **more}
    return client.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def rows(stack: Stack, key: str) -> list[dict[str, Any]]:
    """What has been written about the successful calls of a key."""
    hashed = stack.http.get("/key/info", params={"key": key}).json()["key"]
    params = {"api_key": hashed, "summarize": "false"}
    found: list[dict[str, Any]] = stack.http.get("/spend/logs", params=params).json()
    return [row for row in found if row["total_tokens"]]


def bridges(stack: Stack) -> list[psutil.Process]:
    return [p for p in stack.processes() if "bridge.mjs" in " ".join(p.cmdline())]


def server(stack: Stack) -> psutil.Process:
    """PostgreSQL's main process."""
    return psutil.Process(json.loads((stack.home / "run" / "postgres-server.pid").read_text())["pid"])


# --- a key's life, by command and SDK --------------------------------------------------------------


def test_a_key_may_use_its_models_and_no_other_and_asking_for_another_moves_nothing(stack: Stack) -> None:
    key = create(stack, "--models", "a", "--budget", "none", name="one")
    assert ask(stack, key) == 200
    switches = stack.counter("switches")
    assert ask(stack, key, "b") == 403
    assert stack.counter("switches") == switches
    assert ask(stack, "sk-" + secrets.token_hex(16)) == 401
    with sdk(stack, key) as client:
        assert [model.id for model in client.models.list()] == ["a"]


def test_a_model_is_chosen_by_its_alias_too_and_it_need_not_be_one_of_ours(stack: Stack) -> None:
    create(stack, "--models", "second, elsewhere", name="chosen")
    shown = json.loads(roundhouse(stack, "keys", "show", "chosen", "--json").stdout)
    assert shown["models"] == ["b", "second", "elsewhere"]


def test_the_commands_list_show_block_unblock_and_delete(stack: Stack) -> None:
    key = create(stack, "--rpm", "50", "--priority", "batch", "--max-wait", "9", "--expires", "30d", name="life")
    shown = json.loads(roundhouse(stack, "keys", "show", "life", "--json").stdout)
    assert (shown["rpm"], shown["metadata"]) == (50, {"roundhouse": {"priority": "batch", "max_wait": 9.0}})
    assert shown["expires"]
    listed = json.loads(roundhouse(stack, "keys", "list", "--json").stdout)
    assert {"one", "life"} <= {entry["name"] for entry in listed}
    assert key not in roundhouse(stack, "keys", "list").stdout
    assert ask(stack, key) == 200
    assert roundhouse(stack, "keys", "block", "life").returncode == 0
    wait_for(lambda: ask(stack, key) == 401, "the blocked key is refused", CACHE_S + 10)
    assert "blocked" in roundhouse(stack, "keys", "list").stdout
    assert roundhouse(stack, "keys", "unblock", "life").returncode == 0
    wait_for(lambda: ask(stack, key) == 200, "the key is let in again", CACHE_S + 10)
    assert roundhouse(stack, "keys", "delete", "life").returncode == 0
    wait_for(lambda: ask(stack, key) == 401, "the deleted key is refused", CACHE_S + 10)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("create", "x", "--models", "aa"), 2, "did you mean 'a'?"),
        (("create", "x", "--budget", "much"), 2, "not an amount in USD"),
        (("create", "x", "--expires", "soon"), 2, "such as 30d"),
        (("create", "x", "--max-wait", "-1"), 2, "max_wait"),
        (("create", "one"), 2, "there is a key 'one' already"),
        (("show", "none"), 2, "no key none; there are:"),
    ],
)
def test_bad_input_gets_one_clear_line(stack: Stack, arguments: tuple[str, ...], code: int, expected: str) -> None:
    done = roundhouse(stack, "keys", *arguments)
    assert done.returncode == code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_key_that_has_expired_is_refused(stack: Stack) -> None:
    key = create(stack, "--expires", "2s")
    wait_for(lambda: ask(stack, key) == 401, "the key has expired", CACHE_S + 30)


def test_a_team_a_user_and_their_key_answer_for_the_teams_models_and_budget(stack: Stack) -> None:
    team = stack.http.post("/team/new", json={"team_alias": "t", "models": ["a"], "max_budget": 1}).json()["team_id"]
    user = stack.http.post("/user/new", json={"user_email": "u@example.com", "auto_create_key": False}).json()[
        "user_id"
    ]
    body = {
        "team_id": team,
        "user_id": user,
        "key_alias": "theirs",
        "max_budget": 0.5,
        "duration": "1h",
        "rpm_limit": 60,
    }
    key = stack.http.post("/key/generate", json=body).json()["key"]
    assert ask(stack, key) == 200
    assert ask(stack, key, "b") in (401, 403)
    assert stack.http.get("/team/info", params={"team_id": team}).json()["team_info"]["team_alias"] == "t"
    shown = json.loads(roundhouse(stack, "keys", "show", "theirs", "--json").stdout)
    assert (shown["team"], shown["user"], shown["budget"]) == (team, user, 0.5)


def test_a_plain_key_is_no_admin(stack: Stack) -> None:
    key = create(stack)
    headers = {"authorization": f"Bearer {key}"}
    for path in ("/key/list", "/spend/logs", "/residency/events", "/get/config/callbacks"):
        assert httpx.get(stack.url + path, headers=headers).status_code in (401, 403), path
    assert httpx.post(stack.url + "/key/generate", headers=headers, json={}).status_code in (401, 403)


# --- keys that understand switching ----------------------------------------------------------------


def test_a_long_error_is_readable_for_clients_that_take_it_compressed(stack: Stack) -> None:
    """LiteLLM compresses what its dashboard asks for, errors too, from 500 bytes on."""
    params = {"start_date": "2026-01-01", "end_date": "2026-01-02", "timezone": "x" * 1000}
    response = stack.http.get("/user/daily/activity/aggregated", params=params)
    assert "gzip" in stack.http.headers["accept-encoding"]
    assert (response.status_code, response.headers.get("content-encoding")) == (422, None)
    assert "query.timezone" in response.json()["error"]["message"]


def test_a_key_that_may_not_switch_is_answered_by_the_resident_model_and_the_cache_only(stack: Stack) -> None:
    key = create(stack, "--may-switch", "never")
    assert stack.chat("b", f"bring b {time.time_ns()}").status_code == 200
    assert ask(stack, key, "b") == 200
    question = f"again {time.time_ns()}"
    assert stack.chat("a", question).status_code == 200
    wait_for(lambda: stack.resident() == "a", "a is resident")
    switches = stack.counter("switches")
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        refused = chat(client, key, "b")
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (503, "residency_error", "would_switch")
    assert int(refused.headers["retry-after"]) >= 1
    assert "the wait would be" in error["message"]
    assert stack.counter("switches") == switches


def test_each_key_has_its_own_cached_answers_unless_it_shares(stack: Stack) -> None:
    """BerriAI/litellm#29955: another's cached answer is served, and tells what the other has asked."""
    own = [create(stack) for _ in range(2)]
    metadata = {"metadata": {"roundhouse": {"cache": "shared"}}}
    shared = [stack.http.post("/key/generate", json=metadata).json()["key"] for _ in range(2)]
    question = {"messages": [{"role": "user", "content": f"{time.time_ns()}"}], "temperature": 0}
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        ids = [chat(client, key, **question).json()["id"] for key in (*own, own[0], *shared, stack.key)]
    first, other, again, *ours = ids
    assert first == again
    assert len({first, other, ours[0]}) == 3
    assert set(ours) == {ours[0]}


def test_metadata_that_is_malformed_is_passed_over_with_a_warning(stack: Stack) -> None:
    body = {"metadata": {"roundhouse": {"priority": "now!", "may_switch": 7}}}
    key = stack.http.post("/key/generate", json=body).json()["key"]
    assert ask(stack, key) == 200
    wait_for(lambda: "event=key_metadata_ignored" in stack.logs(10**6), "the log says so")


# --- money and limits, over two workers --------------------------------------------------------------


def test_requests_a_minute_hold_across_workers(stack: Stack) -> None:
    key = create(stack, "--rpm", "3")
    with one_connection_each(stack) as clients:
        statuses = [chat(clients[i % 2], key).status_code for i in range(6)]
    assert statuses == [200, 200, 200, 429, 429, 429]


def test_a_budget_holds_across_workers_and_what_is_free_costs_nothing(stack: Stack) -> None:
    key = create(stack, "--budget", "0.3")
    with one_connection_each(stack) as clients:
        assert chat(clients[0], key, "a").status_code == 200
        statuses: list[int] = []
        while len(statuses) < 30 and set(statuses[-4:]) != {422}:  # until both say no, twice
            statuses.append(chat(clients[len(statuses) % 2], key, "priced", max_tokens=2).status_code)
        assert set(statuses) == {200, 422}
        assert statuses.count(200) <= round(0.3 / CALL_USD), "it has spent more than its budget"
        refused = chat(clients[0], key, "priced", max_tokens=2)
        assert "udget" in refused.json()["error"]["message"]


NOISE = ("litellm", "Exception", "Traceback", "allback", "Key Hash", "sk-")


def said(response: httpx.Response) -> dict[str, Any]:
    """The error of a response, which has the API's own shape and no word of the gateway's insides."""
    document = response.json()
    assert set(document) == {"error"} or document["type"] == "error"
    assert not [word for word in NOISE if word in document["error"]["message"]], response.text
    error: dict[str, Any] = document["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_limit_that_is_reached_is_said_in_words(stack: Stack, path: str) -> None:
    body = {"model": "a", "max_tokens": 5, "messages": [{"role": "user", "content": f"{time.time_ns()}"}]}
    with httpx.Client(base_url=stack.url, timeout=60) as client:

        def until_refused(key: str, model: str) -> httpx.Response:
            for _ in range(8):
                answer = client.post(path, json={**body, "model": model}, headers={"authorization": f"Bearer {key}"})
                if answer.status_code != 200:
                    return answer
            raise AssertionError("no limit")

        limited = until_refused(create(stack, "--rpm", "1"), "a")
        assert (limited.status_code, said(limited)["type"]) == (429, "rate_limit_error")
        spent = until_refused(create(stack, "--budget", "0.0001"), "priced")
        assert spent.status_code == 422  # LiteLLM's for a budget that is spent
        assert "udget" in said(spent)["message"]


def test_a_key_finds_only_the_models_that_it_may_use_by_the_name_that_it_was_given(stack: Stack) -> None:
    key = create(stack, "--models", "second")
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
        listed = [it["id"] for it in client.get("/v1/models").json()["data"]]
        assert listed == ["b", "second"]  # the model of that name, too
        assert client.get("/v1/models/second").json()["id"] == "second"
        assert client.get("/v1/models/a").status_code == 404
        refused = client.post("/v1/embeddings", json={"model": "seccond", "input": "x"})
        assert refused.status_code in (400, 401, 403)
        assert "'a'" not in said(refused)["message"]
    assert ask(stack, key, "second") == 200


def test_a_health_check_of_a_provider_that_is_not_there_shows_no_stack(stack: Stack) -> None:
    answer = stack.http.get("/health", params={"model": "elsewhere"}, timeout=100)
    assert "Traceback" not in answer.text


def test_a_key_that_is_revoked_on_one_worker_is_refused_by_both(stack: Stack) -> None:
    key = create(stack, name="revoked")
    with one_connection_each(stack) as clients:
        assert [chat(client, key).status_code for client in clients] == [200, 200]  # both know it now
    assert roundhouse(stack, "keys", "block", "revoked").returncode == 0
    blocked = time.monotonic()
    with one_connection_each(stack) as clients:
        for client in clients:
            wait_for(lambda c=client: chat(c, key).status_code == 401, "it is refused", CACHE_S + 10)  # type: ignore[misc]
    assert time.monotonic() - blocked < CACHE_S + 12


def test_what_is_spent_is_the_sum_of_the_tokens(stack: Stack) -> None:
    key = create(stack, name="spender")
    tokens = 0
    with sdk(stack, key) as client:
        for model in ("a", "priced", "priced"):
            messages = [{"role": "user", "content": f"{time.time_ns()}"}]
            answer = client.chat.completions.create(model=model, messages=messages)  # type: ignore[call-overload]
            tokens += answer.usage.total_tokens
    wait_for(lambda: len(rows(stack, key)) == 3, "three rows are written", 60)
    written = rows(stack, key)
    assert sum(row["total_tokens"] for row in written) == tokens
    assert sum(row["spend"] for row in written) == pytest.approx(2 * CALL_USD)

    def spent() -> float:
        return float(json.loads(roundhouse(stack, "keys", "show", "spender", "--json").stdout)["spent"])

    wait_for(lambda: spent() == pytest.approx(2 * CALL_USD), "the key's spend is written", 60)


# --- nobody else, and no secret ----------------------------------------------------------------------


def test_no_secret_stands_in_a_command_line_a_log_an_error_or_the_models_list(stack: Stack) -> None:
    with _environment(ROUNDHOUSE_HOME=str(stack.home)):
        password = (cluster.place() / "password").read_text().strip()
    names = ("LITELLM_MASTER_KEY", "LITELLM_SALT_KEY", "ROUNDHOUSE_ENGINE_KEY", "REDIS_PASSWORD", "UI_PASSWORD")
    hidden = {password, *(stack.env[name] for name in names)}
    key = create(stack, name="curious")
    headers = {"authorization": f"Bearer {key}"}
    texts = {"logs": stack.logs(10**8)}
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        texts[f"command line of {process.pid}"] = line
    for path in ("/model/info", "/v1/models", "/key/info", "/residency/status", "/key/list", "/nowhere"):
        texts[path] = httpx.get(stack.url + path, headers=headers).text
    texts["wrong key"] = httpx.get(f"{stack.url}/v1/models", headers={"authorization": "Bearer sk-wrong"}).text
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        texts["no such model"] = chat(client, key, "none").text
    texts["duplicate"] = stack.http.post("/key/generate", json={"key_alias": "curious"}).text
    for where, text in texts.items():
        for secret in hidden | {key}:
            assert secret not in text, f"{where} shows {secret[:6]}..."


def test_files_are_for_this_user_alone(stack: Stack) -> None:
    assert stack.home.stat().st_mode & 0o077 == 0
    with _environment(ROUNDHOUSE_HOME=str(stack.home)):
        for path in (cluster.data(), cluster.socket_folder(), cluster.place() / "password"):
            assert path.stat().st_mode & 0o077 == 0, path
    for path in (stack.home / "run").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_another_account_gets_nothing_from_the_bridges_ports(stack: Stack) -> None:
    code = "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10); "
    code += "c.request('GET', '/status', headers={'host': 'localhost:' + sys.argv[1]}); print(c.getresponse().status)"
    for bridge in bridges(stack):
        port = bridge.cmdline()[bridge.cmdline().index("-p") + 1]
        argv = ["/usr/bin/env", "python3", "-c", code, port]
        done = subprocess.run(argv, user=1, group=1, extra_groups=[], capture_output=True, check=False, cwd="/")
        assert done.returncode != 0


# --- crashes, backups ---------------------------------------------------------------------------------


def test_a_backup_brings_deleted_keys_back(stack: Stack, tmp_path: Path) -> None:
    key = create(stack, "--models", "a", name="kept")
    file = tmp_path / "keys.dump"
    done = roundhouse(stack, "db", "backup", str(file))
    assert done.returncode == 0, done.stderr
    assert file.stat().st_mode & 0o077 == 0
    assert roundhouse(stack, "db", "backup", str(file)).returncode == 2  # never over another
    with _environment(ROUNDHOUSE_HOME=str(stack.home)), psycopg.connect(cluster.url()) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert stack.http.get("/key/list").status_code != 200
    damaged = tmp_path / "damaged.dump"
    damaged.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert roundhouse(stack, "db", "restore", "--yes", str(damaged)).returncode == 1
    done = roundhouse(stack, "db", "restore", "--yes", str(file))
    assert done.returncode == 0, done.stderr
    wait_for(lambda: ask(stack, key) == 200, "the key works again", 30)
    assert ask(stack, key, "b") == 403
    assert "kept" in roundhouse(stack, "keys", "list").stdout


def test_a_file_that_is_no_backup_is_refused(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("hello")
    done = roundhouse(stack, "db", "restore", "--yes", str(file))
    assert (done.returncode, "is no backup" in done.stderr) == (2, True)


def _calls_with_a_known_key_are_answered(stack: Stack, key: str, count: int = 3) -> None:
    assert [ask(stack, key) for _ in range(count)] == [200] * count


def test_killed_bridges_come_back_and_known_keys_are_answered_meanwhile(stack: Stack) -> None:
    key = create(stack)
    with one_connection_each(stack) as clients:
        assert [chat(client, key).status_code for client in clients] == [200, 200]
        killed = bridges(stack)
        assert len(killed) == 2
        for bridge in killed:
            bridge.kill()
        assert [chat(client, key).status_code for client in clients] == [200, 200]
    wait_for(lambda: len(bridges(stack)) == 2, "there are two bridges again", 60)
    wait_for(lambda: stack.http.post("/key/generate", json={}).status_code == 200, "keys can be made again", 60)
    wait_for(lambda: len(rows(stack, key)) == 4, "the rows of all calls are written", 60)


def test_a_killed_postgres_comes_back_and_no_call_is_lost(stack: Stack) -> None:
    key = create(stack)
    _calls_with_a_known_key_are_answered(stack, key)
    wait_for(lambda: len(rows(stack, key)) == 3, "their rows are written", 60)
    victim = server(stack)
    with one_connection_each(stack) as clients:
        assert [chat(client, key).status_code for client in clients] == [200, 200]
        victim.kill()
        wait_for(lambda: gone(victim), "PostgreSQL is dead")
        assert [chat(client, key).status_code for client in clients] == [200, 200]
    wait_for(lambda: stack.http.post("/key/generate", json={}).status_code == 200, "keys can be made again", 60)
    wait_for(lambda: len(rows(stack, key)) == 7, "the rows of all calls are written", 90)


def test_a_killed_gateway_loses_no_row_that_was_written(stack: Stack) -> None:
    key = create(stack)
    _calls_with_a_known_key_are_answered(stack, key)
    wait_for(lambda: len(rows(stack, key)) == 3, "their rows are written", 60)
    victims = workers(stack)
    _calls_with_a_known_key_are_answered(stack, key)
    for victim in victims:
        victim.kill()
    wait_for(lambda: all(gone(victim) for victim in victims), "the workers are dead")
    assert ask(stack, key) == 200  # it waits for the new workers
    assert len(rows(stack, key)) >= 3
    with _environment(ROUNDHOUSE_HOME=str(stack.home)), psycopg.connect(cluster.url()) as connection:
        doubled = connection.execute('SELECT request_id FROM "LiteLLM_SpendLogs" GROUP BY 1 HAVING count(*) > 1')
        assert doubled.fetchall() == []
