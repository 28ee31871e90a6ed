"""Faults in the YAML: each with file, key path, what is wrong and a remedy; all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: at ``key`` (a path such as ``model_list[0].litellm_params.api_base``)."""

    key: str
    wrong: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.wrong}. {self.remedy}"


class ConfigError(Exception):
    """The YAML cannot be used. ``str()`` is the text for the user, ``faults`` the parts of it."""

    def __init__(self, path: Path, faults: Iterable[Fault]) -> None:
        self.path = path
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"{path} has {count}:", *(f"  {fault}" for fault in self.faults)]))


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for an unknown ``name``: the known one that it most resembles, or all of them."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are: {', '.join(names) or 'none'}."
