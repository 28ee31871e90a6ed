"""Any OpenAI-compatible server, given as a command: llama.cpp's, for example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

import httpx

from roundhouse.config import paths
from roundhouse.config.schema import CommandLauncher, ModelEntry
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import Engine, Progress
from roundhouse.launchers.environment import engine_environment, expand
from roundhouse.launchers.process import Child, Spec
from roundhouse.launchers.readiness import health_client, healthy, launch
from roundhouse.launchers.records import kill_session, read_record


def identity(argv: Sequence[str], extra: Mapping[str, str]) -> str:
    """A digest of what an engine is: its command and the YAML's environment, unexpanded, so without secrets."""
    return hashlib.sha256(json.dumps([list(argv), sorted(extra.items())]).encode()).hexdigest()


def log_path(model: str) -> str:
    """The name of an engine's log file."""
    return f"engine-{model.replace('/', '_')}.log"


class ProcessLauncher:
    """What every launcher of a local process does; a subclass says what to run."""

    def __init__(self, entry: ModelEntry) -> None:
        self._entry = entry

    def spec(self) -> Spec:
        """What to run now. Raises LaunchError if it cannot be run."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Nothing is known of what a command reads."""

    async def start(self, report: Callable[[Progress], None]) -> Engine:
        """Start the engine and return it once it answers. Raises LaunchError."""
        return await launch(self.spec(), report)

    async def adopt(self) -> Engine | None:
        """Take over the recorded engine if it is of this configuration and healthy; else end what is left of it."""
        record = read_record(paths.engine_records(), self._entry.name)
        if record is None:
            return None
        if record.alive:
            spec = self.spec()
            async with health_client() as client:
                if record.identity == spec.identity and await self._answers(spec, client):
                    return Child(spec, record)
        if kill_session(record.pid, record.created):
            record.remove(paths.engine_records())
        return None

    @staticmethod
    async def _answers(spec: Spec, client: httpx.AsyncClient) -> bool:
        return await healthy(spec.port, spec.health_path, client)


class CommandProcess(ProcessLauncher):
    """Runs ``argv`` of the YAML as it stands."""

    def __init__(self, entry: ModelEntry, launcher: CommandLauncher) -> None:
        super().__init__(entry)
        self._launcher = launcher

    def expected(self) -> Footprint | None:
        """``launcher.memory``, if it is given: nobody knows what a command takes."""
        memory = self._launcher.memory
        return None if memory is None else Footprint(int(memory))

    def spec(self) -> Spec:
        """The YAML's command, with ``${NAME}`` filled in."""
        name, it = self._entry.name, self._launcher
        argv = [expand(word, name, it.port) for word in it.argv]
        return Spec(
            model=name,
            argv=argv,
            env=engine_environment(name, it.port, it.env),
            port=it.port,
            health_path=it.health_path,
            identity=identity(argv, it.env),
            log=paths.log_dir() / log_path(name),
            records=paths.engine_records(),
            start_timeout_s=it.start_timeout_s,
            stop_grace_s=it.stop_grace_s,
        )
