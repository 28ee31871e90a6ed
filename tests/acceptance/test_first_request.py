"""README's two commands with real engines, in a shell as full as shells are; and how soon the answer comes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.acceptance.conftest import cpu_config
from tests.support.processes import command, of_home
from tests.support.stack import free_port

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ROUNDHOUSE = [sys.executable, "-m", "roundhouse.cli.main"]
HOST = "127.0.0.2"
ODD = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "socks5://127.0.0.1:9",
    "OPENAI_API_KEY": "sk-of-somebody-else",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "ANTHROPIC_API_KEY": "sk-of-somebody-else",
    "ROUNDHOUSE_HOST": HOST,
    "ROUNDHOUSE_KEYS": "off",
}


class Shell:
    """A shell in which the commands are given."""

    def __init__(self, folder: Path) -> None:
        self.home, self.port = folder / "my models 🚂", free_port()
        self.key = "sk-" + secrets.token_hex(16)
        config = folder / "config.yaml"
        config.write_text(cpu_config(("qwen-0.5b", "qwen-coder-0.5b")), encoding="utf-8")
        self.env = {
            **os.environ,
            **ODD,
            "ROUNDHOUSE_HOME": str(self.home),
            "ROUNDHOUSE_PORT": str(self.port),
            "ROUNDHOUSE_CONFIG": str(config),
            "LITELLM_MASTER_KEY": self.key,
            "LITELLM_SALT_KEY": "sk-" + secrets.token_hex(16),
            "ROUNDHOUSE_ENGINE_KEY": secrets.token_hex(16),
            "REDIS_PASSWORD": secrets.token_hex(16),
        }

    def run(self, *arguments: str) -> str:
        """The output of a command that succeeds."""
        done = subprocess.run([*ROUNDHOUSE, *arguments], env=self.env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, model: str) -> float:
        """One answer; the seconds that it took."""
        began = time.perf_counter()
        body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": str(time.time_ns())}]}
        url = f"http://{HOST}:{self.port}/v1/chat/completions"
        headers = {"authorization": f"Bearer {self.key}"}
        httpx.post(url, json=body, headers=headers, timeout=120, trust_env=False).raise_for_status()
        return time.perf_counter() - began


@pytest.fixture
def shell() -> Iterator[Shell]:
    with tempfile.TemporaryDirectory(prefix="rh-", ignore_cleanup_errors=True) as folder:
        it = Shell(Path(folder))
        yield it
        it.run("down")
        assert [command(p) for p in of_home(it.home)] == []


def test_the_first_request_after_up_is_not_the_slow_one(shell: Shell) -> None:
    """It took ten times as long as the next ones: vLLM was imported three times while somebody waited."""
    said = shell.run("up", "--models", "tiny", "--detach")
    assert f"Roundhouse answers at http://{HOST}:{shell.port}/v1" in said
    assert f"OPENAI_BASE_URL=http://{HOST}:{shell.port}/v1" in shell.run("env")
    first = shell.ask("reasoning")
    later = [shell.ask(model) for model in ("code", "reasoning", "code", "reasoning")]  # a switch each, like the first
    assert first <= 3 * median(later), f"{first:.1f} s, then {later}"
