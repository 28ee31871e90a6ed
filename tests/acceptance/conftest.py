"""One stack with real vLLM on the CPU for all acceptance tests: engines start slowly, so they are shared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.launchers import weights
from tests.support.stack import Stack, free_port

CPU_YAML = Path(__file__).resolve().parents[2] / "config" / "presets" / "cpu.yaml"


@pytest.fixture(scope="module")
def real() -> Iterator[Stack]:
    """The shipped set-up for the CPU, on other ports, with the tiny models."""
    assert paths.engine_python().exists(), "no engine environment: run ./roundhouse test, which makes it"
    document = yaml.safe_load(CPU_YAML.read_text(encoding="utf-8"))
    for entry in document["model_list"]:
        port = free_port()
        entry["model_info"]["launcher"]["port"] = port
        entry["litellm_params"]["api_base"] = f"http://127.0.0.1:{port}/v1"
    stack = Stack(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_HOME", str(stack.home))
        weights.prepare(load_settings(CPU_YAML), "tiny", print)
    with stack:
        yield stack
