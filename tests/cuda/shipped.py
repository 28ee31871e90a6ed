"""The engines of the YAMLs that are shipped for a card, as the launcher would start them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from roundhouse.config import paths
from roundhouse.config.load import load_settings
from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.footprint import estimate
from roundhouse.footprint.estimate import Estimate
from roundhouse.footprint.need import GIB
from roundhouse.launchers.process.child import Spec
from roundhouse.launchers.vllm.launcher import VllmProcess

CARDS = {"rtx5080": int(15.48 * GIB), "small": int(7.74 * GIB), "int4-large": int(23.22 * GIB)}
"""The card that each is made for: what CUDA shows of 16, 8 and 24 GiB."""


@dataclass(frozen=True)
class Shipped:
    """One engine: ``model`` is the hub's name of its weights."""

    profile: str
    name: str
    model: str
    launcher: VllmLauncher
    entry: ModelEntry

    def here(self, hub: Path) -> ModelEntry:
        """The same with its files in ``hub``."""
        folder = hub / self.model.rsplit("/", 1)[-1]
        return self.entry.model_copy(update={"launcher": self.launcher.model_copy(update={"model": str(folder)})})

    def spec(self, hub: Path) -> Spec:
        """The command and the environment that the launcher would start it with."""
        entry = self.here(hub)
        assert isinstance(entry.launcher, VllmLauncher)
        return VllmProcess(entry, entry.launcher).spec()

    def estimate(self) -> Estimate:
        """What the product expects of it on the card that it is made for."""
        return estimate.of(self.model, self.launcher.args, CARDS[self.profile])


def engines() -> Iterator[Shipped]:
    """All of them that vLLM serves."""
    for profile in CARDS:
        for entry in load_settings(paths.default_config_file(profile), elsewhere=True).models.values():  # type: ignore[arg-type]
            it = entry.launcher
            if isinstance(it, VllmLauncher):
                yield Shipped(profile, entry.name, it.model, it, entry)


def arguments(spec: Spec) -> list[str]:
    """What vLLM is told: the command without interpreter and module."""
    return list(spec.argv[3:])
