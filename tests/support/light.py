"""A home whose stack starts in a second or two: all of it as it is, but for a fake in the gateway's place."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support import fakes
from tests.support.processes import command, of_home, words
from tests.support.stack import PROJECT, free_port
from tests.support.waiting import wait_for

FAKES = PROJECT / "tests" / "fakes"
ROUNDHOUSE = [sys.executable, str(FAKES / "light.py")]
LINES = {
    "redis": "roundhouse.deploy.services.redis",
    "postgres": "roundhouse.deploy.services.postgres",
    "residency": "roundhouse.residency",
    "proxy": str(FAKES / "gateway.py"),
}
"""What the last word of each service's command line is."""

READY = "Ctrl-C stops it."


class Home:
    """A home of its own with two models, and the commands run in it. ``gateway``: how the fake behaves."""

    def __init__(self, folder: Path, gateway: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.key = "sk-" + secrets.token_hex(16)
        self.config = folder / "config.yaml"
        self.document: dict[str, Any] = fakes.config({"a": [], "b": []})
        self.document["router_settings"]["model_group_alias"] = {"second": "b"}
        self.write(self.document)
        self.env = {
            **os.environ,
            "ROUNDHOUSE_HOME": str(folder),
            "ROUNDHOUSE_PORT": str(self.port),
            "ROUNDHOUSE_CONFIG": str(self.config),
            "ROUNDHOUSE_KEYS": "off",
            "ROUNDHOUSE_FAKE_GATEWAY": gateway,
            "ROUNDHOUSE_ENGINE_KEY": secrets.token_hex(16),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_SALT_KEY": "sk-" + secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
        }

    def write(self, document: dict[str, Any]) -> None:
        """Write the YAML."""
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        argv = [*ROUNDHOUSE, *arguments]
        return subprocess.run(argv, env=self.env | env, capture_output=True, text=True, timeout=60, check=False)

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        """A command that goes on; what it prints, on either stream, is in its ``stdout``."""
        argv = [*ROUNDHOUSE, *arguments]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | more
        return subprocess.Popen(argv, env=self.env, text=True, **streams)

    def up(self) -> subprocess.Popen[str]:
        """An attached ``up`` that is ready."""
        process = self.start("up")
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if READY in line:
                return process
        raise AssertionError("".join(said))

    def service(self, name: str) -> psutil.Process:
        """The process of a line of the Procfile."""
        found = [it for it in self.processes() if words(it)[-1:] == [LINES[name]]]
        return min(found, key=lambda it: it.pid)

    def honcho(self) -> psutil.Process:
        """The process manager: the first of those that have its name."""
        return min((it for it in self.processes() if "honcho" in command(it)), key=lambda it: it.pid)

    def listens(self) -> None:
        """Wait until the gateway's port is open."""
        wait_for(lambda: (self.folder / "run" / "proxy.pid").exists(), "the gateway is there")

    def processes(self) -> list[psutil.Process]:
        """All that runs for this home, commands aside."""
        return [it for it in of_home(self.folder) if ROUNDHOUSE[-1] not in words(it)]

    def end(self) -> None:
        """Bring down whatever a test has left."""
        if self.processes():
            self.run("down", "--force")
        for process in self.processes():
            process.kill()
