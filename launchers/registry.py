"""Which class runs which kind of launcher."""

from __future__ import annotations

from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.launchers.base import Launcher
from roundhouse.launchers.command import CommandProcess
from roundhouse.launchers.vllm.engine_host import EngineHost
from roundhouse.launchers.vllm.launcher import VllmProcess


def build_launcher(entry: ModelEntry, host: EngineHost | None = None, *, exact_pinning: bool = False) -> Launcher:
    """The launcher of a model; ``host`` is the engine host that it may use, if there is one.

    ``exact_pinning``: see ``residency.exact_pinning``; the host must have the same.
    """
    if isinstance(entry.launcher, VllmLauncher):
        return VllmProcess(entry, entry.launcher, host, exact_pinning=exact_pinning)
    return CommandProcess(entry, entry.launcher)
