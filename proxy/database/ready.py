"""Before LiteLLM starts: the database answers, and its tables are those of this LiteLLM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time

import psycopg

from roundhouse.config import virtual_keys as keys
from roundhouse.deploy.services import cluster
from roundhouse.proxy.database import address, foreign, migrations, retention

log = logging.getLogger("roundhouse.proxy")

POLL_S = 0.1
SAY_S = 5.0
"""A server that starts answers sooner; what takes longer is said in the log, and again as often."""

LITELLM = {
    "DISABLE_SCHEMA_UPDATE": "true",  # migrations.py has done it
    "LITELLM_SUPPRESS_SPEND_LOG_TRACEBACKS": "true",  # 2 kB of each failed request's entry
    # What the UI shows beside our data comes from LiteLLM's package, not from the network.
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
}


class Unusable(Exception):
    """The database will not do before a person has acted; the text says how."""


def missing_parts() -> str | None:
    """Why there can be no keys with what the set-up has made so far, in words; None if there can be."""
    parts = cluster.parts()
    if parts.complete(postgres=keys.own_database()):
        return None
    return (
        "virtual keys need programs that have not been fetched; './roundhouse up' does it, "
        "and ROUNDHOUSE_KEYS=off does without them"
    )


def prepare_environment() -> None:
    """What LiteLLM and prisma-client-py read from the environment; what the user has set wins."""
    for name, value in LITELLM.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PRISMA_QUERY_ENGINE_BINARY", str(cluster.parts().engine))


def use_client() -> None:
    """Have `import prisma` find the client that was generated for LiteLLM's tables."""
    sys.path.insert(0, str(cluster.parts().client))


async def wait() -> None:
    """Return when the database is ready, its address in the environment.

    Raises:
        Unusable: its tables are not right, and cannot be made right from here.
    """
    said = time.monotonic()
    while True:
        try:
            url = address.database_url()
            await asyncio.to_thread(foreign.require_ours, url)
            applied = await asyncio.to_thread(migrations.deploy, address.for_libpq(url))
        except (cluster.ClusterError, psycopg.OperationalError) as error:
            if time.monotonic() - said > SAY_S:
                said = time.monotonic()
                log.warning("waiting for the database: %s", str(error).strip().splitlines()[0])
            await asyncio.sleep(POLL_S)
        except foreign.ForeignDatabase as error:
            raise Unusable(str(error)) from error
        except (migrations.MigrationError, psycopg.Error) as error:
            raise Unusable(f"the database cannot be used: {str(error).strip()}") from error
        else:
            break
    own = keys.own_database()
    os.environ["DATABASE_URL"] = url
    if applied:
        log.info("event=migrated count=%d last=%s", len(applied), applied[-1])
        _build_log_indexes()
    if own:
        retention.forget_daily(url)


def _build_log_indexes() -> None:
    """Have LiteLLM build, beside the traffic, the indexes of its logs that it leaves out of its migrations."""
    from litellm_proxy_extras.utils import ProxyExtrasDBManager

    ProxyExtrasDBManager.start_request_log_index_build()
