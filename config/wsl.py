"""Whether this Linux is one that Windows runs beside itself (WSL2), with which it shares the card."""

from __future__ import annotations

import os


def in_wsl() -> bool:
    """Whether the kernel is WSL's, by the mark that vLLM goes by too (``vllm/platforms/interface.py``)."""
    return "microsoft" in os.uname().release.lower()
