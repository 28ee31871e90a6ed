"""For all tests: nothing of the caller's own set-up leaks in."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

CUDA = Path(__file__).parent / "cuda"
RECORDS = Path(__file__).resolve().parents[1] / "docs" / "measurements"

# Whoever starts us in the background of a shell makes us ignore Ctrl-C, and our children with us.
signal.signal(signal.SIGINT, signal.default_int_handler)

for _name in [name for name in os.environ if name.startswith("ROUNDHOUSE_") and name != "ROUNDHOUSE_ENGINE_PYTHON"]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of ours."""
    gpu = parser.getgroup("gpu", "tests of the sleep ladder on a card")
    gpu.addoption(
        "--gpu-form", choices=["short", "long"], default="short", help="ten minutes, or every rung many times"
    )
    gpu.addoption("--gpu-models", type=Path, help="a folder in which the models that are made stay, for the next run")
    gpu.addoption("--gpu-record", type=Path, default=RECORDS, help="where the record goes (default: %(default)s)")
    parser.addoption("--storm", type=int, default=16, help="how many starts the storm of kills has")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of the CUDA environment, which is 4 GB to download, unless they are asked for."""
    if collection_path != CUDA:
        return None
    named = any(str(CUDA) in str(config.invocation_params.dir / word) for word in config.args)
    return None if named or re.search(r"\bcuda\b", config.option.markexpr) else True
