"""Which class runs which kind of launcher."""

from __future__ import annotations

from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.launchers.base import Launcher
from roundhouse.launchers.command import CommandProcess
from roundhouse.launchers.vllm import VllmProcess


def build_launcher(entry: ModelEntry) -> Launcher:
    """The launcher of a model."""
    if isinstance(entry.launcher, VllmLauncher):
        return VllmProcess(entry, entry.launcher)
    return CommandProcess(entry, entry.launcher)
