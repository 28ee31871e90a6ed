"""Tests that need an NVIDIA card. Everywhere else they are skipped, at once and with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roundhouse.config import paths
from roundhouse.launchers.gauge import Nvml, open_gauge
from roundhouse.launchers.vllm import is_cpu


@pytest.fixture(scope="session")
def card() -> Iterator[Nvml]:
    """The card, as the driver says it."""
    gauge = open_gauge()
    if gauge is None:
        pytest.skip("no NVIDIA card: its driver finds none")
    python = paths.engine_python()
    if not python.exists() or is_cpu(python):
        pytest.skip(f"no vLLM for CUDA: {python} is missing, or of an environment for the CPU")
    yield gauge
    gauge.close()
