"""The emulated card for tests: the same module that fake engines import."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

FAKES = Path(__file__).resolve().parents[1] / "fakes"


def _load(name: str) -> Any:
    """A module of tests/fakes by its path: the folder has a ``vllm``, so it must not be on our own path."""
    spec = importlib.util.spec_from_file_location(name, FAKES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_card = _load("card")
Card = _card.Card
OutOfMemory = _card.OutOfMemory
CARD_VARIABLES = ("FAKE_CARD", "FAKE_CARD_PIDS", "FAKE_CARD_INIT", "FAKE_CARD_LOST")
"""What the stand-in for NVML's bindings reads."""

GIB = 2**30
MIB = 2**20


def nvml() -> Any:
    """The fake driver's bindings, for ``monkeypatch.setitem(sys.modules, "pynvml", ...)``."""
    loaded = sys.modules.get("pynvml")
    try:
        return _load("pynvml")
    finally:
        if loaded is not None:
            sys.modules["pynvml"] = loaded
        else:
            del sys.modules["pynvml"]
