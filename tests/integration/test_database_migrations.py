"""LiteLLM's migrations, applied and noted as Prisma would, on a real PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from roundhouse.deploy.services import cluster
from roundhouse.proxy.database import migrations
from tests.support.database import litellm_tables

pytestmark = [pytest.mark.integration, pytest.mark.litellm]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The address of a fresh local database with LiteLLM's tables."""
    with litellm_tables() as address:
        yield address


@pytest.fixture
def empty(url: str) -> Iterator[str]:
    """An address whose schema is empty; gone afterwards."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA empty")
    yield f"{url}?options=-csearch_path%3Dempty"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA empty CASCADE")


def script(folder: Path, name: str, text: str) -> Path:
    """A migration of our own."""
    path = folder / name / "migration.sql"
    path.parent.mkdir()
    path.write_text(text)
    return path


def ledger(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        query = 'SELECT migration_name, finished_at IS NOT NULL, length(checksum) FROM "_prisma_migrations" ORDER BY 1'
        return connection.execute(query).fetchall()


def test_all_of_litellms_migrations_are_noted_as_prisma_notes_them_and_the_tables_have_every_column(url: str) -> None:
    names = sorted(path.parent.name for path in migrations.folder().glob("*/migration.sql"))
    assert [row[0] for row in ledger(url)] == names
    assert all(row[1:] == (True, 64) for row in ledger(url))
    assert migrations.deploy(url) == []
    with psycopg.connect(url) as connection:
        query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        there = set(connection.execute(query).fetchall())
    assert not _columns() - there


def _columns() -> set[tuple[str, str]]:
    """Table and column of every scalar field of LiteLLM's data model."""
    text = cluster.parts().schema.read_text(encoding="utf-8")
    models = dict(re.findall(r"^model (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL))
    enums = set(re.findall(r"^enum (\w+)", text, re.MULTILINE))
    scalars = {"String", "Int", "BigInt", "Float", "Boolean", "DateTime", "Json", "Bytes", "Decimal"} | enums
    found = set()
    for model, body in models.items():
        mapped = re.search(r'@@map\("(\w+)"\)', body)
        for line in body.splitlines():
            field = re.match(r"\s+(\w+)\s+(\w+)", re.sub(r"//.*", "", line))
            if field and field[2] in scalars:
                column = re.search(r'@map\("(\w+)"\)', line)
                found.add((mapped[1] if mapped else model, column[1] if column else field[1]))
    assert len(found) > 1000
    return found


def test_several_at_once_apply_each_migration_once(empty: str, tmp_path: Path) -> None:
    files = [script(tmp_path, f"{n}_x", f"CREATE TABLE t{n} (i int); SELECT pg_sleep(0.05)") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(lambda _: migrations.deploy(empty, files), range(4)))
    assert sorted(applied) == [[], [], [], [path.parent.name for path in files]]


def test_a_migration_that_fails_is_said_undone_and_never_passed_over(empty: str, tmp_path: Path) -> None:
    good, bad = (
        script(tmp_path, "1_good", "CREATE TABLE a (i int)"),
        script(tmp_path, "2_bad", "CREATE TABLE b (i int); x"),
    )
    with pytest.raises(migrations.MigrationError, match='2_bad failed: syntax error at or near "x"'):
        migrations.deploy(empty, [good, bad])
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT to_regclass('a') IS NULL, to_regclass('b') IS NULL").fetchone() == (
            False,
            True,
        )
    with pytest.raises(migrations.MigrationError, match=r"2_bad was begun and never finished .*syntax error"):
        migrations.deploy(empty, [good, bad])


def test_a_migration_that_prisma_left_half_done_stops_with_what_to_do(empty: str, tmp_path: Path) -> None:
    good = script(tmp_path, "1_good", "CREATE TABLE a (i int)")
    migrations.deploy(empty, [good])
    with psycopg.connect(empty) as connection:
        connection.execute("INSERT INTO \"_prisma_migrations\" (id, checksum, migration_name) VALUES (1, 1, '9_cut')")
    with pytest.raises(migrations.MigrationError, match=r"9_cut .*cut off.*rolled_back_at"):
        migrations.deploy(empty, [good])


def test_one_that_builds_an_index_beside_the_traffic_runs_outside_a_transaction(empty: str, tmp_path: Path) -> None:
    table = script(tmp_path, "1_table", "CREATE TABLE a (i int)")
    index = script(tmp_path, "2_index", "-- slow\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_i ON a (i);")
    with ThreadPoolExecutor(2) as pool:  # one works; the other waits, and does not hold it up
        applied = list(pool.map(lambda _: migrations.deploy(empty, [table, index]), range(2)))
    assert sorted(applied) == [[], ["1_table", "2_index"]]


def test_an_index_whose_building_was_cut_off_is_built_anew(empty: str, tmp_path: Path) -> None:
    table = script(tmp_path, "1_table", "CREATE TABLE a (i int); INSERT INTO a VALUES (1), (1)")
    index = script(tmp_path, "2_index", "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_i ON a (i);")
    assert migrations.deploy(empty, [table]) == ["1_table"]
    with psycopg.connect(empty, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY a_i ON a (i)")
        assert migrations.deploy(empty, [table, index]) == ["2_index"]
        query = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = 'a_i'::regclass"
        assert connection.execute(query).fetchall() == [(True, False)]
