"""Which engine environment is used: the card's or the CPU's. Each has its own folder; neither is made of the other.

The set-up asks before anything is installed, and every process asks again (`config/paths.py`): standard library only.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

from . import card

PRESETS = Path(__file__).resolve().parents[2] / "config" / "presets"
CPU_PRESET = PRESETS / "cpu.yaml"
DEFAULT = "litellm_config.yaml"
"""The configuration for a card where none is named, in the checkout."""

FOR_A_CARD = ("rtx5080", "small", "int4-large")
"""Profiles that are refused where there is no card."""

MARK = "roundhouse-card.stamp"
"""In the card's environment: the card that has answered while it was used. An environment without it was made for the
tests only, and proves no card."""


class Kind(Enum):
    """An engine environment; the value is its folder."""

    CPU = ".venv-engine"
    CUDA = ".venv-engine-cuda"

    def python(self, root: Path) -> Path:
        """Its interpreter, made or not; `root` holds the environments."""
        return root / self.value / "bin" / "python"


def choose(root: Path, config: Path | None) -> Kind:
    """The environment for `config` (None: the machine's default): the card's where there is one, also if it is silent.

    The CPU's preset asks for the CPU's environment on any machine.
    """
    if config is not None and config.resolve() == CPU_PRESET:
        return Kind.CPU
    try:
        there = card.find() is not None or known(root) is not None
    except card.CardError:
        there = True
    return Kind.CUDA if there else Kind.CPU


def profile_file(profile: str, root: Path) -> Path | None:
    """The YAML of a profile; None for `auto`, which is the machine's default. `root`: the checkout."""
    if profile == "auto":
        return None
    return root / DEFAULT if profile == "rtx5080" else PRESETS / f"{profile}.yaml"


def require_card(root: Path) -> card.Cards | None:
    """The cards; None where there never was one.

    Raises:
        CardError: there is a card that does not answer, or there was one and the driver or the card is gone.
    """
    cards = card.find()
    if cards is None and known(root):
        raise card.CardError(
            f"{root / Kind.CUDA.value} was made for {known(root)}, but there is no card now, or no driver "
            f"({card.LIBRARIES[0]}) for it: install the driver again, or delete that folder if the card is gone; "
            f"{card.WITHOUT}"
        )
    return cards


def known(root: Path) -> str | None:
    """The card that has answered while the card's environment was used; None if there never was one."""
    with suppress(OSError):
        return (root / Kind.CUDA.value / MARK).read_text(encoding="utf-8").strip()
    return None


def remember(root: Path, cards: card.Cards) -> None:
    """Note in the card's environment which card it is used with, if we may write there."""
    if known(root) == str(cards):
        return
    with suppress(OSError):
        (root / Kind.CUDA.value / MARK).write_text(f"{cards}\n", encoding="utf-8")


def of_tests(root: Path, arguments: Sequence[str]) -> Kind:
    """The environment for `test` with these arguments to pytest.

    The CPU's, on a machine with a card too: CI has none. For the tests in tests/cuda the card's, on a machine without
    one too; for those in tests/gpu the card's where there is one.
    """
    if for_cuda_ring(arguments):
        return Kind.CUDA
    return choose(root, None) if _named("gpu", arguments) else Kind.CPU


def for_cuda_ring(arguments: Sequence[str]) -> bool:
    """Are the tests asked for that run vLLM for CUDA without a card?"""
    return _named("cuda", arguments)


def pure(arguments: Sequence[str]) -> bool:
    """Are nothing but tests in tests/unit asked for, by their paths?"""
    named = [word for word in arguments if re.match(r"(.*/)?tests(/|$)", word)]
    return bool(named) and all(re.match(r"(.*/)?tests/unit(/|$)", word) for word in named)


def _named(mark: str, arguments: Sequence[str]) -> bool:
    """Does -m ask for `mark`, or an argument name the folder of that name?"""
    for number, word in enumerate(arguments):
        marks = " ".join(arguments[number + 1 : number + 2]) if word == "-m" else word[2:] if word[:2] == "-m" else ""
        if re.search(rf"(?<!not )\b{mark}\b", marks) or re.match(rf"(.*/)?tests/{mark}\b", word):
            return True
    return False
