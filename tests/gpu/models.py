"""The three models of the suite: those of the shipped set-up where their weights are here, else made on the spot."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import ModelEntry
from roundhouse.launchers.weights import local_folder
from tests.gpu.make_models import SHAPES
from tests.support.stack import free_port

SCRIPT = Path(__file__).with_name("make_models.py")
SHIPPED = Path(__file__).resolve().parents[2] / "litellm_config.yaml"
ARGS = (
    "--dtype=bfloat16",
    "--max-model-len=4096",
    "--max-num-seqs=8",
    "--kv-cache-memory-bytes=2G",
    "--gpu-memory-utilization=0.5",  # vLLM asks for so much to be free, though it takes what it needs
)


def real() -> list[ModelEntry]:
    """The shipped set-up's models, if the weights of all are on this machine."""
    entries = list(load_settings(SHIPPED).models.values())
    if all(it.launcher.kind == "vllm" and local_folder(it.launcher.model) is not None for it in entries):
        return entries
    return []


def made(folder: Path) -> list[ModelEntry]:
    """Models of real shapes, made where they are missing: some 12 GB."""
    subprocess.run([paths.engine_python(), "-P", SCRIPT, folder], check=True)
    return [entry(name, folder / name) for name in SHAPES]


def entry(name: str, folder: Path, **more: Any) -> ModelEntry:
    """A model as the YAML would have it."""
    port = free_port()
    launcher = {"kind": "vllm", "port": port, "model": str(folder), "args": ARGS, **more}
    base = f"http://127.0.0.1:{port}/v1"
    return ModelEntry.model_validate(
        {"name": name, "served_name": name, "api_base": base, "device": "gpu0", "launcher": launcher}
    )
