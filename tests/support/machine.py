"""Another machine than this one, as far as the kernel's name goes."""

from __future__ import annotations

import os

import pytest

LINUX, WSL = "6.8.0-88-generic", "5.15.167.4-microsoft-standard-WSL2"


def kernel(monkeypatch: pytest.MonkeyPatch, release: str) -> None:
    """From now on the kernel says that it is ``release``."""
    here = tuple(os.uname())
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*here[:2], release, *here[3:])))
