"""Stacks to measure: Roundhouse and plain LiteLLM side by side, each with its own home, ports and secrets."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from roundhouse.config import litellm_rules, paths
from roundhouse.config.load import read_yaml
from roundhouse.launchers.vllm.weights import TINY_SCRIPT, tiny_folder

START_S = 120.0
"""How long a service may take to answer: LiteLLM's imports on a slow machine, and then some."""

POLL_S = 0.05
GRACE_S = 20.0


PORTS = range(10_000, 32_000)
"""Below the ports that the kernel gives to outgoing connections (from 32768): one of those could take a port that was
free a moment ago, before the engine that is to listen on it has started."""

_taken: set[int] = set()


def free_port() -> int:
    """A port of the loopback interface that nobody uses, and that was not given before by this process."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _taken:
                _taken.add(port)
                return port


def litellm_config(models: list[dict[str, Any]], *, gate: bool, **residency: Any) -> dict[str, Any]:
    """The settings of the YAML that is shipped, for ``models``; without ``gate`` plain LiteLLM with the same ones."""
    shipped = read_yaml(paths.default_config_file("rtx5080"))
    config: dict[str, Any] = {"model_list": models}
    for section in ("router_settings", "litellm_settings", "general_settings"):
        config[section] = shipped[section]
    del config["router_settings"]["model_group_alias"]
    if gate:
        config["residency"] = residency
    else:
        config["litellm_settings"]["callbacks"].remove(litellm_rules.HOOK)
    return config


def model(name: str, launcher: dict[str, Any]) -> dict[str, Any]:
    """A ``model_list`` entry for a managed engine."""
    base = f"http://127.0.0.1:{launcher['port']}/v1"
    return {
        "model_name": name,
        "litellm_params": {
            "model": f"hosted_vllm/{name}",
            "api_base": base,
            "api_key": "os.environ/ROUNDHOUSE_ENGINE_KEY",
            "timeout": 900,
        },
        "model_info": {
            "disable_background_health_check": True,
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
            "launcher": launcher,
        },
    }


class Stack:
    """Processes with a private home. Everything it starts ends with it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.key = "sk-" + secrets.token_hex(16)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ROUNDHOUSE_", "LITELLM_", "REDIS_"))},
            "ROUNDHOUSE_HOME": str(home),
            "ROUNDHOUSE_PORT": str(self.port),
            "ROUNDHOUSE_CONFIG": str(home / "config.yaml"),
            "ROUNDHOUSE_ENGINE_KEY": secrets.token_hex(16),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_SALT_KEY": secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
            "ROUNDHOUSE_KEYS": "off",
            "ROUNDHOUSE_WORKERS": "1",  # as plain LiteLLM has
        }
        for name in ("ROUNDHOUSE_ENGINE_PYTHON", "ROUNDHOUSE_MODELS"):
            if name in os.environ:
                self.env[name] = os.environ[name]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the YAML that the services read."""
        (self.home / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def spawn(self, name: str, *argv: str, **env: str) -> None:
        """Start ``python ARGV`` as service ``name``; its output goes to a log in the home."""
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *argv],
                env={**self.env, **env},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self, name: str, url: str) -> float:
        """Wait until ``url`` answers 200; the seconds it took.

        Raises:
            RuntimeError: the service ended, or did not answer in time; with the end of its log.
        """
        began = time.perf_counter()
        while time.perf_counter() - began < START_S:
            if self.processes[name].poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2).status_code == 200:
                    return time.perf_counter() - began
            time.sleep(POLL_S)
        raise self._silent(name, url)

    def wait_for_socket(self, name: str, path: Path) -> None:
        """Wait until somebody listens on the unix socket ``path``.

        Raises:
            RuntimeError: the service ended, or did not listen in time; with the end of its log.
        """
        began = time.perf_counter()
        while time.perf_counter() - began < START_S and self.processes[name].poll() is None:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(path)) == 0:
                    return
            time.sleep(POLL_S)
        raise self._silent(name, str(path))

    def _silent(self, name: str, where: str) -> RuntimeError:
        log = (self.home / f"{name}.log").read_text(errors="replace")
        return RuntimeError(f"{name} did not answer at {where}; the end of its log:\n{log[-2000:]}")

    def cpu_s(self, *names: str) -> float:
        """Processor seconds used so far by services and their workers: engines have sessions of their own."""
        total = 0.0
        for name in names:
            root = psutil.Process(self.processes[name].pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                    if os.getsid(process.pid) == root.pid:
                        times = process.cpu_times()
                        total += times.user + times.system
        return total

    def close(self) -> None:
        """End everything, the last started first."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in reversed(self.processes.values()):
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def stack(config: dict[str, Any], services: tuple[str, ...], **env: str) -> Iterator[Stack]:
    """A Roundhouse stack with ``services`` ("redis", "residency", "proxy"), up and answering."""
    with ExitStack() as cleanup:
        home = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="rh-bench-", ignore_cleanup_errors=True)))
        it = Stack(home)
        cleanup.callback(it.close)
        it.write_config(config)
        modules = {
            "redis": "roundhouse.deploy.services.redis",
            "residency": "roundhouse.residency",
            "proxy": "roundhouse.proxy",
        }
        for name in services:
            it.spawn(name, "-m", modules[name], **env)
        if "residency" in services:
            it.wait_for_socket("residency", home / "run" / "residency.sock")
        if "proxy" in services:
            it.wait("proxy", f"http://127.0.0.1:{it.port}/health/liveliness")
        yield it


def machine() -> str:
    """The machine in a few words, to stand beside figures."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), "unknown processor")
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"


def tiny_model(kind: str, report: Callable[[str], None]) -> Path:
    """The folder of a tiny model with random weights (``chat`` or ``embedding``, say), made where it is missing.

    Raises:
        RuntimeError: it cannot be made.
    """
    folder = tiny_folder(kind)
    if not folder.is_dir():
        report("making tiny models")
        made = subprocess.run([str(paths.engine_python()), str(TINY_SCRIPT), str(folder.parent)], capture_output=True)
        if made.returncode:
            raise RuntimeError(f"cannot make tiny models: {made.stderr.decode()[-500:]}")
    return folder
