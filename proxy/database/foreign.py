"""Whether a database may be used: one that another program keeps its tables in is not, unless `.env` names it.

`DATABASE_URL` is a common name: in the shell of somebody who works on a project of their own it is that project's.
"""

from __future__ import annotations

import os
from typing import LiteralString

import psycopg

from roundhouse.config import paths
from roundhouse.proxy.database import address

CONNECT_S = 10
NAMED = 3
"""How many of the tables are named."""

FOREIGN: LiteralString = """
SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
AND NOT (n.nspname = current_schema() AND (c.relname LIKE 'LiteLLM\\_%%' OR c.relname = '_prisma_migrations'))
AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1"""
"""Every table but LiteLLM's, Prisma's ledger and those of extensions."""


class ForeignDatabase(Exception):
    """The database of `DATABASE_URL` is somebody else's; the text says what to do."""


def require_ours(url: str) -> None:
    """That the database at ``url`` is for us: it stands in `.env`, or it holds nothing but LiteLLM's tables.

    Raises:
        ForeignDatabase: it is not.
        psycopg.Error: it does not let us in.
    """
    if url != os.environ.get("DATABASE_URL") or url == paths.env_file_settings().get("DATABASE_URL"):
        return
    with psycopg.connect(address.for_libpq(url), connect_timeout=CONNECT_S) as connection:
        tables = [name for (name,) in connection.execute(FOREIGN).fetchall()]
    if tables:
        more = ", ..." if len(tables) > NAMED else ""
        raise ForeignDatabase(
            f"the database of DATABASE_URL ({address.where(url)}) holds tables of another program "
            f"({', '.join(tables[:NAMED])}{more}): if it is meant, write DATABASE_URL into {paths.env_file()}; "
            "else unset it, and a local database is used"
        )
