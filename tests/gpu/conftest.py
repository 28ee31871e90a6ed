"""Tests that need an NVIDIA card. Everywhere else they are skipped, at once and with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from roundhouse.config import paths
from roundhouse.launchers.gauge import Nvml, open_gauge
from roundhouse.launchers.vllm.launcher import is_cpu
from tests.gpu.machine import read
from tests.gpu.record import WRITTEN


@pytest.fixture(scope="session")
def card() -> Iterator[Nvml]:
    """The card, as the driver says it. One that is there and does not answer is an error, no reason to skip."""
    gauge = open_gauge()
    if gauge is None:
        pytest.skip("no NVIDIA card: no driver finds one, or CUDA_VISIBLE_DEVICES hides it")
    read(gauge)
    python = paths.engine_python()
    if not python.exists() or is_cpu(python):
        pytest.skip(f"no vLLM for CUDA: {python} is missing, or of an environment for the CPU")
    yield gauge
    gauge.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the record is."""
    if WRITTEN in config.stash:
        terminalreporter.line(f"written: {config.stash[WRITTEN]}")
