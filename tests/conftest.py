"""For all tests: nothing of the caller's own set-up leaks in."""

from __future__ import annotations

import os
import signal

import pytest

# Whoever starts us in the background of a shell makes us ignore Ctrl-C, and our children with us.
signal.signal(signal.SIGINT, signal.default_int_handler)

for _name in [name for name in os.environ if name.startswith("ROUNDHOUSE_") and name != "ROUNDHOUSE_ENGINE_PYTHON"]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of ours."""
    parser.addoption("--storm", type=int, default=16, help="how many starts the storm of kills has")
