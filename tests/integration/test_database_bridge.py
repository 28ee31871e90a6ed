"""LiteLLM's database client through the bridge to Prisma's engine, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psutil
import psycopg
import pytest

from roundhouse.config import paths
from roundhouse.deploy.services import cluster
from roundhouse.proxy.database import foreign, retention
from tests.support.database import DEADLINE_S, litellm_tables, require_parts
from tests.support.stack import PROJECT
from tests.support.waiting import gone, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.litellm]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a fresh local database with LiteLLM's tables."""
    with litellm_tables() as address:
        yield address


# --- growth, and whose it is ---------------------------------------------------------------------


def test_old_entries_go_as_the_yaml_says_through_our_bridge(url: str) -> None:
    """BerriAI/litellm#29342, Team-Commonly/commonly#468: without a retention the entries of requests fill the disk."""
    code = """
    from types import SimpleNamespace
    import yaml
    from litellm.proxy.db.db_transaction_queue.spend_log_cleanup import SpendLogCleanup
    settings = yaml.safe_load(open("litellm_config.yaml"))["general_settings"]
    ours = {it: settings[it] for it in settings if it.startswith("maximum_")}
    now = datetime.now(timezone.utc)
    for days in (0, 29, 31, 400):
        when = now - timedelta(days=days)
        entry = {"request_id": f"r{days}", "call_type": "x", "startTime": when, "endTime": when}
        await db.litellm_spendlogs.create(data=entry)
        await db.litellm_spendlogtoolindex.create(data={"request_id": f"r{days}", "tool_name": "t", "start_time": when})
        check = {"model_name": "m", "status": "s", "checked_at": when}
        await db.litellm_healthchecktable.create(data=check)
    await SpendLogCleanup(general_settings=ours).cleanup_old_spend_logs(SimpleNamespace(db=db))
    logs = await db.litellm_spendlogs.find_many(order={"startTime": "desc"})
    tools = await db.litellm_spendlogtoolindex.find_many(order={"start_time": "desc"})
    checks = await db.litellm_healthchecktable.count()
    print([row.request_id for row in logs], [row.request_id for row in tools], checks)
    """
    assert in_client(url, code).splitlines()[-1] == "['r0', 'r29'] ['r0', 'r29'] 2"


def test_days_and_deleted_keys_older_than_a_year_are_forgotten_and_what_was_decided_is_not(url: str) -> None:
    today = date.today()
    with psycopg.connect(url, autocommit=True) as connection:
        for days, user in ((1, "new"), (401, "old")):
            connection.execute(
                'INSERT INTO "LiteLLM_DailyEndUserSpend" (id, end_user_id, date, api_key, updated_at) '
                "VALUES (%s, %s, %s, '', now())",
                (user, user, str(today - timedelta(days=days))),
            )
        connection.execute(
            'INSERT INTO "LiteLLM_EndUserTable" (user_id, blocked) VALUES '
            "('new', false), ('old', false), ('blocked', true)"
        )
        for name, days in (("lately", 399), ("long ago", 401)):
            connection.execute(
                'INSERT INTO "LiteLLM_DeletedVerificationToken" (id, token, deleted_at) '
                "VALUES (%s, %s, now() - make_interval(days => %s))",
                (name, name, days),
            )
        assert retention.forget(url) == 3
        users = connection.execute('SELECT user_id FROM "LiteLLM_EndUserTable" ORDER BY 1').fetchall()
        deleted = connection.execute('SELECT id FROM "LiteLLM_DeletedVerificationToken"').fetchall()
    assert users == [("blocked",), ("new",)]
    assert deleted == [("lately",)]
    assert retention.forget(url) == 0


