"""A driver that only pretends: builds tests/fakes/nvml.c, which says what it answers and how that is set.

For processes of their own: the loader finds the library by LD_LIBRARY_PATH, which it reads when a process begins.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from roundhouse.config import paths
from roundhouse.deploy.setup import compiler, tools

SOURCE = Path(__file__).resolve().parents[1] / "fakes" / "nvml.c"

MISMATCH, LOST, NOT_LOADED, NO_PERMISSION, BLOCKED = 18, 15, 9, 4, 17
"""What the driver answers when it is not well: values for INIT and DEVICE."""


def compile_library(source: Path, name: str, folder: Path) -> Path:
    """``folder``/``name``, compiled from a C file that includes nothing. Fails where there is no compiler."""
    found = compiler.find(tools.folder(paths.project_root()))
    assert found, f"no C compiler for pretend drivers: {compiler.MISSING}, or run ./roundhouse test, which fetches one"
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / name
    argv = [str(found), "-shared", "-fPIC", "-nostdlib", "-o", str(library), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def pretend_driver(folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH with the pretend ``libnvidia-ml.so.1``, made under ``folder``."""
    return compile_library(SOURCE, "libnvidia-ml.so.1", folder / "driver").parent


def with_driver(driver: Path, **answers: str | int) -> dict[str, str]:
    """What to add to a process's environment to give it the driver of ``pretend_driver``.

    ``answers`` are the variables of nvml.c without their prefix: ``with_driver(driver, CUDA=12080, DRIVER="570.86")``.
    """
    others = os.environ.get("LD_LIBRARY_PATH")
    found = f"{driver}{os.pathsep}{others}" if others else str(driver)
    return {"LD_LIBRARY_PATH": found, **{f"FAKE_NVML_{name}": str(value) for name, value in answers.items()}}
