"""What every launcher of a local process does: start it, adopt it, and tell it from any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import EngineProcess, LaunchError, Progress
from roundhouse.launchers.process.child import Child, Spec
from roundhouse.launchers.process.loopback import loopback_client
from roundhouse.launchers.process.readiness import healthy, launch
from roundhouse.launchers.process.records import kill_session, read_record


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

    async def start(self, report: Callable[[Progress], None]) -> EngineProcess:
        """Start the engine and return it once it answers. Raises LaunchError."""
        return await launch(self.spec(), report)

    async def adopt(self) -> EngineProcess | None:
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
