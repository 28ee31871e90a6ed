"""Which Pythons this machine has that can carry an environment."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import SetupError

VERSIONS = ((3, 13), (3, 12), (3, 11))
PROBE = """import sys, sysconfig, venv, ensurepip, ssl, ctypes
print(*sys.version_info[:3], sys._base_executable)
print(sysconfig.get_path("include", "posix_prefix"))"""  # where Triton looks, also where Debian's own scheme differs
PROBE_TIMEOUT_S = 20.0  # a cold Python on a slow disk; a version manager's stub may want to download


@dataclass(frozen=True)
class Python:
    """A working interpreter that is not in an environment itself, and the folder that its headers belong into."""

    version: tuple[int, int, int]
    executable: str
    include: str = ""

    @property
    def minor(self) -> str:
        """Such as "3.12"."""
        return f"{self.version[0]}.{self.version[1]}"

    @property
    def headers(self) -> bool:
        """Can C code be compiled against it?"""
        return (Path(self.include) / "Python.h").is_file()


def candidates() -> list[Python]:
    """Working Pythons, newest minor version first; the first of a version on PATH wins.

    A file of the right name proves nothing (pyenv's stubs are there for versions that are switched off,
    Debian's Python may lack venv), so each is run. `ROUNDHOUSE_BASE_PYTHON` is the only one asked if it is set.
    """
    found: dict[tuple[int, int], Python] = {}
    for name in _names():
        python = probe(name)
        if python and python.version[:2] in VERSIONS:
            found.setdefault(python.version[:2], python)
    if not found:
        raise SetupError(
            "needs Python 3.11, 3.12 or 3.13 with the modules venv and ssl, and found none on PATH; "
            "install one, or set ROUNDHOUSE_BASE_PYTHON to it"
        )
    return [found[version] for version in VERSIONS if version in found]


def probe(name: str) -> Python | None:
    """The Python behind `name` (of an environment, the one it is made of); None if it lacks what environments need."""
    try:
        done = subprocess.run(
            [name, "-I", "-c", PROBE], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    first, include = done.stdout.splitlines()[:2]
    major, minor, patch, executable = first.split(maxsplit=3)
    return Python((int(major), int(minor), int(patch)), executable.strip(), include)


def _names() -> Iterator[str]:
    chosen = os.environ.get("ROUNDHOUSE_BASE_PYTHON")
    if chosen:
        yield chosen
        return
    folders = [folder for folder in os.get_exec_path() if folder]
    for name in [*(f"python{major}.{minor}" for major, minor in VERSIONS), "python3", "python"]:
        for folder in folders:
            path = shutil.which(name, path=folder)
            if path and not (Path(folder).parent / "pyvenv.cfg").exists():
                yield path
    yield str(getattr(sys, "_base_executable", sys.executable))
