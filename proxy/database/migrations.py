"""LiteLLM's migrations, applied as `prisma migrate deploy` applies them, without Prisma's native schema engine.

The ledger, the checksums and the advisory lock are Prisma's own, so that its command can take over any day.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Iterable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

PRISMA_LOCK = 72707369
"""The advisory lock that Prisma's schema engine takes."""

POLL_S = 0.1
CONNECT_S = 10

LEDGER = """
CREATE TABLE IF NOT EXISTS "_prisma_migrations" (
    id VARCHAR(36) PRIMARY KEY NOT NULL,
    checksum VARCHAR(64) NOT NULL,
    finished_at TIMESTAMPTZ,
    migration_name VARCHAR(255) NOT NULL,
    logs TEXT,
    rolled_back_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    applied_steps_count INTEGER NOT NULL DEFAULT 0
)"""

Connection = psycopg.Connection[tuple[Any, ...]]


class MigrationError(Exception):
    """The schema is not what this LiteLLM needs, and only a person can say what to do; the text does."""


def folder() -> Path:
    """Where LiteLLM's migrations lie."""
    spec = find_spec("litellm_proxy_extras")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "migrations"


def deploy(url: str, files: Iterable[Path] | None = None) -> list[str]:
    """Bring the database at ``url`` up to date; the names of what was applied.

    ``files`` are the ``NAME/migration.sql`` to apply, by default LiteLLM's. Any number of processes may call it at
    once: one works, the others wait and find everything done.

    Raises:
        MigrationError: a migration failed, now or earlier.
        psycopg.OperationalError: the database cannot be reached.
    """
    scripts = sorted(folder().glob("*/migration.sql") if files is None else files)
    with psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as connection:
        if _is_current(connection, scripts):
            return []
        _lock(connection)
        connection.execute(LEDGER)
        done = _done(connection)
        missing = [script for script in scripts if script.parent.name not in done]
        for script in missing:
            _apply(connection, script)
        return [script.parent.name for script in missing]


def _lock(connection: Connection) -> None:
    """Take the lock, asking again and again: whoever waited for it in one statement would hold up the building of an
    index, which waits for all statements that began before."""
    while connection.execute("SELECT pg_try_advisory_lock(%s)", (PRISMA_LOCK,)).fetchone() != (True,):
        time.sleep(POLL_S)


def _is_current(connection: Connection, scripts: list[Path]) -> bool:
    """Whether there is nothing to do: the usual case, and then no lock is taken."""
    found = connection.execute("SELECT to_regclass('\"_prisma_migrations\"')").fetchone()
    if not found or not found[0]:
        return False
    entries = _entries(connection)
    finished = {name for name, done, _ in entries if done}
    return len(finished) == len(entries) and {script.parent.name for script in scripts} <= finished


def _entries(connection: Connection) -> list[tuple[str, bool, str | None]]:
    return connection.execute(
        'SELECT migration_name, finished_at IS NOT NULL, logs FROM "_prisma_migrations" WHERE rolled_back_at IS NULL'
    ).fetchall()


def _done(connection: Connection) -> set[str]:
    entries = _entries(connection)
    for name, done, logs in entries:
        if not done:
            raise MigrationError(
                f"the migration {name} was begun and never finished ({(logs or 'it was cut off').strip()}); "
                "restore a backup with 'roundhouse db restore FILE', or mend the database by hand and set "
                f"finished_at (if it is done) or rolled_back_at (if it is undone) of {name} in _prisma_migrations"
            )
    return {name for name, _, _ in entries}


def _apply(connection: Connection, script: Path) -> None:
    """Apply one, and note it, in one transaction: cut off anywhere, it leaves no trace and is applied again."""
    name, content = script.parent.name, script.read_bytes()
    entry = (str(uuid.uuid4()), hashlib.sha256(content).hexdigest(), name)
    alone = _needs_no_transaction(content)
    try:
        if alone:
            _drop_broken_index(connection, content.decode())
        with nullcontext() if alone else connection.transaction():
            connection.execute(content)
            connection.execute(
                'INSERT INTO "_prisma_migrations" (id, checksum, migration_name, finished_at, applied_steps_count) '
                "VALUES (%s, %s, %s, now(), 1)",
                entry,
            )
    except psycopg.OperationalError:
        raise  # the server went away or is full, which is no fault of the migration
    except psycopg.Error as error:
        connection.execute(
            'INSERT INTO "_prisma_migrations" (id, checksum, migration_name, logs) VALUES (%s, %s, %s, %s)',
            (*entry, str(error)),
        )
        raise MigrationError(f"the migration {name} failed: {str(error).strip()}") from error


def _needs_no_transaction(script: bytes) -> bool:
    """Whether it is an index built concurrently: one statement, and safe to run again."""
    return b"CONCURRENTLY" in re.sub(rb"--[^\n]*", b"", script).upper()


def _drop_broken_index(connection: Connection, script: str) -> None:
    """Drop what is left of this script's index if its building was cut off: IF NOT EXISTS would take it for whole."""
    broken = connection.execute(
        "SELECT format('DROP INDEX %%I.%%I', n.nspname, c.relname) FROM pg_index i "
        "JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE NOT i.indisvalid AND n.nspname = current_schema() AND strpos(%s, c.relname) > 0",
        (script,),
    ).fetchall()
    for (statement,) in broken:
        connection.execute(statement)
