"""Who is planned for: the models of the YAML, or folders that are in no YAML."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from roundhouse.config.schema import ModelEntry, Settings, VllmLauncher
from roundhouse.footprint import estimate
from roundhouse.footprint.estimate import Estimate, FilesError, FlagsError
from roundhouse.footprint.need import Footprint

ARGUMENTS = (
    "--max-model-len=auto",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=2048",
    '--limit-mm-per-prompt={"image":32,"video":0}',
    '--mm-processor-kwargs={"max_pixels":1003520}',
)
"""What a folder is planned with, for it has no arguments yet: those of the set-up for one RTX 5080."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to plan for. ``memory``: what the YAML says it takes; ``problem``: why nothing can be told of it.

    ``levels``: the sleep levels it may use; ``fixed``: it never leaves its device; ``free_size``: its arguments are
    ours to choose; ``vllm``: vLLM serves it.
    """

    name: str
    device: str
    estimate: Estimate | None = None
    memory: int | None = None
    problem: str | None = None
    levels: tuple[int, ...] = ()
    fixed: bool = False
    free_size: bool = False
    vllm: bool = True

    def footprint(self, capacity: int) -> Footprint | None:
        """What it needs of a device of ``capacity`` bytes, the YAML's word first."""
        found = self.estimate.footprint(capacity) if self.estimate is not None else None
        if self.memory is None:
            return found
        return replace(found, awake=self.memory) if found is not None else Footprint(self.memory)


def of_settings(settings: Settings, capacities: dict[str, int], network: bool) -> list[Subject]:
    """Every model of the YAML. ``capacities``: bytes of each device; ``network``: the hub may be asked."""
    exact = settings.residency.exact_pinning
    return [_of_entry(entry, capacities.get(entry.device), network, exact) for entry in settings.models.values()]


def of_folders(models: Sequence[str], device: str, capacity: int, network: bool) -> list[Subject]:
    """Folders, or names on the hub, each under its last part. Raises FilesError if one cannot be read at all."""
    result: dict[str, Subject] = {}
    for model in models:
        name = _unique(Path(model).absolute().name or model, result)
        found = estimate.of(model, ARGUMENTS, capacity, network=network)
        result[name] = Subject(name, device, found, levels=(1, 2), free_size=True)
    return list(result.values())


def _unique(name: str, taken: Iterable[str]) -> str:
    number, result = 2, name
    while result in taken:
        number, result = number + 1, f"{name}-{number}"
    return result


def _of_entry(entry: ModelEntry, capacity: int | None, network: bool, exact: bool) -> Subject:
    it = entry.launcher
    memory = int(it.memory) if it.memory is not None else None
    subject = Subject(entry.name, entry.device, memory=memory, fixed=it.pinned)
    if not isinstance(it, VllmLauncher):
        problem = None if memory is not None else "what a command takes cannot be told: set launcher.memory"
        return replace(subject, problem=problem, vllm=False)
    subject = replace(subject, levels=_levels(it))
    try:
        model = os.path.expanduser(Template(it.model).safe_substitute(os.environ))
        found = estimate.of(model, it.args, capacity, network=network, exact_pinning=exact)
        return replace(subject, estimate=found)
    except (FilesError, FlagsError) as error:
        return replace(subject, problem=str(error))


def _levels(it: VllmLauncher) -> tuple[int, ...]:
    if it.sleep == "off" or "--no-enable-sleep-mode" in it.args:
        return ()
    return (1, 2) if it.sleep == "auto" else (it.sleep,)
