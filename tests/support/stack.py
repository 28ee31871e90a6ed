"""The whole product as its users run it: the Procfile's lines as real processes, in a home of its own.

Everything that a stack starts carries its home in the environment, so that whatever is left can be found.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import yaml
from openai import AsyncOpenAI, OpenAI

from roundhouse.bench.stack import free_port
from tests.support.processes import command, of_home, words
from tests.support.waiting import gone, wait_for

PROJECT = Path(__file__).resolve().parents[2]
LINES = {
    "redis": "roundhouse.deploy.services.redis",
    "postgres": "roundhouse.deploy.services.postgres",
    "residency": "roundhouse.residency",
    "proxy": "roundhouse.proxy",
}
START_TIMEOUT_S = 90.0
"""LiteLLM's import alone takes 5 s on a fast machine, 26 s on a busy one without byte code."""

STOP_TIMEOUT_S = 60.0

Config = dict[str, Any]


class Stack:
    """The Procfile's lines, started in the order of ``with``, stopped as honcho would stop them.

    Without ``keys`` there is no database, and the master key is the only one.
    """

    def __init__(self, config: Config, env: Mapping[str, str] | None = None, keys: bool = False) -> None:
        # Short, because the path of a unix socket may have some 100 bytes only.
        self.home = Path(tempfile.mkdtemp(prefix="rh-"))
        self.port = free_port()
        host = (env or {}).get("ROUNDHOUSE_HOST", "127.0.0.1")
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.key = "sk-" + secrets.token_hex(16)
        self.config_file = self.home / "config.yaml"
        self.config_file.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        self.models = [entry["model_name"] for entry in config["model_list"]]
        self._env = {
            **os.environ,
            "ROUNDHOUSE_HOME": str(self.home),
            "ROUNDHOUSE_PORT": str(self.port),
            "ROUNDHOUSE_CONFIG": str(self.config_file),
            "ROUNDHOUSE_MODELS": "tiny",
            "ROUNDHOUSE_DEBUG": "1",
            "ROUNDHOUSE_ENGINE_KEY": "sk-" + secrets.token_hex(16),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_SALT_KEY": "sk-" + secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
            "UI_PASSWORD": secrets.token_hex(16),
            "ROUNDHOUSE_WORKERS": "1",  # on every machine
            "ROUNDHOUSE_KEYS": "on" if keys else "off",
            **(env or {}),
        }
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=300)
        self._lines: dict[str, subprocess.Popen[bytes]] = {}

    # --- starting and stopping -------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop(keep_home=True)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        left = self.stop()
        assert not left, f"left behind: {left}"

    def start(self) -> None:
        """Start every line; return when the gateway answers."""
        (self.home / "log").mkdir(exist_ok=True)
        for name, module in LINES.items():
            if name == "postgres" and self._env["ROUNDHOUSE_KEYS"] == "off":
                continue
            with (self.home / "log" / f"{name}.line.log").open("ab") as log:
                self._lines[name] = subprocess.Popen(
                    [sys.executable, "-m", module],
                    cwd=PROJECT,
                    env=self._env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        wait_for(self._answers, f"the gateway answers\n{self.logs()}", START_TIMEOUT_S)

    def _answers(self) -> bool:
        for name, line in self._lines.items():
            assert line.poll() is None, f"{name} ended with code {line.returncode}\n{self.logs()}"
        with suppress(httpx.HTTPError):
            return self.http.get("/residency/status", timeout=5).status_code == 200
        return False

    def stop(self, keep_home: bool = False) -> list[str]:
        """TERM to every line, as honcho does; return what did not go away (and end that by force)."""
        left = self._end_lines()
        self.http.close()
        if left or keep_home:
            print(f"kept for inspection: {self.home}")
        else:
            self.discard()
        return left

    def restart(self) -> float:
        """Stop every line and start it again in the same home; seconds until the gateway answers."""
        assert not self._end_lines()
        began = time.monotonic()
        self.start()
        return time.monotonic() - began

    def _end_lines(self) -> list[str]:
        for line in self._lines.values():
            if line.poll() is None:
                os.killpg(line.pid, signal.SIGTERM)
        left: list[str] = []
        with suppress(AssertionError):
            wait_for(lambda: not self.processes(), "all processes are gone", STOP_TIMEOUT_S)
        for process in self.processes():
            with suppress(psutil.Error):
                left.append(f"{process.pid} {command(process)[:120]}")
                process.kill()
        for line in self._lines.values():
            line.wait(10)
        self._lines.clear()
        return left

    def discard(self) -> None:
        """Remove the home, and the database where it lies elsewhere."""
        from roundhouse.deploy.services import cluster

        if self._env["ROUNDHOUSE_KEYS"] == "on":
            with _environment(ROUNDHOUSE_HOME=str(self.home)):
                cluster.discard()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def env(self) -> dict[str, str]:
        """The environment of every line, for a command that is to find this stack."""
        return dict(self._env)

    # --- clients ---------------------------------------------------------------------------------

    @contextmanager
    def client(self) -> Iterator[OpenAI]:
        """The official SDK, without retries of its own: what the gateway says is what the test sees."""
        with OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=300) as client:
            yield client

    def async_client(self) -> AsyncOpenAI:
        """The official asynchronous SDK; use it with ``async with``."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=300)

    def chat(self, model: str, text: str, **more: Any) -> httpx.Response:
        """One chat completion over plain HTTP; ``more`` goes into the body."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}
        return self.http.post("/v1/chat/completions", json=body)

    # --- looking ---------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Residency's status, asked on its own socket, so that it can be had while the proxy is down."""
        from roundhouse.config.paths import control_socket

        with _environment(ROUNDHOUSE_HOME=str(self.home)):
            path = str(control_socket())
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://residency") as client:
            status: dict[str, Any] = client.get("/status", timeout=10).json()
        return status

    def counter(self, name: str) -> int:
        """One of the status's counters."""
        return int(self.status()["counters"][name])

    def resident(self) -> str | None:
        """The model on the first device."""
        name: str | None = self.status()["devices"][0]["resident"]
        return name

    def state(self, model: str) -> str:
        """The state of ``model``'s engine."""
        return str(self.status()["models"][model]["state"])

    def engine_pid(self, model: str) -> int | None:
        """The main process of ``model``'s engine, if it has one."""
        pid: int | None = self.status()["models"][model]["pid"]
        return pid

    def leases(self) -> int:
        """How many leases are held in all."""
        return sum(model["leases"] for model in self.status()["models"].values())

    def processes(self) -> list[psutil.Process]:
        """Every living process that belongs to this stack, zombies aside."""
        return of_home(self.home)

    def logs(self, last: int = 3000) -> str:
        """The ends of all logs, for the text of a failure."""
        texts = []
        for file in sorted(self.home.glob("log/*.log")):
            texts.append(f"--- {file.name}\n{file.read_text(errors='replace')[-last:]}")
        return "\n".join(texts)

    # --- breaking --------------------------------------------------------------------------------

    def worker(self, name: str) -> psutil.Process:
        """The process that does the work of a line: the biggest child of its small supervisor."""

        def find() -> psutil.Process | None:
            with suppress(psutil.Error):
                children = psutil.Process(self._lines[name].pid).children()
                if name == "residency":
                    children = [child for child in children if "--fd" in words(child)]
                return max(children, key=lambda child: child.memory_info().rss, default=None)
            return None

        found = wait_for(find, f"{name} has a working process")
        assert found is not None
        return found

    def kill(self, name: str) -> None:
        """``kill -9`` of the process that does the work of line ``name``."""
        victim = self.worker(name)
        victim.kill()
        wait_for(lambda: gone(victim), f"{name} is killed")

    def kill_engine(self, model: str) -> int:
        """``kill -9`` of ``model``'s engine, its main process only; returns the pid it had."""
        pid = wait_for(lambda: self.engine_pid(model), f"{model} has a process")
        engine = psutil.Process(pid)
        engine.kill()
        wait_for(lambda: gone(engine), "the engine is dead")
        return pid


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
