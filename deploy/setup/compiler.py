"""The C compiler with which the tests build pretend drivers: the system's, else Debian's small tcc beside the tools."""

import os
import shutil
from pathlib import Path

from . import debian
from .pip import Part

NAMES = ("cc", "gcc", "clang", "tcc")
MISSING = "install gcc, clang or tcc so that it is on PATH"


def find(tools: Path) -> Path | None:
    """The compiler to use; `tools` is the folder of fetched programs. Headers and libraries may be missing."""
    for name in NAMES:
        if path := shutil.which(name):
            return Path(path)
    fetched = tools / "compiler" / "usr" / "bin" / "tcc"
    return fetched if os.access(fetched, os.X_OK) else None


def complete(tools: Path) -> bool:
    """Is there a compiler, or none that could be fetched?"""
    return find(tools) is not None or not debian.available()


def make(part: Part, tools: Path) -> None:
    """Fetch and unpack tcc. A failure is said and no more: the tests that need it say why they fail."""
    part.show("fetching tcc (0.3 MB)")
    if not debian.fetch(part, ("tcc",), tools / "compiler"):
        part.board.say(f"compiler: no tcc from apt (all of it: {part.log}); for tests with pretend drivers {MISSING}")
