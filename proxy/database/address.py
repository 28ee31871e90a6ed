"""The database's address, for LiteLLM, for `libpq`, and for a log."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from roundhouse.deploy.services import cluster

PRISMA_OPTIONS = {
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "pgbouncer",
    "statement_cache_size",
    "max_connection_lifetime",
    "max_idle_connection_lifetime",
    "sslaccept",
    "schema",
}
"""What only Prisma understands in the query of an address; `libpq` refuses what it does not know."""


def database_url() -> str:
    """``DATABASE_URL``, else the address of the local database. Raises ClusterError before that is made."""
    return os.environ.get("DATABASE_URL") or cluster.url()


def for_libpq(url: str) -> str:
    """The address without Prisma's own options; the schema that they name is kept."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    kept = {name: value for name, value in options.items() if name not in PRISMA_OPTIONS}
    if schema := options.get("schema"):
        kept["options"] = f"-csearch_path={schema}"
    return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote)))


def where(url: str) -> str:
    """Host, port and database of an address, without account and password."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path}"
