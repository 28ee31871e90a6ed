"""From a command line to what it needs, and on to the command itself."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from . import choice, env_file
from .choice import Kind
from .errors import SetupError, foreign
from .steps import OnCard, Setup, ensure

NEEDS: dict[str, tuple[str, ...]] = {
    "up": ("engine", "tools", "keys", "secrets"),
    "bench": ("engine", "tools", "secrets"),
    "test": ("dev", "engine", "tools", "keys", "browser", "compiler", "clients", "aider", "node clients", "secrets"),
}

UNIT_TESTS = ("dev", "compiler")
"""The pure tests: no engine, no stack, no browser."""

CUDA_TESTS = ("dev", "engine", "compiler")
"""`test -m cuda` asks vLLM's own code and runs no stack."""


@dataclass(frozen=True)
class Needs:
    """Parts of the set-up; if "engine" is one of them, which, and whether it has to run on the card that is here."""

    parts: frozenset[str] = frozenset()
    engine: Kind | None = None
    on_card: OnCard | None = None


def needs(argv: list[str], root: Path) -> Needs:
    """What the command needs besides the proxy environment, which is all that help needs; `root`: the checkout."""
    words = [word for word in argv if not word.startswith("-")]
    if not words or (words[0] != "test" and {"--help", "-h"} & set(argv)):
        return Needs()  # "test --help" is pytest's
    parts = frozenset(NEEDS.get(words[0], ()))
    if "engine" not in parts:
        return Needs(parts)
    if words[0] == "test":
        return _of_tests(argv, parts, root)
    profile = _option(argv, "--profile") if words[0] == "up" else None
    config = _config(profile, root)
    kind = choice.choose(root, config)
    if kind is Kind.CPU and profile in choice.FOR_A_CARD:
        return Needs(parts - {"engine"})  # the command refuses it, and says why
    weights = words[0] == "up" and _option(argv, "--models") != "tiny"
    on_card = OnCard(config or root / choice.DEFAULT, weights) if kind is Kind.CUDA else None
    return Needs(parts, kind, on_card)


def _of_tests(argv: list[str], parts: frozenset[str], root: Path) -> Needs:
    if choice.pure(argv):
        return Needs(frozenset(UNIT_TESTS))
    kind = choice.of_tests(root, argv)
    if kind is Kind.CPU:
        return Needs(parts, kind)
    if choice.for_cuda_ring(argv):
        return Needs(frozenset(CUDA_TESTS), kind)
    return Needs(parts, kind, OnCard(root / choice.DEFAULT, weights=False))


def _config(profile: str | None, root: Path) -> Path | None:
    """The YAML as the command will choose it; None: the one for this machine."""
    if profile is not None:
        return choice.profile_file(profile, root)
    text = env_file.setting(root / ".env", "ROUNDHOUSE_CONFIG")
    return Path(text).expanduser().absolute() if text else None


def _option(argv: list[str], name: str) -> str | None:
    """The value of an option, given as `NAME VALUE` or `NAME=VALUE`; the last one counts."""
    found = None
    for number, word in enumerate(argv):
        if word == name:
            found = argv[number + 1] if number + 1 < len(argv) else found
        elif word.startswith(f"{name}="):
            found = word.partition("=")[2]
    return found


def main(argv: list[str]) -> int:
    """Set up what `argv` needs, then become that command; returns only on failure (1) or Ctrl-C (130)."""
    signal.signal(signal.SIGTERM, _as_interrupt)
    root = Path(__file__).resolve().parents[2]
    try:
        asked = needs(argv, root)
        ensure({"proxy", *asked.parts}, engine=asked.engine or Kind.CPU, on_card=asked.on_card, project_root=root)
    except SetupError as error:
        print(f"roundhouse: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"roundhouse: {foreign(error)}", file=sys.stderr)
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
