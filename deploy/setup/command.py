"""From a command line to what it needs, and on to the command itself."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from .errors import SetupError
from .steps import Setup, ensure

NEEDS: dict[str, tuple[str, ...]] = {
    "up": ("engine", "tools", "keys", "secrets"),
    "bench": ("engine", "tools", "secrets"),
    "test": ("dev", "engine", "tools", "keys", "browser", "secrets"),
}


def needs(argv: list[str]) -> set[str]:
    """What the command needs besides the proxy environment, which is all that help needs."""
    words = [word for word in argv if not word.startswith("-")]
    if not words or (words[0] != "test" and {"--help", "-h"} & set(argv)):
        return set()  # "test --help" is pytest's
    return set(NEEDS.get(words[0], ()))


def main(argv: list[str]) -> int:
    """Set up what `argv` needs, then become that command; returns only on failure (1) or Ctrl-C (130)."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    root = Path(__file__).resolve().parents[2]
    try:
        parts = needs(argv)
        ensure(
            proxy=True,
            dev="dev" in parts,
            engine="engine" in parts,
            tools="tools" in parts,
            keys="keys" in parts,
            browser="browser" in parts,
            secrets="secrets" in parts,
            project_root=root,
        )
    except SetupError as error:
        print(f"roundhouse: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nroundhouse: set-up interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    python = str(Setup(root).proxy.python)
    try:
        os.execv(python, [python, "-m", "roundhouse.cli.main", *argv])
    except OSError as error:
        print(f"roundhouse: cannot run {python}: {error.strerror}", file=sys.stderr)
        return 1


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
