"""Any OpenAI-compatible server, given as a command: llama.cpp's, for example."""

from __future__ import annotations

import shutil
from pathlib import Path

from roundhouse.config import paths
from roundhouse.config.schema import CommandLauncher, ModelEntry
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.process.child import Spec
from roundhouse.launchers.process.environment import engine_environment, expand
from roundhouse.launchers.process.file_names import log_name
from roundhouse.launchers.process.launcher import ProcessLauncher, identity
from roundhouse.launchers.vllm import phases


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
            phases=phases.further,  # the command may well be a vLLM
        )

    def version(self) -> str:
        """When the program was last changed: commands have no common way to ask for a version."""
        program = shutil.which(expand(self._launcher.argv[0], self._entry.name, self._launcher.port))
        return str(Path(program).stat().st_mtime_ns) if program is not None else ""