def test_a_database_with_tables_of_another_program_is_not_ours_unless_the_env_file_names_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "env_file", lambda: tmp_path / ".env")
    foreign.require_ours(url)  # DATABASE_URL does not name it: it is our own
    monkeypatch.setenv("DATABASE_URL", url)
    foreign.require_ours(url)  # nothing but LiteLLM's tables
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE customers (id int)")
        try:
            with pytest.raises(foreign.ForeignDatabase) as refused:
                foreign.require_ours(url)
            text = str(refused.value)
            assert "(public.customers)" in text
            assert str(tmp_path / ".env") in text
            assert unquote(urlsplit(url).password or "-") not in text
            (tmp_path / ".env").write_text(f"DATABASE_URL={url}\n")
            foreign.require_ours(url)
            (tmp_path / ".env").write_text(f"DATABASE_URL={url}x\n")
            with pytest.raises(foreign.ForeignDatabase):
                foreign.require_ours(url)
        finally:
            connection.execute("DROP TABLE customers")


# --- the client ----------------------------------------------------------------------------------


def in_client(url: str, code: str, timeout: float = 60) -> str:
    """Run the body of a coroutine with a connected client called ``db``; its output.

    In a process of its own: here another package called prisma may have been imported already.
    """
    program = "import asyncio, sys, json\nfrom datetime import datetime, timedelta, timezone\n"
    program += f"sys.path.insert(0, {str(cluster.parts().client)!r})\n"
    program += "import prisma\nfrom prisma import Json, Prisma\nfrom prisma.errors import *\n"
    program += "async def main():\n    db = Prisma()\n    await db.connect()\n"
    program += textwrap.indent(textwrap.dedent(code), "    ")
    program += "\n    await db.disconnect()\nasyncio.run(main())\n"
    env = {**os.environ, "DATABASE_URL": url, "PRISMA_QUERY_ENGINE_BINARY": str(cluster.parts().engine)}
    argv = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_rows_are_written_found_changed_and_deleted_with_their_types(url: str) -> None:
    code = """
    table = db.litellm_verificationtoken
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    meta = Json({"a": [1, None, "x'y\\n"], "b": {"deep": True}})
    await table.create(data={"token": "t1", "models": ["m1", "m2"], "metadata": meta, "expires": when,
                             "tpm_limit": 2**60, "max_budget": 0.25, "blocked": False})
    row = await table.find_unique(where={"token": "t1"})
    assert row.models == ["m1", "m2"] and row.metadata == {"a": [1, None, "x'y\\n"], "b": {"deep": True}}
    assert row.expires == when and row.tpm_limit == 2**60 and row.max_budget == 0.25 and row.blocked is False
    row = await table.update(where={"token": "t1"}, data={"spend": {"increment": 1.5}, "models": {"set": []}})
    assert row.spend == 1.5 and row.models == []
    await table.upsert(where={"token": "t2"}, data={"create": {"token": "t2"}, "update": {"key_alias": "no"}})
    await table.upsert(where={"token": "t2"}, data={"create": {"token": "t2"}, "update": {"key_alias": "two"}})
    assert (await table.find_first(where={"key_alias": "two"})).token == "t2"
    assert await table.count(where={"token": {"in": ["t1", "t2", "t3"]}}) == 2
    found = await table.find_many(where={"token": {"startswith": "t"}}, order={"token": "desc"})
    assert [r.token for r in found] == ["t2", "t1"]
    found = await table.find_many(where={"metadata": {"path": ["b", "deep"], "equals": Json(True)}})
    assert [r.token for r in found] == ["t1"]
    assert await table.update_many(where={"token": "t1"}, data={"key_alias": "one"}) == 1
    assert await table.delete_many(where={"token": {"in": ["t1", "t2"]}}) == 2
    assert await table.find_unique(where={"token": "t1"}) is None
    print("ok")
    """
    assert in_client(url, code) == "ok"


