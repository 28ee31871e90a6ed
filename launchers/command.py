"""Any OpenAI-compatible server, given as a command: llama.cpp's, for example."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from roundhouse.config import paths
from roundhouse.config.schema import CommandLauncher, ModelEntry
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import Engine, LaunchError, Progress
from roundhouse.launchers.environment import engine_environment, expand
from roundhouse.launchers.file_names import log_name
from roundhouse.launchers.loopback import loopback_client
from roundhouse.launchers.process import Child, Spec
from roundhouse.launchers.readiness import healthy, launch
from roundhouse.launchers.records import kill_session, read_record


def identity(argv: Sequence[str], extra: Mapping[str, str]) -> str:
    """A digest of what an engine is: its command and the YAML's environment, unexpanded, so without secrets."""
    return hashlib.sha256(json.dumps([list(argv), sorted(extra.items())]).encode()).hexdigest()


class ProcessLauncher:
    """What every launcher of a local process does; a subclass says what to run."""

    def __init__(self, entry: ModelEntry) -> None:
        self._entry = entry

    def spec(self) -> Spec:
        """What to run now. Raises LaunchError if it cannot be run."""
        raise NotImplementedError

    def version(self) -> str:
        """Tells this version of the engine's program from another; empty if it is not there."""
        raise NotImplementedError

    @property
    def levels(self) -> tuple[int, ...]:
        """A process that is no more than a command can only be stopped."""
        return ()

    @property
    def identity(self) -> str:
        """A digest of what runs and of its version."""
        runs = ""
        with suppress(LaunchError):  # it cannot run, so that nothing is measured
            runs = self.spec().identity
        return hashlib.sha256(f"{runs} {self.version()}".encode()).hexdigest()

    def expected(self) -> Footprint | None:
        """Nothing is known of what a command needs."""
        return None

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
            if record.identity == spec.identity and await self._answers(spec):
                child = Child(spec, record)
                if await child.as_recorded():
                    record.write(spec.records)  # an older version's holds only until the clock is set
                    return child
                await child.stop(force=True)
        if kill_session(record.pid, record.born):
            record.remove(paths.engine_records())
        return None

    @staticmethod
    async def _answers(spec: Spec) -> bool:
        async with loopback_client() as client:
            return await healthy(spec.port, spec.health_path, client)


class CommandProcess(ProcessLauncher):
    """Runs ``argv`` of the YAML as it stands."""

    def __init__(self, entry: ModelEntry, launcher: CommandLauncher) -> None:
        super().__init__(entry)
        self._launcher = launcher

    def expected(self) -> Footprint | None:
        """``launcher.memory``, if it is given: nobody knows what a command takes."""
        memory = self._launcher.memory
        return None if memory is None else Footprint.of_size(int(memory))

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
            log=paths.log_dir() / log_name(name),
            records=paths.engine_records(),
            start_timeout_s=it.start_timeout_s,
            stop_grace_s=it.stop_grace_s,
        )

    def version(self) -> str:
        """When the program was last changed: commands have no common way to ask for a version."""
        program = shutil.which(expand(self._launcher.argv[0], self._entry.name, self._launcher.port))
        return str(Path(program).stat().st_mtime_ns) if program is not None else ""
