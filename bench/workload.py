"""Workload files: who asks for what, when, and how long an answer takes. Read strictly, with one clear line on a fault.

The form is described in docs/scheduling.md. A workload is either a closed loop (``agents``: a step follows on the
answer to the one before) or an open one (``arrivals``: requests come whatever the answers do), or both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=-1, le=1)]


class WorkloadError(Exception):
    """A workload cannot be read; the text is one line with the file and the path of the fault in it."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSpec(_Strict):
    """``switch_s``: seconds from any model to this one, the drain apart. ``slots``: requests at once."""

    switch_s: Seconds
    slots: Annotated[int, Field(ge=1)] = 64


class Step(_Strict):
    """One request of an agent; ``think_s`` is its pause after the step, ``leaves_after_s`` its patience."""

    model: str
    service_s: Seconds
    think_s: Seconds = 0.0
    leaves_after_s: Seconds | None = None


class Agent(_Strict):
    """A closed loop: each step is asked ``think_s`` after the one before has ended, however it ended."""

    caller: str
    start_s: Seconds = 0.0
    priority: Priority = 0
    steps: tuple[Step, ...]


class Arrival(_Strict):
    """One request of an open loop, at ``t`` seconds."""

    t: Seconds
    model: str
    service_s: Seconds
    caller: str = ""
    leaves_after_s: Seconds | None = None
    priority: Priority = 0


class Workload(_Strict):
    """A whole file. ``max_wait_s`` is the bound that is asked of the scheduler, ``null`` for none."""

    about: str = ""
    models: Annotated[dict[str, ModelSpec], Field(min_length=1)]
    agents: tuple[Agent, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    until_s: Seconds | None = None
    max_wait_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 300.0
    name: str = ""
    agents_first: bool = True
    """Whether the file names its agents before its arrivals: that is the order within one moment."""

    @model_validator(mode="after")
    def _models_are_known(self) -> Self:
        asked = [(f"agents.{i}.steps.{j}", s.model) for i, a in enumerate(self.agents) for j, s in enumerate(a.steps)]
        asked += [(f"arrivals.{i}", arrival.model) for i, arrival in enumerate(self.arrivals)]
        for path, model in asked:
            if model not in self.models:
                raise ValueError(f"{path}.model: {model!r} is not one of the models ({', '.join(self.models)})")
        return self

    @property
    def requests(self) -> int:
        """How many requests it can make at most."""
        return len(self.arrivals) + sum(len(agent.steps) for agent in self.agents)


def parse(document: object, name: str, where: str = "") -> Workload:
    """A workload from decoded JSON.

    Raises:
        WorkloadError: it is not one; the text starts with ``where`` and the path of the first fault.
    """
    where = where or name
    if not isinstance(document, dict):
        raise WorkloadError(f"{where}: the file must hold a JSON object with the keys models, agents, arrivals")
    for reserved in ("name", "agents_first"):
        if reserved in document:
            raise WorkloadError(f"{where}: {reserved}: Extra inputs are not permitted")
    keys = list(document)
    agents_first = "arrivals" not in keys or "agents" not in keys or keys.index("agents") < keys.index("arrivals")
    try:
        return Workload(**document, name=name, agents_first=agents_first)
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise WorkloadError(f"{where}: {error}") from error
        faults = error.errors()
        path = ".".join(str(part) for part in faults[0]["loc"])
        text = faults[0]["msg"].removeprefix("Value error, ")
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise WorkloadError(f"{where}: {path + ': ' if path else ''}{text}{more}") from error


def load(path: Path) -> list[Workload]:
    """The workload in a file, or all ``*.json`` of a folder in the order of their names.

    Raises:
        WorkloadError: there is none, or one of them cannot be read.
    """
    if path.is_dir():
        files = sorted(path.glob("*.json"))
        if not files:
            raise WorkloadError(f"{path}: there is no workload (*.json) in this folder")
        return [workload for file in files for workload in load(file)]
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkloadError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WorkloadError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise WorkloadError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise WorkloadError(f"{path}: nested too deeply") from error
    return [parse(document, path.stem, str(path))]