def test_relations_groups_and_raw_queries(url: str) -> None:
    code = """
    await db.litellm_teamtable.create(data={"team_id": "team", "admins": [], "members": []})
    await db.litellm_budgettable.create(data={"budget_id": "b", "created_by": "x", "updated_by": "x"})
    await db.litellm_verificationtoken.create_many(
        data=[{"token": "g1", "team_id": "team", "spend": 1.0, "budget_id": "b"},
              {"token": "g2", "team_id": "team", "spend": 2.0}])
    row = await db.litellm_verificationtoken.find_unique(where={"token": "g1"}, include={"litellm_budget_table": True})
    assert row.litellm_budget_table.budget_id == "b"
    groups = await db.litellm_verificationtoken.group_by(by=["team_id"], sum={"spend": True}, where={"team_id": "team"})
    assert groups == [{"team_id": "team", "_sum": {"spend": 3.0}}], groups
    rows = await db.query_raw('SELECT token, spend, now() AS at, 12::bigint AS n, NULL AS nothing, models '
                              'FROM "LiteLLM_VerificationToken" WHERE team_id = $1 ORDER BY token', "team")
    assert [r["token"] for r in rows] == ["g1", "g2"] and rows[1]["spend"] == 2.0 and rows[0]["nothing"] is None
    assert rows[0]["models"] in ([], None), rows
    names = await db.query_raw("SELECT relname, relkind, ARRAY[relname] AS names FROM pg_class "
                               "WHERE relname = 'LiteLLM_TeamTable'")
    assert names[0]["relname"] == "LiteLLM_TeamTable" and names[0]["names"] == ["LiteLLM_TeamTable"], names
    update = 'UPDATE "LiteLLM_VerificationToken" SET spend = $1 WHERE team_id = $2'
    assert await db.execute_raw(update, 5.0, "team") == 2
    await db.litellm_verificationtoken.delete_many(where={"team_id": "team"})
    await db.litellm_teamtable.delete(where={"team_id": "team"})
    await db.litellm_budgettable.delete(where={"budget_id": "b"})
    print("ok")
    """
    assert in_client(url, code) == "ok"


def test_transactions_and_batches_are_whole_or_not_at_all(url: str) -> None:
    code = """
    table = db.litellm_config
    async with db.tx() as tx:
        await tx.litellm_config.create(data={"param_name": "kept"})
    try:
        async with db.tx() as tx:
            await tx.litellm_config.create(data={"param_name": "lost"})
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    try:
        async with db.batch_() as batch:
            batch.litellm_config.create(data={"param_name": "lost"})
            batch.litellm_config.create(data={"param_name": "kept"})
    except UniqueViolationError:
        pass
    async with db.batch_() as batch:
        batch.litellm_config.create(data={"param_name": "batched"})
        batch.litellm_config.update(where={"param_name": "kept"}, data={"param_value": Json([1])})
    assert sorted(r.param_name for r in await table.find_many()) == ["batched", "kept"]
    try:
        async with db.tx(timeout=timedelta(milliseconds=100)) as tx:
            await asyncio.sleep(0.5)  # longer than the transaction may take: its clock is what is tested
            await tx.litellm_config.delete_many()
    except Exception as error:
        print(type(error).__name__)
    assert await table.count() == 2
    await table.delete_many()
    """
    assert in_client(url, code) in ("TransactionExpiredError", "TransactionError", "RawQueryError", "DataError")


def test_what_the_database_refuses_is_the_exception_that_litellm_catches(url: str) -> None:
    code = """
    async def name(awaitable):
        try:
            await awaitable
        except Exception as error:
            return type(error).__name__
    config = db.litellm_config
    await config.create(data={"param_name": "one"})
    print(await name(config.create(data={"param_name": "one"})))
    print(await name(db.query_raw("SELECT nonsense")))
    print(await name(config.create(data={"nonsense": 1})))
    print(await config.update(where={"param_name": "none"}, data={"param_value": Json(1)}))
    print(await config.delete(where={"param_name": "none"}))
    await config.delete_many()
    """
    names = ["UniqueViolationError", "RawQueryError", "FieldNotFoundError", "None", "None"]
    got = in_client(url, code).splitlines()
    assert got[:2] + got[3:] == names[:2] + names[3:]
    assert got[2] in ("FieldNotFoundError", "MissingRequiredValueError")


