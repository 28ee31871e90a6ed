"""Real vLLM on the CPU, in the set-up that is shipped, with the tiny models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.launchers.vllm import weights
from tests.support.stack import Stack, free_port

CPU_YAML = Path(__file__).resolve().parents[2] / "config" / "presets" / "cpu.yaml"


def _on_other_ports(document: Any) -> Any:
    for entry in document["model_list"]:
        port = free_port()
        entry["model_info"]["launcher"]["port"] = port
        entry["litellm_params"]["api_base"] = f"http://127.0.0.1:{port}/v1"
    return document


def cpu_config(only: tuple[str, ...]) -> str:
    """The shipped set-up with some of its models, on other ports."""
    document = _on_other_ports(yaml.safe_load(CPU_YAML.read_text(encoding="utf-8")))
    document["model_list"] = [entry for entry in document["model_list"] if entry["model_name"] in only]
    aliases = document["router_settings"]["model_group_alias"]
    document["router_settings"]["model_group_alias"] = {a: name for a, name in aliases.items() if name in only}
    text: str = yaml.safe_dump(document, sort_keys=False)
    return text


@contextmanager
def real_stack() -> Iterator[Stack]:
    """The shipped set-up, running."""
    assert paths.engine_python().exists(), "no engine environment: run ./roundhouse test, which makes it"
    stack = Stack(_on_other_ports(yaml.safe_load(CPU_YAML.read_text(encoding="utf-8"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROUNDHOUSE_HOME", str(stack.home))
        weights.prepare(load_settings(CPU_YAML), "tiny", print)
    with stack:
        yield stack


@pytest.fixture(scope="module")
def real() -> Iterator[Stack]:
    """Engines start slowly, so a module's tests share them."""
    with real_stack() as stack:
        yield stack
