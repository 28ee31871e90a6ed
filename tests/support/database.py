"""What tests of virtual keys need."""

from __future__ import annotations

import pytest

from roundhouse.deploy import cluster
from roundhouse.deploy.setup.env_file import keys_are_on
from tests.support.stack import PROJECT


def require_parts() -> None:
    """Skip where keys are switched off; fail where what they need has not been fetched."""
    if not keys_are_on(PROJECT / ".env"):
        pytest.skip("virtual keys are off (ROUNDHOUSE_KEYS)")
    assert cluster.parts().complete(postgres=True), (
        "PostgreSQL or Prisma's engine is missing: './roundhouse test' fetches it"
    )