def test_a_server_that_goes_away_in_the_middle_is_said_so_that_litellm_tries_again(url: str) -> None:
    """In other words LiteLLM would take it for a fault of the rows, and drop them."""
    code = """
    async def text(awaitable):
        try:
            await awaitable
        except DataError as error:
            return str(error)
    one = [{"param_name": "held"}]
    async with db.tx(timeout=timedelta(seconds=30)) as tx:
        await tx.execute_raw('LOCK TABLE "LiteLLM_Config"')
        writing = asyncio.ensure_future(text(db.litellm_config.create_many(data=one, skip_duplicates=True)))
        end = "SELECT count(pg_terminate_backend(pid)) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while (await db.query_raw(end))[0]["n"] == 0:
            await asyncio.sleep(0.05)  # that it waits for the lock is seen by asking only
        print(await writing)
    print(await text(db.query_raw("SELECT pg_terminate_backend(pg_backend_pid())")))
    print(await text(db.execute_raw("DO $$BEGIN RAISE 'full' USING ERRCODE = 'disk_full'; END$$")))
    print(await db.litellm_config.count())
    """
    *lost, rows = in_client(url, code).splitlines()
    assert len(lost) == 3
    assert all(line.startswith("Can't reach database server") for line in lost), lost
    assert rows == "0"


@pytest.fixture
def starting() -> Iterator[str]:
    """The address of a server that says of itself that it is starting up."""
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"

    def serve(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)

    require_parts()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(serve, server)
        yield f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/d"
        server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_starts_up_is_said_to_be_away_to_queries_and_to_transactions(starting: str) -> None:
    code = """
    async def begin():
        async with db.tx():
            pass
    writing = db.litellm_config.create_many(data=[{"param_name": "x"}], skip_duplicates=True)
    for awaitable in (begin(), db.query_raw("SELECT 1"), writing):
        try:
            await awaitable
        except DataError as error:
            print(error)
    """
    assert set(in_client(starting, code).splitlines()) == {
        "Can't reach database server: the database system is starting up"
    }


def test_the_types_of_all_tables_are_loaded_only_when_asked_for(url: str) -> None:
    code = """
    assert "prisma.types_in_full" not in sys.modules
    from prisma.types import LiteLLM_ConfigWhereInput
    print("param_value" in LiteLLM_ConfigWhereInput.__annotations__)
    """
    assert in_client(url, code) == "True"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("postgresql://u:p@h:1/d", {"max": 10}),
        ("postgresql://u:p@h:1/d?connection_limit=3&schema=mine", {"max": 3, "options": '-c search_path="mine"'}),
        ("postgresql://u:p@h:1/d?pool_timeout=20&socket_timeout=2", {"connectionTimeoutMillis": 20000}),
        ("postgresql://u:p@h:1/d?sslmode=prefer", {"connectionString": "postgresql://u:p@h:1/d"}),
        ("postgresql://u:p@h:1/d?sslmode=require", {"ssl": {"rejectUnauthorized": False}}),
        ("postgresql://u:p@h:1/d?sslmode=verify-full", {"ssl": {}}),
        ("postgresql://u:p@h:1/d?sslaccept=accept_invalid_certs", {"ssl": {"rejectUnauthorized": False}}),
    ],
)
def test_options_of_the_address_mean_what_they_mean_to_prisma(address: str, expected: dict[str, Any]) -> None:
    require_parts()
    code = """
    const { poolConfig } = await import(process.argv[1])
    const parse = (await import(process.argv[2])).default
    const { config } = poolConfig(process.argv[3])
    console.log(JSON.stringify({ ...config, ssl: parse(config.connectionString).ssl }))
    """
    modules = (
        PROJECT / "proxy/database/engine.mjs",
        cluster.parts().prisma / "node_modules/pg-connection-string/index.js",
    )
    argv = [cluster.parts().node, "--input-type=module", "-e", code, *modules, address]
    config = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert {name: config.get(name) for name in expected} == expected


# --- who may use the bridge ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bridge(url: str) -> Iterator[int]:
    """The port of a running bridge."""
    from tests.support.stack import free_port

    port = free_port()
    env = {**os.environ, "DATABASE_URL": url, "PRISMA_DML_PATH": str(cluster.parts().schema)}
    process = subprocess.Popen([cluster.parts().engine, "-p", str(port)], env=env)

    def answers() -> bool:
        try:
            return httpx.get(f"http://localhost:{port}/status").json() == {"status": "ok"}
        except httpx.HTTPError:
            return False

    try:
        wait_for(answers, "the bridge answers", DEADLINE_S)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def test_it_listens_on_loopback_only(bridge: int) -> None:
    addresses = [c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == bridge]
    assert addresses == ["127.0.0.1"]


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"host": "evil.example"}, {"host": "127.0.0.1"}]
)
def test_a_page_in_a_browser_is_refused(bridge: int, headers: dict[str, str]) -> None:
    assert httpx.get(f"http://localhost:{bridge}/status", headers=headers).status_code == 403


