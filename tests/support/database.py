"""What tests of virtual keys need."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from roundhouse.deploy.services import cluster
from roundhouse.deploy.setup.env_file import keys_are_on
from roundhouse.proxy.database import migrations
from tests.support.stack import PROJECT
from tests.support.waiting import wait_for

DEADLINE_S = 60.0


def require_parts() -> None:
    """Skip where keys are switched off; fail where what they need has not been fetched."""
    if not keys_are_on(PROJECT / ".env"):
        pytest.skip("virtual keys are off (ROUNDHOUSE_KEYS)")
    assert cluster.parts().complete(postgres=True), "a part is missing; './roundhouse test' fetches it"


def answers() -> bool:
    """Whether the PostgreSQL of the present home lets us in."""
    try:
        psycopg.connect(cluster.url(), connect_timeout=5).close()
    except (psycopg.Error, cluster.ClusterError):
        return False
    return True


@contextmanager
def postgres() -> Iterator[str]:
    """A running PostgreSQL with an empty database, and its address; gone afterwards."""
    require_parts()
    with tempfile.TemporaryDirectory(prefix="rh-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_HOME", folder)
        patch.delenv("DATABASE_URL", raising=False)
        line = subprocess.Popen(
            [sys.executable, "-m", "roundhouse.deploy.services.postgres"], stdout=subprocess.DEVNULL
        )
        try:
            wait_for(answers, "PostgreSQL answers", DEADLINE_S)
            yield cluster.url()
        finally:
            line.terminate()
            line.wait(DEADLINE_S)
            cluster.discard()


@contextmanager
def litellm_tables() -> Iterator[str]:
    """A running PostgreSQL with LiteLLM's tables, and its address."""
    with postgres() as address:
        migrations.deploy(address)
        yield address
