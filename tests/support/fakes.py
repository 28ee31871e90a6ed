"""Configurations whose engines are fakes: quick to start, and as bad as a test needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from roundhouse.bench.stack import litellm_config, model
from tests.support.stack import free_port

ENGINE = Path(__file__).resolve().parents[1] / "fakes" / "engine.py"


def launcher(name: str, *flags: str, **more: Any) -> dict[str, Any]:
    """A ``command`` launcher for a fake called ``name``, on a free port."""
    argv = [sys.executable, str(ENGINE), "--port", "${PORT}", "--model", name, *flags]
    env = {"ENGINE_KEY": "${ROUNDHOUSE_ENGINE_KEY}"}
    return {"kind": "command", "port": free_port(), "argv": argv, "env": env, "stop_grace_s": 2, **more}


def config(models: dict[str, list[str]], **residency: Any) -> dict[str, Any]:
    """The YAML for fakes: name -> their flags; ``residency`` goes into the section of that name."""
    return litellm_config([model(n, launcher(n, *flags)) for n, flags in models.items()], gate=True, **residency)


def port_of(document: dict[str, Any], name: str) -> int:
    """The engine port of a model."""
    ports = (e["model_info"]["launcher"]["port"] for e in document["model_list"] if e["model_name"] == name)
    return int(next(ports))


def port_of_file(path: Path, name: str) -> int:
    """The engine port of a model in a YAML."""
    return port_of(yaml.safe_load(path.read_text(encoding="utf-8")), name)