INTRUDER = """
import socket, sys
port, address = int(sys.argv[1]), sys.argv[2]
query = 'mutation { result: executeRaw(query: "CREATE TABLE %s (i int)", parameters: "[]") }' % sys.argv[3]
body = '{"query": "%s", "variables": {}}' % query.replace('"', chr(92) + '"')
head = "POST / HTTP/1.1\\r\\nhost: localhost:%d\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n"
it = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, int(sys.argv[4])))
it.sendall((head % (port, len(body)) + body).encode())
print(it.recv(1000).decode())
"""
"""Makes a table through the bridge, and prints the answer."""


def intrude(
    port: int, table: str, *, uid: int, address: str = "127.0.0.1", source: int = 0
) -> subprocess.CompletedProcess[str]:
    argv = ["/usr/bin/env", "python3", "-c", INTRUDER, str(port), address, table, str(source)]
    return subprocess.run(argv, user=uid, extra_groups=[], capture_output=True, text=True, check=False, cwd="/")


def is_there(url: str, table: str) -> bool:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (table,)).fetchone() == (True,)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")


@needs_root
def test_another_local_account_is_cut_off_before_it_has_done_anything(url: str, bridge: int) -> None:
    assert "200 OK" in intrude(bridge, "ours", uid=0).stdout
    assert is_there(url, "ours")
    refused = intrude(bridge, "theirs", uid=1)
    assert "200 OK" not in refused.stdout
    assert not is_there(url, "theirs")


@needs_root
def test_another_account_that_has_hung_up_is_not_taken_for_root() -> None:
    """The kernel lists a connection whose end is closed as root's."""
    caller = PROJECT / "proxy" / "database" / "caller.mjs"
    code = "import(process.argv[1]).then((it) => console.log(it.sameAccount(...process.argv.slice(2).map(JSON.parse))))"
    connect = "import socket, sys; it = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); it.close()"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for uid in (1, 0):
            argv = ["/usr/bin/env", "python3", "-c", connect, str(port)]
            subprocess.run(argv, user=uid, extra_groups=[], check=True, cwd="/")
            connection, (address, theirs) = server.accept()
            ends = [json.dumps({"address": it, "port": n}) for it, n in ((address, theirs), ("127.0.0.1", port))]
            with connection:
                node = [cluster.parts().node, "-e", code, str(caller), *ends]
                done = subprocess.run(node, capture_output=True, text=True, check=True)
            assert done.stdout.strip() == "false"


@needs_root
def test_another_account_does_not_pass_for_a_connection_with_the_same_port(url: str, bridge: int) -> None:
    with socket.create_connection(("127.0.0.1", bridge)) as ours:
        refused = intrude(bridge, "twin", uid=1, address="127.0.0.2", source=ours.getsockname()[1])
    assert "200 OK" not in refused.stdout
    assert "Address already in use" not in refused.stderr
    assert not is_there(url, "twin")


def test_it_ends_with_whoever_started_it(url: str) -> None:
    env = {**os.environ, "DATABASE_URL": url, "PRISMA_QUERY_ENGINE_BINARY": str(cluster.parts().engine)}
    code = f"import sys, asyncio; sys.path.insert(0, {str(cluster.parts().client)!r})\nfrom prisma import Prisma\n"
    code += "async def main():\n db = Prisma(); await db.connect(); print(db._engine.process.pid, flush=True)\n"
    code += " await asyncio.Event().wait()\nasyncio.run(main())"
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    engine = psutil.Process(int(parent.stdout.readline()))
    assert os.getsid(engine.pid) == engine.pid  # a signal to the gateway's group leaves it to the gateway
    parent.kill()
    parent.communicate()
    wait_for(lambda: gone(engine), "the bridge has ended")
