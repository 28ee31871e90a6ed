"""What LiteLLM keeps for ever in our own database: days of usage, what was deleted, log-ins. Old ones go.

LiteLLM itself removes old entries of requests and health checks, as the YAML says (`maximum_..._retention_period`).
A database of the user's is the user's: nothing is removed there but what the YAML says.
"""

from __future__ import annotations

import logging
import threading
from typing import LiteralString

import psycopg
from psycopg import sql

log = logging.getLogger("roundhouse.proxy")

DAYS = 400
"""How long a day's sums are kept: a year can be compared with the one before."""

PERIOD_S = 86400.0
CONNECT_S = 10

DAILY: LiteralString = """
SELECT table_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name LIKE 'LiteLLM\\_Daily%' AND column_name = 'date'"""

OLD: tuple[LiteralString, ...] = (
    """DELETE FROM "LiteLLM_DeletedVerificationToken" WHERE deleted_at < now() - make_interval(days => %s)""",
    """DELETE FROM "LiteLLM_DeletedTeamTable" WHERE deleted_at < now() - make_interval(days => %s)""",
    """DELETE FROM "LiteLLM_AuditLog" WHERE updated_at < now() - make_interval(days => %s)""",
    """DELETE FROM "LiteLLM_VerificationToken" WHERE team_id = 'litellm-dashboard'
       AND expires < now() - make_interval(days => %s)""",  # a key for each log-in to the UI
)

UNSEEN: LiteralString = """
DELETE FROM "LiteLLM_EndUserTable" u WHERE u.spend = 0 AND u.alias IS NULL AND u.budget_id IS NULL AND NOT u.blocked
AND u.allowed_model_region IS NULL AND u.default_model IS NULL AND u.object_permission_id IS NULL
AND cardinality(u.models) = 0
AND NOT EXISTS (SELECT FROM "LiteLLM_DailyEndUserSpend" d WHERE d.end_user_id = u.user_id)"""
"""End users (a request's ``user``) that nothing was decided about, that cost nothing, and that no day knows."""


def forget(url: str) -> int:
    """Remove from the database at ``url`` what is older than DAYS; how many rows. Raises psycopg.Error."""
    with psycopg.connect(url, connect_timeout=CONNECT_S) as connection:
        count = 0
        for (table,) in connection.execute(DAILY).fetchall():
            old = sql.SQL("DELETE FROM {} WHERE date < (current_date - {}::int)::text").format(
                sql.Identifier(table), DAYS
            )
            count += connection.execute(old).rowcount
        for statement in OLD:
            count += connection.execute(statement, (DAYS,)).rowcount
        return count + connection.execute(UNSEEN).rowcount


def forget_daily(url: str) -> None:
    """Do so now and every day, in a thread of its own, for as long as this process lives."""

    def work() -> None:
        never = threading.Event()
        while True:
            try:
                if count := forget(url):
                    log.info("event=forgotten rows=%d older_than_days=%d", count, DAYS)
            except psycopg.Error as error:
                log.warning("event=not_forgotten text=%r", str(error).strip())
            never.wait(PERIOD_S)

    threading.Thread(target=work, name="forget old usage", daemon=True).start()
